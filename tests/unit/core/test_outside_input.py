"""Files that people name, JSON and YAML: what is no such thing, or never ends, is refused in a sentence."""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from images.core import compose_yaml, print_error, read_file, read_json, to_text
from images.core.errors import UsageError
from images.core.yaml_input import MOST_DEPTH, MOST_YAML_VALUES


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_pipe, "it is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
        (lambda path: path.mkdir(), "it is a folder"),
        (_socket, "cannot read"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "it is not there"),
        (lambda path: path.write_bytes(b"x" * 11), "more than 10 bytes"),
    ],
)
def test_what_is_no_file_to_read_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "named"
    make(path)
    with pytest.raises(UsageError, match=said):
        read_file(path, most=10)


def test_a_name_with_a_zero_byte() -> None:
    with pytest.raises(UsageError, match="no file's name"):
        read_file(Path("a\0b"))


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "named"
    path.write_bytes(b"x" * 10)
    assert read_file(path, most=10) == b"x" * 10


def test_bytes_that_are_no_text_have_a_place() -> None:
    with pytest.raises(UsageError, match=r"hosts\.yaml:2") as caught:
        to_text(b"hosts:\n  - M\xfcnchen\n", "hosts.yaml")
    assert "0xfc" in str(caught.value)
    assert "iconv" in str(caught.value)
    assert to_text(b"\xef\xbb\xbfa: 1", "x") == "a: 1"


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is not JSON"), ("{", "is not JSON"), ("[" * 100_000, "nested too deep"), ("1" * 5000, "is not JSON")],
)
def test_what_is_no_json(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_json(path)


def _bomb(rounds: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, rounds)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_bomb(9), "too many values"),
        ("a: &a [*a]", "stands for what it is part of"),
        ("a: &a\n  b: &b [*a]", "stands for what it is part of"),
        ("[" * 5000 + "]" * 5000, "nested too deep"),
        ("[" * 1_000_000, "nested too deep"),
        ("\n".join(" " * i + "a:" for i in range(100)), "nested too deep"),
        ("a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 70)), "nested too deep"),
        ("[" + "x," * (MOST_YAML_VALUES + 1) + "]", "too many values"),
        ("x" * (5 << 20), "too large"),
        ("a: *nowhere", "is not YAML"),
        ("a: [", "is not YAML"),
        ("a: \x00", "is not YAML"),
        ("%YAML 9.9\n---\na", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
    ],
)
def test_yaml_out_of_bounds_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compose_yaml(text, "hosts.yaml")


def test_aliases_within_the_bounds_are_read() -> None:
    assert compose_yaml(_bomb(4), "hosts.yaml") is not None
    assert compose_yaml("[" * MOST_DEPTH + "]" * MOST_DEPTH, "hosts.yaml") is not None


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "ls -ld"),
        (errno.EPERM, "may not do that"),
        (errno.EDQUOT, "quota"),
        (errno.EMFILE, "ulimit"),
        (errno.EIO, "dmesg"),
        (errno.EXDEV, "cross-device"),
    ],
)
def test_what_the_system_refuses_is_no_defect(code: int, said: str) -> None:
    err = io.StringIO()
    assert print_error(OSError(code, os.strerror(code), "/var/lib/x"), err=err) == 1
    assert "/var/lib/x" in err.getvalue()
    assert said.lower() in err.getvalue().lower()
    assert "defect" not in err.getvalue()


def test_other_errors_are_defects_and_memory_is_none() -> None:
    err = io.StringIO()
    assert print_error(KeyError("x"), err=err) == 1
    assert "a defect in cardstock" in err.getvalue()
    err = io.StringIO()
    assert print_error(MemoryError(), err=err) == 1
    assert "memory" in err.getvalue()
    assert "defect" not in err.getvalue()


def test_a_stderr_that_takes_nothing_leaves_the_exit_code() -> None:
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    assert print_error(UsageError("x"), err=full) == 2


def test_what_hides_text_is_not_printed() -> None:
    err = io.StringIO()
    print_error(UsageError("a\u202egpj.exe\u2028b\u200bc\udcffd\x1b[2J"), err=err)
    assert err.getvalue() == "error: agpj.exebcd[2J\n"
