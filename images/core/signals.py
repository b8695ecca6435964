"""A signal that asks a command to end is as good as Ctrl-C: what was begun is taken back; the exit code says which."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What `kill`, systemd and `docker stop` send, and what a terminal sends when it is closed.
_ENDS = (signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """This process was asked to end by a signal; ``exit_code`` is what a shell says of it: 128 and the number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """The exit code of an interrupted command: 130 for Ctrl-C."""
    return interrupt.exit_code if isinstance(interrupt, Ended) else 128 + signal.SIGINT


@contextmanager
def ends_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Ended` in the block, once: what is being taken back is not broken off by a second one.

    Outside of a process's main thread nothing changes. A SIGHUP that is ignored stays so: `nohup` wants that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDS}

    def end(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
