"""A line that the product prints, read again by the product's own parser of options."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any, TypeVar

from invoke.collection import Collection
from invoke.parser import Parser
from invoke.parser.context import ParserContext

import tasks
from images.commands.options import Command

T = TypeVar("T")


@cache
def _contexts() -> list[ParserContext]:
    return list(Collection.from_module(tasks).to_contexts())


def options_of(line: str, kind: type[T]) -> T:
    """The options that "./inv COMMAND …" gives the command, whose options class is ``kind``."""
    program, *words = shlex.split(line)
    assert program == "./inv", line
    known = [one for one in _contexts() if one.name == words[0]]
    (context,) = Parser(contexts=known).parse_argv(words)
    command = getattr(tasks, context.name or "")
    assert isinstance(command, Command), line
    values: dict[str, Any] = {}
    for flag in command.flags:
        value = context.args[flag.name].value
        values[flag.field] = tuple(value) if flag.repeated else value
    return kind(**values)
