"""docs/commands.md has every command that invoke finds, with every flag that `--help` shows."""

from __future__ import annotations

from dataclasses import dataclass

from invoke.collection import Collection

import tasks
from images.commands.commands_page import MORE, grouped_commands, section, with_commands_help
from images.commands.options import NoOptions, command
from images.context import Context
from images.core.options import option
from images.render.document import COMMANDS
from tests.helpers.matrices import ROOT

COMMITTED = (ROOT / COMMANDS.page).read_text(encoding="utf-8")


@dataclass(frozen=True)
class ShakeOptions:
    target: str = option("what to shake", "", positional=True)
    hard: bool = option("harder", False)
    times: int = option("how often", 3)
    tool: str = option("with a|b", "hand")
    also: tuple[str, ...] = option("this too; repeat", ())


@command("shake tree")
def shake(context: Context, options: ShakeOptions) -> None:
    """Shake it."""


@dataclass(frozen=True)
class MendOptions:
    all: bool = option("every one", False)


@command("mend")
def mend(context: Context, options: MendOptions) -> None:
    """Mend it."""


@command("rest")
def rest(context: Context, options: NoOptions) -> None:
    """Do nothing."""


def test_a_section_has_the_sentence_the_line_and_the_flags() -> None:
    assert section(shake).splitlines() == [
        *("### shake", "", "Shake it.", "", "```sh", "./inv shake tree", "./inv shake TARGET [flags]", "```", ""),
        "| flag | what it does | default |",
        "| --- | --- | --- |",
        "| `TARGET` | what to shake |  |",
        "| `--hard` | harder |  |",
        "| `--times NUMBER` | how often | `3` |",
        "| `--tool VALUE` | with a\\|b | `hand` |",
        "| `--also VALUE` | this too; repeat |  |",
    ]
    assert "default" not in section(mend)
    assert "| `--all` | every one |" in section(mend)
    assert section(rest).splitlines()[-2:] == ["./inv rest", "```"]


def test_commands_stand_in_their_groups() -> None:
    text = with_commands_help({"Do": (shake,), "Do not": (rest,)}, {COMMANDS.page: "\n".join(COMMANDS.marks)})[
        COMMANDS.page
    ]
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == ["## Do", "### shake", "## Do not", "### rest"]


def test_every_command_is_in_one_group() -> None:
    grouped = [command.name for commands in grouped_commands().values() for command in commands]
    assert sorted(grouped) == sorted(Collection.from_module(tasks).task_names)
    assert set(grouped) >= MORE.keys()


def test_the_page_has_every_flag_that_invoke_takes() -> None:
    sections = {text.partition("\n")[0]: text for text in COMMITTED.split("\n### ")[1:]}
    contexts = Collection.from_module(tasks).to_contexts()
    assert len(contexts) > 20
    lacking = [
        f"{context.name} --{name}"
        for context in contexts
        for name, argument in context.args.items()
        if name != "debug" and not argument.positional and f"| `--{name}" not in sections[context.name or ""]
    ]
    assert lacking == []


def test_the_committed_page_is_what_the_commands_say() -> None:
    assert with_commands_help(grouped_commands(), {COMMANDS.page: COMMITTED})[COMMANDS.page] == COMMITTED, (
        "./inv render"
    )
