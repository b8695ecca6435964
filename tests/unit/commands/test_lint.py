"""The frame of `invoke lint`; the checks themselves run in it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from images.commands.lint import Check, checks, run_checks, shell_scripts
from images.core.errors import CheckFailed
from images.core.report import Report

ROOT = Path(__file__).parents[3]
PYTHON = Path(sys.executable).name
GOOD = Check("good", (PYTHON, "-c", "print('not shown')"))
BAD = Check("bad", (PYTHON, "-c", "print('a finding'); raise SystemExit(1)"), over=3)


@pytest.fixture
def err() -> io.StringIO:
    return io.StringIO()


def test_all_run_and_all_that_fail_are_named(err: io.StringIO, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="lint: bad, bad failed") as caught:
        run_checks(tmp_path, Report(io.StringIO(), err), [BAD, GOOD, BAD])
    assert caught.value.exit_code == 1
    assert err.getvalue().splitlines() == [
        "FAILED bad, 3 files",
        "  a finding",
        "ok     good",
        "FAILED bad, 3 files",
        "  a finding",
    ]


def test_a_clean_run_is_quiet(err: io.StringIO, tmp_path: Path) -> None:
    run_checks(tmp_path, Report(io.StringIO(), err), [GOOD])
    assert err.getvalue() == "ok     good\n"


def test_this_project_has_files_for_every_check() -> None:
    assert [check.title for check in checks(ROOT)] == [
        "ruff check",
        "ruff format",
        "mypy",
        "Python 3.10",
        "import contracts",
        "codespell",
        "shellcheck",
        "hadolint",
        "zizmor",
    ]


def test_every_rendered_dockerfile_is_given_to_hadolint(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "dockerfiles" / "rendered" / name).mkdir(parents=True)
        (tmp_path / "dockerfiles" / "rendered" / name / "Dockerfile").write_text("FROM scratch\n")
    [hadolint] = [check for check in checks(tmp_path) if check.title == "hadolint"]
    assert hadolint.argv[-2:] == ("dockerfiles/rendered/a/Dockerfile", "dockerfiles/rendered/b/Dockerfile")
    assert hadolint.over == 2


def test_shell_scripts_are_known_by_their_first_line(tmp_path: Path) -> None:
    build = tmp_path / "dockerfiles" / "build"
    build.mkdir(parents=True)
    (build / "seal").write_text("#!/bin/sh\n")
    (build / "seal.py").write_text("#!/usr/bin/env python3\n")
    (build / "blob").write_bytes(bytes(range(256)))
    assert shell_scripts(tmp_path) == ["dockerfiles/build/seal"]
    assert {"inv", ".ci/run"} <= set(shell_scripts(ROOT))
