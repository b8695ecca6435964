"""`./inv docs`: what mkdocs says of a wrong page is told, and nothing of it is hidden. mkdocs is a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.commands.docs import SITE, build_site
from images.core.errors import CheckFailed
from tests.helpers.contexts import silent

MKDOCS = """#!/bin/sh
case "$*" in "-m mkdocs build --strict") ;; *) exit 9 ;; esac
test "$NO_MKDOCS_2_WARNING" = 1 || exit 8
{does}
"""


def python(folder: Path, does: str) -> Path:
    program = folder / "python"
    program.write_text(MKDOCS.format(does=does))
    program.chmod(0o755)
    return program


def test_the_pages_are_counted_and_their_place_is_told(tmp_path: Path) -> None:
    report, err = silent()
    does = f"mkdir -p {SITE}/serve && touch {SITE}/index.html {SITE}/serve/index.html"
    build_site(tmp_path, python(tmp_path, does), report)
    assert "2 pages" in err.getvalue()
    assert f"look at {SITE}/index.html" in err.getvalue()


def test_a_warning_of_mkdocs_is_the_cause(tmp_path: Path) -> None:
    does = "echo 'INFO - Building' >&2; echo 'WARNING - serve.md contains a link nowhere.md' >&2; exit 1"
    with pytest.raises(CheckFailed, match="cannot be built") as caught:
        build_site(tmp_path, python(tmp_path, does), silent()[0])
    assert caught.value.cause == "WARNING - serve.md contains a link nowhere.md"
    assert "./inv docs" in caught.value.do
