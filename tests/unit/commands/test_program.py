"""`./inv` as typed: exit codes and errors for words that are no task and no flag."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from images.commands.program import Inv, spelled_out
from images.core import process

ROOT = Path(__file__).parents[3]


def typed(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        Inv(name="inv", binary="inv").run(["inv", *spelled_out(words)])
    return int(caught.value.code or 0), capsys.readouterr().err


def test_a_misspelt_flag_names_the_nearest_of_its_task(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = typed("build", "--arh", "7.5", capsys=capsys)
    assert code == 2
    assert "build has no flag --arh" in err
    assert "nearest: --arch" in err


def test_a_misspelt_task_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = typed("plann", capsys=capsys)
    assert code == 2
    assert "nearest: plan" in err


def test_a_flag_without_its_value_is_usage_too(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = typed("plan", "--cuda", capsys=capsys)
    assert code == 2
    assert "cuda" in err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["bench", "plan"], ["bench", "--name", "plan"]),
        (["bench"], ["bench"]),
        (["bench", "--name", "plan"], ["bench", "--name", "plan"]),
        (["plan", "--all"], ["plan", "--all"]),
        (["audit", "--help"], ["--help", "audit"]),
        (["slim", "-h"], ["--help", "slim"]),
        (["fit", "--json", "--help"], ["--help", "fit"]),
        (["--help", "fit"], ["--help", "fit"]),
    ],
)
def test_words_that_invoke_would_read_otherwise(words: list[str], meant: list[str]) -> None:
    assert spelled_out(words) == meant


def test_a_reader_that_goes_early_gets_no_traceback() -> None:
    whole = process.run([sys.executable, "-m", "images.commands.program", "--list"], cwd=ROOT)
    assert len(whole.out.splitlines()) > 20
    script = "import os, sys; read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
    script += "sys.argv = ['inv', '--list']; from images.commands.program import main; main()"
    done = process.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", ["audit", "slim", "fit"])
def test_help_after_a_command_is_its_help_and_no_target(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Inv(name="inv", binary="inv").run(["inv", *spelled_out([command, "--help"])], exit=False)
    assert f"{command} [--options]" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["audit", "slim", "fit"])
def test_a_misspelt_flag_is_no_target(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = typed(command, "--jsn", capsys=capsys)
    assert code == 2
    assert f"{command} has no flag --jsn" in err
    assert "nearest: --json" in err


@pytest.mark.parametrize("command", ["audit", "slim"])
@pytest.mark.parametrize("target", ["", " "])
def test_an_empty_target_is_no_folder(command: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = typed(command, target, "--arch", "7.5", capsys=capsys)
    assert code == 2
    assert "nothing to" in err
