"""Options of a command: a frozen dataclass whose fields are its flags, each with its help text.

`images/commands/options.py` makes invoke's flags of such a class, and an object of it of what was typed.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar, cast

T = TypeVar("T")
HELP, FLAG, POSITIONAL = "help", "flag", "positional"


@dataclass(frozen=True)
class Flag:
    """A field as a flag: the name on the command line (with dashes), the field's, its default and its help text.

    ``default`` is a string, a number, a truth value, or an empty tuple for a flag that may be repeated. A
    ``positional`` one may also be typed without its name, and has to be there.
    """

    name: str
    field: str
    default: object
    help: str
    positional: bool = False

    @property
    def repeated(self) -> bool:
        """Whether each use adds a value."""
        return self.default == ()


def option(help: str, default: T, *, flag: str = "", positional: bool = False) -> T:
    """A field of an options class; ``flag`` where it is not called as the field is."""
    made: object = field(default=default, metadata={HELP: help, FLAG: flag, POSITIONAL: positional})
    return cast(T, made)


def flags_of(options: type[Any]) -> list[Flag]:
    """The flags of an options class, in the order of its fields."""
    return [_flag(one) for one in fields(options)]


def _flag(one: Field[Any]) -> Flag:
    name = one.metadata.get(FLAG) or one.name.strip("_").replace("_", "-")
    return Flag(name, one.name, one.default, one.metadata.get(HELP, ""), one.metadata.get(POSITIONAL, False))
