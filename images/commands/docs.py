"""`invoke docs`: the site of docs/, built with its links checked."""

from __future__ import annotations

from pathlib import Path

from images.commands.options import NoOptions, command
from images.context import Context
from images.core import CheckFailed, Report, default_layout, process, provide_environment

LOCK = Path("dev/docs.lock")
# Where mkdocs.yml has it.
SITE = Path("build/site")
_SECONDS = 600.0
# The theme advertises its makers' next program in every run.
_QUIET = {"NO_MKDOCS_2_WARNING": "1"}


@command("docs")
def docs(context: Context, options: NoOptions) -> None:
    """Build the site of docs/ into build/site; a broken link is an error."""
    python = provide_environment(context.checkout.root / LOCK, default_layout().home, context.report.line)
    build_site(context.checkout.root, python, context.report)


def build_site(root: Path, python: Path, report: Report) -> None:
    """`mkdocs build --strict` in the checkout at ``root``, by the environment that ``python`` is of.

    Raises CheckFailed with mkdocs' words where a page, a link or an anchor is wrong.
    """
    with report.step("mkdocs build --strict") as step:
        # Not --quiet: it hides the warnings, and --strict fails on those that are shown.
        argv = [str(python), "-m", "mkdocs", "build", "--strict"]
        try:
            process.run(argv, cwd=root, env=_QUIET, timeout=_SECONDS)
        except process.ProcessFailed as error:
            raise CheckFailed(
                "the site of docs/ cannot be built as it is",
                cause="\n".join(line for line in error.tail.splitlines() if not line.startswith("INFO")).strip(),
                do="mend the page that is named, then ./inv docs again",
                where="docs/, mkdocs.yml",
            ) from error
        step.note(f"{sum(1 for _ in (root / SITE).rglob('index.html'))} pages")
    report.line(f"look at {SITE}/index.html, or serve it: python3 -m http.server --directory {SITE} --bind 127.0.0.1")
