"""Documents with generated sections: `./inv render` writes what stands between two marks, people write the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from images.core import UsageError


@dataclass(frozen=True)
class Section:
    """A generated part of the page at ``page`` (from the root of the checkout): what stands between its two marks.

    The marks are `<!-- NAME: begin -->` and `<!-- NAME: end -->`; ``title`` says in an error what belongs there.
    """

    page: str
    name: str
    title: str

    @property
    def marks(self) -> tuple[str, str]:
        """The first and the last line of the section, which stay."""
        return f"<!-- {self.name}: begin -->", f"<!-- {self.name}: end -->"

    def fill(self, text: str, new: str) -> str:
        """``text`` with ``new`` between the marks. Raises UsageError where it does not have each once, in order."""
        first, last = self.marks
        head, begin, rest = text.partition(first)
        _, end, tail = rest.partition(last)
        if not (begin and end) or text.count(first) != 1 or text.count(last) != 1:
            raise UsageError(f"{self.page} has no place for {self.title}", do=f"put {first} and {last} into it")
        return f"{head}{first}\n{new}\n{last}{tail}"

    def fill_in(self, pages: Mapping[str, str], new: str) -> dict[str, str]:
        """``pages`` (path -> text) with this section filled in. Raises UsageError as `fill` does."""
        return {**pages, self.page: self.fill(pages.get(self.page, ""), new)}


IMAGES = Section("README.md", "images", "the table of images")
CARDS = Section("docs/compatibility.md", "cards", "the table of cards")
MEASUREMENTS = Section("docs/benchmarks.md", "bench", "the measurements")
PLOTS = Section("docs/benchmarks.md", "plots", "the plots")
COMMANDS = Section("docs/commands.md", "commands", "the help of every command")
LEFT_OUT = Section("docs/build.md", "left-out", "the tables of what images leave out")
ADVISORIES = Section("docs/security.md", "advisories", "the table of advisories")
# The pages that have them.
_SECTIONS = (IMAGES, CARDS, MEASUREMENTS, PLOTS, COMMANDS, LEFT_OUT, ADVISORIES)
DOCUMENTS = tuple(dict.fromkeys(section.page for section in _SECTIONS))
