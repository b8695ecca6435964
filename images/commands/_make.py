"""Images and what goes into them: build, kernels, and the engine that builds."""

from __future__ import annotations

import os
from functools import cache, partial
from pathlib import Path
from typing import Any

from invoke.tasks import task

from images.commands import options as typed
from images.core import CheckFailed, Report, human_bytes
from images.matrix import selection as planning
from images.render import GENERATED, differences, lock_states


@task(
    iterable=typed.LISTS,
    help=typed.SELECT
    | typed.WHEELS
    | {"dry-run": "print the bake plan, touch nothing", "no-smoke": "do not prove", "gpus": "prove on cards: all"},
)
def build(
    c,
    arch,
    only,
    card,
    cuda="",
    attention="",
    all=False,
    dry_run=False,
    no_smoke=False,
    gpus="",
    wheels="",
    debug=False,
):
    """Build, prove and tag images; what is up to date is left alone."""
    words = typed.Words(arch, cuda, attention, only, all, card)
    action = partial(build_images, words, dry_run=dry_run, smoke=not no_smoke, gpus=gpus or None, wheels=wheels)
    typed.run(action, debug)


@task(
    iterable=typed.LISTS,
    help=typed.SELECT
    | typed.JSON
    | typed.WHEELS
    | {
        "list": "only say where each wheel is",
        "export": "copy the wheels to this folder, for pip",
        "push": "write them to the repository of --wheels",
        "dry-run": "say where each would come from",
    },
)
def kernels(
    c,
    arch,
    only,
    card,
    cuda="",
    attention="",
    all=False,
    list=False,
    export="",
    wheels="",
    push=False,
    dry_run=False,
    json=False,
    debug=False,
):
    """Attention wheels built from source, by key: list, make, export, push them; --only takes their ids too."""
    words = typed.Words(arch, cuda, attention, only, all, card)
    action = partial(make_kernels, words, list_only=list, export=export, wheels=wheels, push=push)
    typed.run(partial(action, dry_run=dry_run, json=json), debug)


@task(help={"start": "", "stop": "", "status": "", "prune": "down to its limit", "everything": "with --prune: all"})
def engine(c, start=False, stop=False, status=False, prune=False, everything=False, debug=False):
    """The embedded Docker engine of a machine that has none."""
    typed.run(lambda: handle_engine(start=start, stop=stop, prune=prune, everything=everything), debug)


def build_images(words: typed.Words, *, dry_run: bool, smoke: bool, gpus: str | None, wheels: str = "") -> None:
    """`invoke build`."""
    from images.build import describe
    from images.core import read_site

    matrix, variants, wanted = typed.selected(words)
    chosen = planning.select(matrix, variants, wanted)
    jobs = typed.jobs(matrix, chosen)
    report = Report()
    site = read_site(typed.CHECKOUT.root, os.environ)
    repository = _repository(wheels, site, report)
    if dry_run:
        from images.render import bake_plan

        typed.print_json(bake_plan(matrix, {job.variant: job.tags for job in jobs}))
        for job in jobs:
            report.line(f"would build {describe(job)}")
        from images.commands import _kernels as command
        from images.kernels import default_store, needs_of

        states = lock_states(matrix, typed.CHECKOUT.locks)
        needs = needs_of((v.kernel for v in chosen if v.kernel), typed.CHECKOUT.locks, states)
        command.tell(command.Shelf(default_store(), repository, report), needs)
        return
    stale = differences(
        {f"{GENERATED}/{j.variant.id}/Dockerfile": j.dockerfile for j in jobs}, typed.CHECKOUT.generated()
    )
    if wrong := [line for line in stale if not line.startswith("left over")]:
        raise CheckFailed(
            "the rendered Dockerfiles are not what matrix.yaml says", cause="; ".join(wrong), do="./inv render"
        )
    from images.build import build as building
    from images.docker import connect, docker_line
    from images.run.serve import spec_without_model

    engine = connect(say=report.line)
    built = building.build(
        typed.CHECKOUT, matrix, jobs, engine, site, report, smoke=smoke, gpus=gpus, repository=repository
    )
    if any(one.what != "up to date" for one in built):
        engine.keep_under_limit(say=report.line)
    for one in built:
        print(one.job.tags[0])
    first = built[0].job
    report.next_command(
        docker_line(spec_without_model(first.tags[0], cards=bool(first.variant.cuda)), foreground=True),
        "an OpenAI-compatible server on port 8000"
        + (f"; export DOCKER_HOST={engine.endpoint} first" if engine.embedded else ""),
    )


def make_kernels(
    words: typed.Words, *, list_only: bool, export: str, wheels: str, push: bool, dry_run: bool, json: bool
) -> None:
    """`invoke kernels`. Without selectors it lists all there are."""
    from images.commands import _kernels as command
    from images.core import read_site
    from images.kernels import choose_kernels, default_store, needs_of

    matrix, variants, wanted = typed.selected(words)
    report, site = Report(), read_site(typed.CHECKOUT.root, os.environ)
    everything = wanted == planning.Selectors() and not (export or push or dry_run)
    chosen = variants.kernels if everything else choose_kernels(matrix, variants, wanted)
    needs = needs_of(chosen, typed.CHECKOUT.locks, lock_states(matrix, typed.CHECKOUT.locks))
    shelf = command.Shelf(default_store(), _repository(wheels, site, report), report)
    if dry_run and not json:
        command.tell(shelf, needs)
        return
    if everything or list_only or dry_run:
        command.list_kernels(shelf, needs, variants, as_json=json)
        return
    from images.docker import connect
    from images.kernels import Compiler

    compiler = Compiler(typed.CHECKOUT, matrix, cache(partial(connect, say=report.line)), site, report)
    made = command.make(shelf, needs, compiler)
    if push:
        command.push(shelf, made)
    if export:
        command.export(shelf, made, Path(export))
    if json:
        typed.print_json(command.made_json(made, variants))


def handle_engine(*, start: bool, stop: bool, prune: bool, everything: bool) -> None:
    """`invoke engine`: without a flag, its status."""
    from images.docker.embedded import daemon as embedded

    report = Report()
    if start:
        report.line(f"the embedded engine answers at {embedded.start(say=report.line)}")
    if prune:
        embedded.prune(everything=everything, say=report.line)
    if stop:
        report.line("stopped" if embedded.stop(say=report.line) else "it was not running")
        return
    state = embedded.status()
    report.line(f"{'running' if state.running else 'not running'}: {state.endpoint}")
    report.line(f"data: {human_bytes(state.data_bytes)} of at most {human_bytes(state.limit_bytes)}")


def _repository(name: str, site: Any, report: Report) -> Any:
    """The repository of kernel wheels that ``--wheels`` names; None without."""
    if not name:
        return None
    from images.docker import ca_bundle
    from images.registry import Repository

    return Repository(name, ca=ca_bundle(site.ca), say=report.line)
