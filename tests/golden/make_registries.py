"""Writes docs/registries.md: what registries do, and what the three ways through them come to. Read the diff.

.venv/bin/python -m tests.golden.make_registries
"""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.helpers.matrices import ROOT
from tests.helpers.registry_behaviours import BEHAVIOURS
from tests.helpers.registry_behaviours.setting import Behaviour, Outcome

PATH = ROOT / "docs" / "registries.md"
GROUPS = {
    "logins": "How a login is asked for, and where docker keeps it",
    "tokens": "Token services",
    "uploads": "Writing",
    "downloads": "Reading",
    "lies": "Lies",
}
HEAD = """# Registries

What registries do, and what Cardstock makes of it. A registry on loopback behaves so, and the real `pull`, `publish`
and `kernels --wheels --push` go through it: each cell below is a test (`tests/unit/registry/test_behaviours.py`). The
names in the first column are those whose behaviour the row follows, by the source beside it; those registries
themselves were not asked. The real registry that tests use (`tests/engine/`) is Debian's `docker-registry`.

*served* means that all was read or written; a number is the [exit code](errors.md#exit-codes) of a refusal that says in
words what the registry did.

This page is made by `.venv/bin/python -m tests.golden.make_registries`.
"""


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for module, title in GROUPS.items():
        rows = [row for row in BEHAVIOURS if row.arrange.__module__.endswith(f".{module}")]
        parts.append(
            f"## {title}\n\n| registry | what it does | pull | publish | wheels |\n| --- | --- | --- | --- | --- |"
        )
        parts += [_line(row) for row in rows]
        parts.append("")
    return "\n".join(parts)


def _line(row: Behaviour) -> str:
    who = _cell(row.who)
    if row.source:
        who = f"[{who}]({row.source})"
    cells = (who, _cell(row.does), _outcome(row.pull), _outcome(row.publish), _outcome(row.wheels))
    return f"| {' | '.join(cells)} |"


def _outcome(outcome: Outcome) -> str:
    if outcome is None:
        return "served"
    words = urlsplit(outcome.words).path if "://" in outcome.words else outcome.words
    return f"{outcome.code}: *{_cell(words)}*" if words else str(outcome.code)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
