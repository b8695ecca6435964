"""SIGTERM and SIGHUP end a command as Ctrl-C does, with their own exit codes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from images.commands import options
from images.core.signals import Ended, ends_as_interrupts, exit_code_of


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """As at a terminal: below nohup, or in the background of a shell, two of them are ignored."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGTERM)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_what_was_begun_is_taken_back(number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []

    def action() -> None:
        try:
            os.kill(os.getpid(), number)
            threading.Event().wait(10)
        finally:
            if number != signal.SIGINT:
                os.kill(os.getpid(), signal.SIGTERM)  # a second one breaks nothing off
            done.append("taken back")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        options.run(action)
    assert (caught.value.code, done) == (code, ["taken back"])
    assert signal.getsignal(signal.SIGTERM) is before
    assert "run the same again" in capsys.readouterr().err


def test_nohup_is_left_alone() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ends_as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_sets_no_handlers() -> None:
    seen: list[object] = []

    def inside() -> None:
        with ends_as_interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
    assert exit_code_of(Ended(signal.SIGTERM)) == 143
