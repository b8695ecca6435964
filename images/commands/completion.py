"""Completion for bash, zsh and fish, of `./inv` and of `cardstock`: a script that has every command and flag in it.

invoke's own scripts start the program for each Tab (a second and more), and call `inv`, which is on nobody's PATH.
Words that are no flag are files, as everywhere in a shell.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

from images.core import UsageError

FLAG = "--print-completion-script"
SHELLS = ("bash", "zsh", "fish")
_PROGRAM = ("--help", "--list", "--version", FLAG)


def without_completion(words: Sequence[str]) -> tuple[list[str], str]:
    """The typed words without the flag that asks for a script, and the shell it names; "" where none is asked for."""
    for place, word in enumerate(words[:2]):
        name, given, shell = word.partition("=")
        if name != FLAG:
            continue
        after = words[place + 1] if len(words) > place + 1 else "?"
        return [*words[:place], *words[place + (1 if given else 2) :]], shell or after
    return list(words), ""


def completion_script(shell: str, program: str, tasks: Iterable[Any]) -> str:
    """The script for ``shell``. Raises UsageError for another one than bash, zsh and fish."""
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in makers:
        raise UsageError(f"there is no completion for {shell!r}", do=f"take one of {', '.join(SHELLS)}")
    known = {str(task.name): task for task in sorted(tasks, key=lambda task: str(task.name))}
    return makers[shell](PurePath(program).name, known)


def _words(task: Any) -> list[str]:
    """The flags of a command."""
    return [*(f"--{flag.name}" for flag in task.flags), "--debug", "--help"]


def _takes_value(task: Any) -> list[str]:
    return [f"--{flag.name}" for flag in task.flags if not isinstance(flag.default, bool)]


def _bash(name: str, tasks: dict[str, Any]) -> str:
    cases = "\n".join(
        f'        {one}) flags="{" ".join(_words(task))}"; valued="{" ".join(_takes_value(task))}" ;;'
        for one, task in tasks.items()
    )
    return f"""\
# Completion of {name} for bash. Once: this script into ~/.local/share/bash-completion/completions/{name}
# or, without the package bash-completion, into ~/.bashrc.
_{name}_words() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" task="" flags="" valued="" one
    for one in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$one" in -*) ;; *) task="$one"; break ;; esac
    done
    case "$task" in
        "") flags="{" ".join([*tasks, *_PROGRAM])}" ;;
{cases}
    esac
    COMPREPLY=()
    case " $valued " in *" $before "*) return ;; esac
    if [ -z "$task" ] || [ "${{word#-}}" != "$word" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")
    fi
}}
complete -o default -F _{name}_words {name}
"""


def _zsh(name: str, tasks: dict[str, Any]) -> str:
    commands = "\n".join(f"        {shlex.quote(one + ':' + _text(task))}" for one, task in tasks.items())
    cases = "\n".join(f"            {one}) _arguments -s {_specs(task)} ;;" for one, task in tasks.items())
    return f"""\
#compdef {name}
# Completion of {name} for zsh. Once: this script as _{name} into a folder of $fpath.
_{name}() {{
    local -a commands
    commands=(
{commands}
    )
    local context state line
    _arguments -C '1: :->command' '*:: :->rest'
    case $state in
        command) _describe command commands ;;
        rest) case $words[1] in
{cases}
        esac ;;
    esac
}}
if [ "$funcstack[1]" = "_{name}" ]; then _{name} "$@"; else compdef _{name} {name}; fi
"""


def _specs(task: Any) -> str:
    specs = []
    for flag in task.flags:
        text = flag.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
        value = "" if isinstance(flag.default, bool) else ":value:_files"
        many = "*" if flag.repeated else ""
        specs.append(shlex.quote(f"{many}--{flag.name}[{text}]{value}"))
    return " ".join(
        [*specs, "'--debug[the traceback of an error]'", "'--help[an example, and the flags]'", "'*:file:_files'"]
    )


def _fish(name: str, tasks: dict[str, Any]) -> str:
    lines = [
        f"# Completion of {name} for fish. Once: this script into ~/.config/fish/completions/{name}.fish",
        f"complete --command {name} --condition __fish_use_subcommand --no-files",
    ]
    for one, task in tasks.items():
        start = f"complete --command {name}"
        lines.append(
            f"{start} --condition __fish_use_subcommand --arguments {one} --description {_fish_word(_text(task))}"
        )
        within = f"{start} --condition '__fish_seen_subcommand_from {one}'"
        for flag in task.flags:
            value = "" if isinstance(flag.default, bool) else " --require-parameter"
            lines.append(f"{within} --long-option {flag.name}{value} --description {_fish_word(flag.help)}")
        lines += [f"{within} --long-option {word}" for word in ("debug", "help")]
    return "\n".join(lines) + "\n"


def _text(task: Any) -> str:
    """The first part of what a command does."""
    return str(task.__doc__ or "").strip().split("\n")[0].split(";")[0].split(":")[0].rstrip(".")


def _fish_word(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
