"""docs/commands.md: the help of every command, made of its options class as `./inv --help COMMAND` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

from images.commands.options import Command
from images.core import IN_CHECKOUT
from images.core.options import Flag
from images.render import document

# The commands by what one wants, in the page's order.
GROUPS = {
    "Which image, and why": ("doctor", "cards", "catalogue", "plan", "explain", "advisories"),
    "Make it": ("build", "kernels", "slim", "engine"),
    "Prove it, look into it": ("smoke", "records", "audit", "served", "weigh", "bench"),
    "Hand it out, fetch it": ("publish", "pull", "which", "save", "load"),
    "Run it": ("fit", "serve", "warm", "demo", "cluster"),
    "Keep the project in order": ("lock", "render", "lint", "docs", "test"),
}
# The page that says more about a command.
MORE = {
    "advisories": "[Known holes](security.md)",
    "audit": "[Audit and slim](audit-and-slim.md)",
    "bench": "[Benchmarks](benchmarks.md)",
    "build": "[Build](build.md)",
    "cards": "[Which image for my card](which-image.md)",
    "catalogue": "[Which image for my card](which-image.md#as-a-page)",
    "cluster": "[Several machines](cluster.md)",
    "demo": "[Demo page](demo.md)",
    "doctor": "[Getting started](getting-started.md)",
    "engine": "[Build](build.md)",
    "explain": "[Which image for my card](which-image.md)",
    "fit": "[Fit](fit.md)",
    "kernels": "[Attention kernels](kernels.md)",
    "load": "[Proxies, mirrors, no registry](sites.md#no-network-at-all)",
    "lock": "[Build](build.md)",
    "plan": "[Which image for my card](which-image.md)",
    "publish": "[Publish and pull](publish-and-pull.md)",
    "pull": "[Publish and pull](publish-and-pull.md)",
    "records": '[What "proven" means](proven.md#send-a-record-in)',
    "save": "[Proxies, mirrors, no registry](sites.md#no-network-at-all)",
    "serve": "[Serve](serve.md)",
    "served": "[Audit and slim](audit-and-slim.md)",
    "slim": "[Audit and slim](audit-and-slim.md)",
    "smoke": '[What "proven" means](proven.md)',
    "warm": "[Serve](serve.md#compiled-code-that-travels)",
    "weigh": "[Benchmarks](benchmarks.md#budgets)",
    "which": "[A small program that says which image](which.md)",
    "test": '[What "proven" means](proven.md)',
}
_HEAD = """\
Every command also takes `--help`, and `--debug`, which shows the traceback of an error. A value follows its flag, as in
`--arch 7.5` or `--arch=7.5`. [Exit codes](errors.md#exit-codes) says what a command ends with."""


def grouped_commands() -> dict[str, list[Command]]:
    """The commands of each group. A command is in the file of its name in this room."""
    return {title: [_command(name) for name in names] for title, names in GROUPS.items()}


def _command(name: str) -> Command:
    found: Command = getattr(import_module(f"images.commands.{name}"), name)
    return found


def with_commands_help(groups: Mapping[str, Sequence[Command]], before: Mapping[str, str]) -> dict[str, str]:
    """``before`` (pages by path from the root) with the help of the commands, by group."""
    parts_of_page = [_HEAD]
    for title, commands in groups.items():
        parts_of_page += [f"## {title}", *map(section, commands)]
    return document.COMMANDS.fill_in(before, "\n\n".join(parts_of_page))


def section(command: Command) -> str:
    """A command's sentence, how it is typed, and a table of its flags."""
    positional = [flag.name.upper() for flag in command.flags if flag.positional]
    flags = ["[flags]"] if len(command.flags) > len(positional) else []
    usage = " ".join([IN_CHECKOUT, command.name, *positional, *flags])
    more = f" See also {MORE[command.name]}." if command.name in MORE else ""
    parts = [
        f"### {command.name}",
        f"{(command.__doc__ or '').strip()}{more}",
        f"```sh\n{IN_CHECKOUT} {command.example}\n{usage}\n```",
    ]
    if command.flags:
        rows = _without_empty([["flag", "what it does", "default"], *map(_row, command.flags)])
        rows.insert(1, ["---"] * len(rows[0]))
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts)


def _row(flag: Flag) -> list[str]:
    shown = flag.name.upper() if flag.positional else f"--{flag.name}{_value(flag.default)}"
    default = "" if flag.default in ("", ()) or isinstance(flag.default, bool) else f"`{flag.default}`"
    return [f"`{shown}`", flag.help.replace("|", "\\|"), default]


def _without_empty(rows: list[list[str]]) -> list[list[str]]:
    """A table without its last column where only the title would stand in it."""
    return rows if any(row[-1] for row in rows[1:]) else [row[:-1] for row in rows]


def _value(default: object) -> str:
    """What stands behind a flag of this default: nothing for one that is on or off."""
    if isinstance(default, bool):
        return ""
    return " NUMBER" if isinstance(default, int | float) else " VALUE"
