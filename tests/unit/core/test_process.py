"""The one way to start a process: what comes back, what fails how, and that nothing is left running."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.core import process
from images.core.process import ProcessFailed


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(true: object, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if callable(true) and true():
            return True
        time.sleep(0.02)
    return False


def test_output_and_code_come_back_apart() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


def test_words_are_data_not_shell(tmp_path: Path) -> None:
    word = "$(touch made) `touch made` ; touch made\n\"'"
    assert process.run(["printf", "%s", word], cwd=tmp_path).out == word
    assert list(tmp_path.iterdir()) == []


def test_env_is_added_to_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDSTOCK_TEST_A", "a")
    done = process.run(["sh", "-c", "echo $CARDSTOCK_TEST_A$CARDSTOCK_TEST_B"], env={"CARDSTOCK_TEST_B": "b"})
    assert done.out == "ab\n"


def test_stdin_is_what_was_given_or_nothing() -> None:
    assert process.run(["cat"], stdin="given").out == "given"
    assert process.run(["cat"]).out == ""


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    assert process.run(["printf", r"\377ok"]).out == "�ok"


def test_a_failure_tells_command_code_and_the_end_of_its_output() -> None:
    with pytest.raises(ProcessFailed) as caught:
        process.run(["sh", "-c", "for n in $(seq 100); do echo line$n >&2; done; exit 9"])
    assert caught.value.code == 9
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert "sh exited with 9: sh -c 'for n" in text
    assert "line100" in text
    assert "line60\n" not in text
    assert "line61\n" in text


def test_a_silent_failure_says_so() -> None:
    with pytest.raises(ProcessFailed, match="it printed nothing"):
        process.run(["false"])


def test_a_missing_program_and_one_that_may_not_run(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="No such file") as missing:
        process.run(["no-such-program-here"])
    assert missing.value.code == 127
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    with pytest.raises(ProcessFailed, match="Permission denied") as forbidden:
        process.stream([str(plain)], print)
    assert forbidden.value.code == 126


@pytest.mark.parametrize("how", ["run", "stream"])
def test_a_timeout_ends_its_children_too(how: str, tmp_path: Path) -> None:
    """As docker does with buildx: the child of the child holds the pipe open."""
    script = f"sleep 60 & echo $! >{tmp_path}/pid; wait"
    began = time.monotonic()
    with pytest.raises(ProcessFailed, match=r"no end after 0\.5 s") as caught:
        if how == "run":
            process.run(["sh", "-c", script], timeout=0.5)
        else:
            process.stream(["sh", "-c", script], print, timeout=0.5)
    assert caught.value.code == 124
    assert time.monotonic() - began < 10
    grandchild = int((tmp_path / "pid").read_text())
    assert wait_until(lambda: not alive(grandchild))


def test_stream_hands_lines_over_as_they_come(tmp_path: Path) -> None:
    seen: list[str] = []
    gate = tmp_path / "gate"

    def on_line(line: str) -> None:
        seen.append(line)
        gate.touch()  # the process waits for this: were lines held back, it would never end

    script = f"echo first; until [ -e {gate} ]; do sleep 0.02; done; echo second >&2"
    assert process.stream(["sh", "-c", script], on_line, timeout=20) == 0
    assert seen == ["first", "second"]


def test_stream_failure_has_the_tail_and_can_be_let_pass() -> None:
    with pytest.raises(ProcessFailed, match="why"):
        process.stream(["sh", "-c", "echo why; exit 4"], lambda _: None)
    assert process.stream(["sh", "-c", "exit 4"], lambda _: None, check=False) == 4


def test_an_interrupt_ends_the_child(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.stream(["sh", "-c", "sleep 60 & echo $!; wait"], interrupt)
    assert wait_until(lambda: not alive(pids[0]))


def test_an_interrupt_while_capturing_ends_the_child(tmp_path: Path) -> None:
    def press() -> None:
        wait_until((tmp_path / "pid").exists)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that starts the tests in the background has them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=press, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            process.run(["sh", "-c", f"echo $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 60"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert wait_until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_daemon_has_its_own_session_and_appends_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "log"
    log.parent.mkdir()
    log.write_text("before\n")
    pid = process.start_daemon(["sh", "-c", "echo $A; echo err >&2; sleep 60"], log, env={"A": "out"})
    try:
        assert wait_until(lambda: log.read_text() == "before\nout\nerr\n")
        assert os.getsid(pid) == pid
        assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")  # not a checkout that may go
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# a filter


def test_a_filter_is_fed_and_read_at_the_same_time() -> None:
    chunk = bytes(1 << 20)
    seen = 0

    def take(out: bytes) -> None:
        nonlocal seen
        seen += len(out)

    process.pump(["cat"], (chunk for _ in range(40)), take)  # more than a pipe holds, both ways
    assert seen == 40 << 20


def test_a_filter_that_fails_or_is_missing_says_so() -> None:
    with pytest.raises(ProcessFailed, match="exited with 3") as caught:
        process.pump(["sh", "-c", "echo no >&2; exit 3"], (bytes(1 << 20) for _ in range(10)), lambda _: None)
    assert (caught.value.code, caught.value.tail) == (3, "no")
    with pytest.raises(ProcessFailed) as missing:
        process.pump(["no-such-program"], [], lambda _: None)
    assert missing.value.code == 127


def test_what_feeds_or_reads_a_filter_may_break_off() -> None:
    def source() -> Iterator[bytes]:
        yield b"x" * (1 << 21)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        process.pump(["cat"], source(), lambda _: None)

    def take(_: bytes) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        process.pump(["cat"], (bytes(1 << 20) for _ in range(1000)), take)
