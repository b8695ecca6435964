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
    ("words", "said"),
    [
        (["fit", "--modle", "7b"], "fit has no flag --modle"),  # fit takes a word without its flag
        (["audit", "x", "--arhc", "7.5"], "nearest: --arch"),
        (["plan", "-j", "-x"], "plan has no flag -x"),
        (["plan", "--jsno=1"], "nearest: --json"),
        (["fit", "--count", "two"], "takes a number, not 'two'"),
        (["fit", "--count=1.5"], "takes a number, not '1.5'"),
        (["fit", "--count", "99999999999999999999"], "too large"),
        (["fit", "7b", "--card"], "fit --card takes a value"),
        (["pull", "--card", "--driver", "535"], "pull --card takes a value"),
        (["serve", "--port", "--help"], "serve --port takes a value"),
    ],
)
def test_words_that_make_no_sense_are_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = typed(*words, capsys=capsys)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    "words", [["fit", "--help"], ["audit", "--help"], ["audit", "-h"], ["bench", "plan", "--help"]]
)
def test_help_of_a_task_is_not_its_target(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Inv(name="inv", binary="inv").run(["inv", *spelled_out(words)])
    assert not caught.value.code
    assert capsys.readouterr().out.startswith(f"./inv {words[0]} ")


def test_a_value_may_begin_with_dashes_unless_it_is_a_flag_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", "--print", "--model", "3b", "--flag", "--enforce-eager", "--card", "nonesuch"]
    code, err = typed(*words, capsys=capsys)
    assert (code, "nonesuch" in err) == (2, True)


@pytest.mark.parametrize("words", [["--list"], ["plan", "--json"], ["cards"]])
def test_a_full_disk_behind_stdout_is_told_once(words: list[str]) -> None:
    script = "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
    script += f"sys.argv = ['inv', *{words}]; from images.commands.program import main; main()"
    done = process.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.code == 1
    assert done.err.count("No space left on device") == 1
    assert "the disk is full" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["bench", "plan"], ["bench", "--name", "plan"]),
        (["bench"], ["bench"]),
        (["bench", "--name", "plan"], ["bench", "--name", "plan"]),
        (["plan", "--all"], ["plan", "--all"]),
    ],
)
def test_a_word_after_bench_is_its_name(words: list[str], meant: list[str]) -> None:
    assert spelled_out(words) == meant


def test_a_reader_that_goes_early_gets_no_traceback() -> None:
    whole = process.run([sys.executable, "-m", "images.commands.program", "--list"], cwd=ROOT)
    assert len(whole.out.splitlines()) > 20
    script = "import os, sys; read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
    script += "sys.argv = ['inv', '--list']; from images.commands.program import main; main()"
    done = process.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pull", "--from", "127.0.0.1:1/x", "--card", "nonesuch 9"], "no NVIDIA card is called"),
        (["pull", "--from", "127.0.0.1:1/x", "--card", "T4", "--driver", "new"], "driver"),
        (["pull", "--from", "BAD..//x", "--card", "T4"], "is not a repository"),
        (["publish", "--to", "Team/Qwen:latest", "--only", "cpu*", "--dry-run"], "is not a repository"),
        (["kernels", "--push", "--arch", "7.5"], "--push needs to know where to"),
    ],
)
def test_what_is_typed_wrong_is_told_before_anything_is_asked_or_made(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = typed(*words, capsys=capsys)
    assert (code, said in err) == (2, True), err


@pytest.mark.parametrize("command", ["audit", "slim"])
@pytest.mark.parametrize("target", ["", " "])
def test_an_empty_target_is_no_folder(command: str, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = typed(command, target, "--arch", "7.5", capsys=capsys)
    assert code == 2
    assert "nothing to" in err
