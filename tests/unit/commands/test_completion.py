"""Completion: the scripts as bash, zsh and fish run them, for both names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tasks
from images.commands.completion import SHELLS, completion_script, without_completion
from images.core import process
from images.core.errors import UsageError
from tests.helpers.nonempty import nonempty

COMMANDS = [getattr(tasks, name) for name in tasks.__all__]
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"_${1##*/}_words"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# A line typed into a zsh on a terminal of its own, and Tab twice; what the terminal then shows.
ZSH = """
zmodload zsh/zpty
zpty -b shell zsh -f -i
zpty -w shell "PS1=; autoload -U compinit; compinit -u -D; source $1; echo RE''ADY"
zpty -r -m shell seen '*READY*'
zpty -w -n shell "$2"; zpty -w -n shell $'\\t\\t'
repeat 50; do
    while zpty -r -t shell part; do seen+=$part; done
    [[ $seen == *"$3"* ]] && break
    sleep 0.1
done
zpty -d shell
print -r -- "$seen"
"""


def shell(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"this machine has no {name}: its completion is not run here")
    return program


def script(tmp_path: Path, kind: str, program: str) -> Path:
    path = tmp_path / f"completion.{kind}"
    path.write_text(completion_script(kind, program, COMMANDS))
    return path


@pytest.mark.parametrize("program", ["./inv", "cardstock"])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pu"], ["publish", "pull"]),
        (["pull", "--ver"], ["--verify-key", "--verify-identity"]),
        (["pull", "--dry-run", "--sa"], ["--save"]),
        (["--li"], ["--list"]),
        (["pull", "--save", "--"], [""]),  # a value: the shell's own completion of files
        (["load", "im"], [""]),
    ],
)
def test_bash_offers(tmp_path: Path, program: str, words: list[str], offered: list[str]) -> None:
    path = script(tmp_path, "bash", program)
    done = process.run([shell("bash"), "-c", BASH, "bash", str(path), program, *words], timeout=30)
    assert sorted(done.out.splitlines()) == sorted(offered)


@pytest.mark.parametrize("program", ["./inv", "cardstock"])
def test_fish_offers(tmp_path: Path, program: str) -> None:
    path = script(tmp_path, "fish", program)

    def offered(line: str) -> list[str]:
        typed = f'source "{path}"; complete -C "{program} {line}"'
        done = process.run([shell("fish"), "-N", "-c", typed], env={"HOME": str(tmp_path)}, timeout=30)
        return [row.split("\t")[0] for row in done.out.splitlines()]

    assert "pull" in offered("pu")
    assert offered("pull --ver") == ["--verify-identity", "--verify-key"]


@pytest.mark.parametrize("program", ["./inv", "cardstock"])
def test_zsh_offers(tmp_path: Path, program: str) -> None:
    path = script(tmp_path, "zsh", program)
    words = [shell("zsh"), "-f", "-c", ZSH, "zsh", str(path), f"{program} pull --ver", "--verify-key"]
    assert "--verify-identity" in process.run(words, env={"HOME": str(tmp_path), "TERM": "xterm"}, timeout=60).out


@pytest.mark.parametrize("kind", SHELLS)
def test_every_flag_is_in_every_script(kind: str) -> None:
    text = completion_script(kind, "cardstock", COMMANDS)
    mark = "--long-option {} " if kind == "fish" else "--{}"
    flags = [flag.name for task in nonempty(COMMANDS) for flag in task.flags]
    assert [name for name in nonempty(flags) if mark.format(name) not in text] == []


def test_another_shell_is_told() -> None:
    with pytest.raises(UsageError, match="no completion for 'tcsh'") as caught:
        completion_script("tcsh", "cardstock", COMMANDS)
    assert "bash, zsh, fish" in caught.value.do


@pytest.mark.parametrize(
    ("words", "left", "asked"),
    [
        (["inv", "--print-completion-script", "zsh"], ["inv"], "zsh"),
        (["inv", "--print-completion-script=fish"], ["inv"], "fish"),
        (["inv", "--print-completion-script"], ["inv"], "?"),
        (["inv", "pull", "--save", "x"], ["inv", "pull", "--save", "x"], ""),
    ],
)
def test_the_flag_is_taken_from_the_words(words: list[str], left: list[str], asked: str) -> None:
    assert without_completion(words) == (left, asked)


def test_every_short_flag_is_a_letter() -> None:
    """invoke would take the dash of a long name for one where no letter is left."""
    short = {(task.name, name) for task in nonempty(COMMANDS) for one in task.get_arguments() for name in one.names[1:]}
    assert [pair for pair in nonempty(short) if not pair[1].isalpha()] == []
