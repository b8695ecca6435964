"""What people see, on a terminal and off it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from images.core.errors import EngineUnreachable
from images.core.report import Report, human_bytes, human_seconds, print_error


class Screen(io.StringIO):
    """Output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def ticking(*seconds: float) -> Iterator[float]:
    yield from seconds


def report_to(out: io.StringIO, err: io.StringIO, *seconds: float) -> Report:
    return Report(out, err, clock=ticking(*seconds).__next__)


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def err() -> io.StringIO:
    return io.StringIO()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (2_980_000_000, "2.98 GB"),
        (9_996_000, "10.0 MB"),
        (99_960_000, "100 MB"),
        (999_600_000, "1.00 GB"),
        (45_000_000_000, "45.0 GB"),
        (2_500_000_000_000_000, "2500 TB"),
        (-1500, "-1.50 kB"),
    ],
)
def test_human_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (12.54, "12.5 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (751.4, "12 min 31 s"),
        (3599.6, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_human_seconds(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_steps_nest_and_print_time_and_size(out: io.StringIO, err: io.StringIO) -> None:
    report = report_to(out, err, 0.0, 1.0, 3.5, 200.0)
    with report.step("build cpu") as outer:
        with report.step("os") as inner:
            inner.size(199_000_000)
        report.line("half-way")
        outer.note("already built: 1")
    assert err.getvalue().splitlines() == [
        "start build cpu",
        "  start os",
        "  done  os: 2.5 s, 199 MB",
        "  half-way",
        "done  build cpu: 3 min 20 s, already built: 1",
    ]
    assert out.getvalue() == ""


def test_a_failed_step_says_so_and_raises(out: io.StringIO, err: io.StringIO) -> None:
    report = report_to(out, err, 0.0, 2.0, 5.0, 6.0)
    with pytest.raises(ValueError, match="no"), report.step("outer"), report.step("inner"):
        raise ValueError("no")
    assert err.getvalue().splitlines()[2:] == ["  failed inner: after 3.0 s", "failed outer: after 6.0 s"]
    report.line("at the margin again")
    assert err.getvalue().splitlines()[-1] == "at the margin again"


def test_an_interrupt_is_called_stopped(out: io.StringIO, err: io.StringIO) -> None:
    with pytest.raises(KeyboardInterrupt), report_to(out, err, 0.0, 1.0).step("build"):
        raise KeyboardInterrupt
    assert "stopped build: after 1.0 s" in err.getvalue()


def test_a_terminal_gets_colour_and_one_spinner(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Screen()
    report = report_to(out, screen, 0.0, 0.0, 1.0, 1.0)
    assert report.live
    with report.step("outer"), report.step("inner"):
        pass
    assert "\x1b[32mdone  outer" in screen.getvalue()


def test_ci_is_plain_even_with_a_terminal(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    screen = Screen()
    with report_to(out, screen, 0.0, 1.0).step("build"):
        pass
    assert screen.getvalue() == "start build\ndone  build: 1.0 s\n"


@pytest.mark.parametrize("screen", [io.StringIO, Screen])
def test_text_is_data(out: io.StringIO, screen: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    err = screen()
    report_to(out, err).line("[red]x[/red] \x1b[2Jwiped\x9b2J \x07[/]")
    assert "[red]x[/red] [2Jwiped2J [/]" in err.getvalue()
    assert "\x1b[2J" not in err.getvalue()


def test_next_command_stands_in_progress_not_in_output(out: io.StringIO, err: io.StringIO) -> None:
    report_to(out, err).next_command("./inv pull", "hands each card its image")
    assert err.getvalue() == "next: ./inv pull    # hands each card its image\n"
    assert out.getvalue() == ""


def test_a_table_off_a_terminal_is_one_full_line_a_row(out: io.StringIO, err: io.StringIO) -> None:
    long = "x" * 300
    report_to(out, err).table([["cpu", long], ["cu124-sdpa", ""]], ["id", "state"])
    assert out.getvalue() == f"id          state\ncpu         {long}\ncu124-sdpa\n"
    assert err.getvalue() == ""


def test_a_table_on_a_terminal_shows_every_character(err: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    screen = Screen()
    report_to(screen, err).table([["cpu", "y" * 60]], ["id", "[state]"])
    assert screen.getvalue().count("y") == 60
    assert "[state]" in screen.getvalue()


def test_an_error_is_reported_in_lines_without_a_traceback(err: io.StringIO) -> None:
    error = EngineUnreachable("no engine answers", cause="no socket", do="./inv engine --start", where="the log")
    assert print_error(error, err=err) == 5
    assert err.getvalue().splitlines() == [
        "error: no engine answers",
        "  cause: no socket",
        "  do: ./inv engine --start",
        "  where: the log",
    ]


def test_debug_adds_the_traceback(err: io.StringIO) -> None:
    try:
        raise EngineUnreachable("no engine")
    except EngineUnreachable as error:
        print_error(error, debug=True, err=err)
    assert err.getvalue().startswith("Traceback")
    assert err.getvalue().endswith("error: no engine\n")


def test_an_unexpected_error_is_owned(err: io.StringIO) -> None:
    assert print_error(KeyError("x"), err=err) == 1
    assert "unexpected KeyError: 'x'" in err.getvalue()
    assert "--debug" in err.getvalue()
    assert "Traceback" not in err.getvalue()
