"""The words behind `./inv`, checked before invoke's parser, which takes a misspelt flag for a word in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from images.core import UsageError, closest

MOST_NUMBER = 1_000_000  # no flag takes a larger one: cards, ports, seconds, lines


def check_words(words: Sequence[str], tasks: Mapping[str, ParserContext], program: ParserContext) -> str:
    """The task whose help is asked for, as in `TASK --help`; else "". ``words`` begin at the first task.

    Raises UsageError for a flag that the task does not have, one without its value, and a
    number that is none.
    """
    task: ParserContext | None = None
    free = 0  # positional words that the task still takes
    left = iter(words)
    for word in left:
        if not word.startswith("-") or word == "-":
            if task is None or free == 0:
                task = tasks.get(word)
                free = len(task.positional_args) if task else 0
            else:
                free -= 1
            continue
        if task is None or task.name is None:
            continue
        if word in ("--help", "-h"):
            return task.name
        name, given, value = word.partition("=")
        flag = _flag(name, task) or _flag(name, program)
        if flag is None:
            raise unknown_flag(word, task)
        if flag.takes_value and not given and word in task.flags:
            value = next(left, "--help")
            if value in task.flags or value in program.flags:
                raise UsageError(f"{task.name} {word} takes a value", do=f"./inv --help {task.name}")
        if flag.kind is int and (given or word in task.flags):
            _check_number(task.name, name, value)
        if flag.positional:
            free -= 1
    return ""


def _flag(name: str, context: ParserContext) -> Argument | None:
    """The flag of "--count", "-n", "-n3", or of the first letter in "-ab"."""
    for known in (name, "" if name.startswith("--") else name[:2]):
        if known in context.flags:
            flag: Argument = context.flags[known]  # not get: it does not know the short names
            return flag
    return None


def unknown_flag(word: str, task: ParserContext) -> UsageError:
    """The error for a flag that a task does not have, with the nearest that it has."""
    flags = [flag for flag in task.flag_names() if len(flag) > 2]
    do = f"nearest: {closest(word.partition('=')[0], flags)}. All of them: ./inv --help {task.name}"
    return UsageError(f"{task.name} has no flag {word}", do=do)


def _check_number(task: str, flag: str, value: str) -> None:
    try:
        fits = abs(int(value)) <= MOST_NUMBER
    except ValueError:
        raise UsageError(f"{task} {flag} takes a number, not {value!r}", do=f"./inv --help {task}") from None
    if not fits:
        raise UsageError(f"{task} {flag}: {value[:40]} is too large", cause=f"numbers go up to {MOST_NUMBER}")
