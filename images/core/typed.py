"""This program's name as it was typed, put into the commands that are printed.

Texts name commands as a checkout has them, `./inv pull`. Where the program is the installed one, what people see says
`cardstock pull`; a command that only a checkout has stays as it is, and its line says where one is had. The places
that print (`Report`, `print_error`, `print_out`, the commands' help) pass their texts through `as_typed`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

IN_CHECKOUT = "./inv"
INSTALLED = "cardstock"
PAGES = "https://cardstock-images.github.io/cardstock/"
SOURCE = "https://github.com/cardstock-images/cardstock"
_WHERE = f" (./inv: in a checkout, git clone {SOURCE})"
# Of commands that both have, what writes into a checkout's files.
WRITES = ("advisories --update --write", "advisories --record-debian", "audit --record")
_PAGE = re.compile(r"(?<![\w/])docs/([\w-]+)\.md")
# The name alone, or with the command behind it; not a path such as /srv/inv, nor the file of ../inv.
_NAMED = re.compile(r"(?<![\w./])\./inv(?![\w/-])(?: (?=(?P<rest>\S[^\n]*)))?")


@dataclass(frozen=True)
class Program:
    """How the program is called, and the commands that only a checkout has; None where this is one."""

    name: str = IN_CHECKOUT
    elsewhere: frozenset[str] | None = None


_running = [Program()]


def started_as(name: str, elsewhere: Collection[str]) -> None:
    """Say once, before anything is printed, how this program is called, and which commands only a checkout has."""
    _running[0] = Program(name, frozenset(elsewhere))


def started_in_checkout() -> None:
    """The program is `./inv` again, as it is where nothing else was said."""
    _running[0] = Program()


def program_name() -> str:
    """How the program is called: "./inv" or "cardstock"."""
    return _running[0].name


def has_command(text: str) -> bool:
    """Whether this program has the command of ``text``, such as "./inv build --arch 7.5"; True where none is named."""
    return _running[0].elsewhere is None or _NAMED.search(as_typed(text, told=False)) is None


def as_typed(text: str, *, told: bool = True) -> str:
    """``text`` with its commands as this program has them, and pages of docs/ by their address where they are not here.

    With ``told``, a line that names one which only a checkout has says at its end where a checkout is had.
    """
    program = _running[0]
    if program.elsewhere is None:
        return text
    text = _PAGE.sub(rf"{PAGES}\1/", text)
    if IN_CHECKOUT not in text:
        return text
    lines = [_NAMED.sub(_renamed, line) for line in text.split("\n")]
    if told:
        lines = [f"{line}{_WHERE}" if _NAMED.search(line) and SOURCE not in line else line for line in lines]
    return "\n".join(lines)


def _renamed(found: re.Match[str]) -> str:
    program, rest = _running[0], found["rest"] or ""
    if any(rest.startswith(words) for words in WRITES):
        return found[0]
    if re.match(rf"(?:--help )?(?:{'|'.join(program.elsewhere or ['$.'])})(?![\w-])", rest):
        return found[0]
    return f"{program.name} " if found[0].endswith(" ") else program.name
