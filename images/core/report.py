"""What people see: steps with time and size on stderr, tables on stdout, errors with what to do about them."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from images.core.errors import CardstockError
from images.core.network_failure import is_network_failure, network_failure
from images.core.os_failure import os_failure
from images.core.typed import as_typed, has_command

# What takes one line of progress, such as `Report.line`.
PrintLine = Callable[[str], None]

# Sent by a build or a registry, an escape sequence could repaint the screen, and a mark of direction or a separator of
# lines could hide what stands behind it. Tab and newline are kept.
_OBEYED = (
    *(code for code in range(0x20) if code not in (0x09, 0x0A)),
    *range(0x7F, 0xA0),
    *range(0x200B, 0x2010),  # without width, and marks of direction
    *range(0x2028, 0x202F),  # separators of lines, embeddings and overrides of direction
    *range(0x2060, 0x2070),  # without width, isolates of direction
    0xFEFF,
    *range(0xD800, 0xE000),  # bytes of a file's name that are no UTF-8: no stream takes them
)
CONTROL: Mapping[int, None] = dict.fromkeys(_OBEYED)


def shown(text: str) -> str:
    """``text`` without what a terminal would obey or hide."""
    return text.translate(CONTROL)


def human_bytes(count: float) -> str:
    """Bytes in decimal units, three digits, as docker and registries count: 2980000000 -> "2.98 GB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while abs(count) >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    digits = 0 if units[0] == "B" or abs(count) >= 99.95 else 1 if abs(count) >= 9.995 else 2
    return f"{count:.{digits}f} {units[0]}"


def human_seconds(seconds: float) -> str:
    """A duration: "0.4 s", "12.5 s", "3 min 20 s", "1 h 02 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Step:
    """A step under way; what is noted here is printed when it ends."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Add a fact to the closing line, such as "34 objects" or "already built"."""
        self.notes.append(text)

    def size(self, count: int) -> None:
        """Add a size in bytes to the closing line."""
        self.note(human_bytes(count))


class Report:
    """Progress on ``err``, tables on ``out``; colours and a spinner on a terminal, plain lines elsewhere and in CI.

    Nothing but `table` writes to ``out``, so that JSON has it alone. Text is data: no markup, no control characters.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = Console(file=out or sys.stdout, highlight=False)
        self._err = Console(file=err or sys.stderr, highlight=False)
        self.live = (self._err.is_terminal and "CI" not in os.environ) if live is None else live
        self._clock = clock
        self._depth = 0

    def line(self, text: str, style: str = "") -> None:
        """One line of progress, as it is."""
        self._write(text, style)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Print start and end of the block, with seconds and notes; an exception is printed as a failure and raised."""
        step, start = Step(), self._clock()
        self._write(f"start {title}", "dim")
        # rich draws one spinner at a time: the outermost step has it.
        spin = self._err.status(Text(shown(title))) if self.live and not self._depth else nullcontext()
        self._depth += 1
        try:
            with spin:
                yield step
        except BaseException as error:
            self._depth -= 1
            how = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            self._write(f"{how} {title}: after {human_seconds(self._clock() - start)}", "red")
            raise
        self._depth -= 1
        facts = ", ".join([human_seconds(self._clock() - start), *step.notes])
        self._write(f"done  {title}: {facts}", "green")

    def next_command(self, command: str, why: str = "") -> None:
        """The next thing to type; what this program does not have is said to be a checkout's, not the next thing."""
        when = "next" if has_command(command) else "in a checkout"
        self._write(f"{when}: {command}" + (f"    # {why}" if why else ""), "bold", told=False)

    def table(self, rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
        """Rows of text to stdout: drawn to the width of a terminal, else one full line a row, two spaces between."""
        cells = [[shown(as_typed(str(cell))) for cell in row] for row in (header, *rows)]
        if self._out.is_terminal:
            drawn = Table(box=None, pad_edge=False, header_style="bold")
            for title in cells[0]:
                drawn.add_column(Text(title), overflow="fold")
            for row in cells[1:]:
                drawn.add_row(*map(Text, row))
            self._out.print(drawn)
            return
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._out.file.write(line.rstrip() + "\n")

    def _write(self, text: str, style: str = "", *, told: bool = True) -> None:
        clean = "  " * self._depth + shown(as_typed(text, told=told))
        if self.live:
            self._err.print(Text(clean, style=style), soft_wrap=True)
        else:
            self._err.file.write(clean + "\n")
            self._err.file.flush()


def print_out(text: str, *, end: str = "\n") -> None:
    """A command's answer to stdout, with commands as this program has them."""
    sys.stdout.write(as_typed(text) + end)


def discard_stdout() -> None:
    """Send what is left of stdout to /dev/null: its reader (head, less) has gone, or what it goes to is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: BaseException, *, debug: bool = False, err: TextIO | None = None) -> int:
    """Print an error on stderr, with ``debug`` its traceback first, and return the exit code of its kind.

    What the operating system refused, or a connection that broke off, is told as that. Any other exception is reported
    as a defect of this program, with exit code 1. Where stderr itself takes nothing, the exit code alone says it.
    """
    stream = err or sys.stderr
    told = as_told(error)
    with suppress(OSError, ValueError):  # stderr is full, or closed
        if debug:
            stream.write("".join(traceback.format_exception(error)))
        stream.write(shown(as_typed(f"error: {told}")) + "\n")
        stream.flush()
    return told.exit_code


def as_told(error: BaseException) -> CardstockError:
    """``error`` as a person is told it."""
    if isinstance(error, CardstockError):
        return error
    if is_network_failure(error):
        return network_failure(error)
    if isinstance(error, OSError) and (error.errno is not None or error.filename is not None):
        return os_failure(error)
    if isinstance(error, MemoryError):
        return CardstockError("this machine's memory is used up", do="end other programs, then run the same again")
    return CardstockError(
        f"unexpected {type(error).__name__}: {error}",
        cause="a defect in cardstock",
        do="run the same again with --debug, and report what it prints",
    )
