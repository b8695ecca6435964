"""Proof and measurement: smoke, audit, slim, served, test, bench."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from invoke.tasks import task

from images.commands import options as typed
from images.core import CheckFailed, NothingSelected, Report, UsageError, process, write_atomically
from images.matrix import selection as planning

# `invoke test` runs so many tests at once, where there are processors for them: more would wait for the engine.
TEST_PROCESSES = 4


@task(
    iterable=typed.LISTS,
    help=typed.SELECT
    | typed.JSON
    | {"image": "this image instead of the selected ones", "model": "also ask a real checkpoint", "gpus": "all"},
)
def smoke(c, arch, only, card, cuda="", attention="", all=False, image="", model="", gpus="", json=False, debug=False):
    """Prove images: stack, canary, server."""
    words = typed.Words(arch, cuda, attention, only, all, card)
    typed.run(lambda: prove_images(words, image or None, model or None, gpus or None, json), debug)


@task(
    positional=["target"],
    iterable=["arch"],
    help=typed.JSON
    | {"arch": "a card that all of it must run on; repeat", "record": "keep a wheel's audit for the README"},
)
def audit(c, target, arch, json=False, record=False, debug=False):
    """Which cards an image, container, wheel, folder or library really runs on; nothing of it is run."""
    typed.run(lambda: audit_device_code(target, arch, json, record), debug)


@task(
    positional=["folder"],
    iterable=["arch"],
    help=typed.JSON
    | {"arch": "a card whose code stays; repeat", "nvidia-libraries": "also NVIDIA's: for your machine only"},
)
def slim(c, folder, arch, json=False, nvidia_libraries=False, debug=False):
    """Leave in a folder's libraries only the device code that the named cards run."""
    typed.run(lambda: slim_folder(folder, arch, json, nvidia_libraries), debug)


@task(iterable=typed.LISTS, help=typed.SELECT)
def served(c, arch, only, card, cuda="", attention="", all=False, debug=False):
    """Record which libraries the server of built images loads; the audit's gate asks these lists."""
    typed.run(lambda: record_served(typed.Words(arch, cuda, attention, only, all, card)), debug)


@task(
    iterable=["only"],
    help={
        "engine": "only the tests that need a Docker engine",
        "unit": "only those that need nothing",
        "gpu": "the proof on this machine's card, in the image for it",
        "only": "with --gpu: globs on the names of steps",
    },
)
def test(c, only, engine=False, unit=False, gpu=False, debug=False):
    """The tests: all that this machine can run without a card, or one kind."""
    action = partial(prove_on_card, only) if gpu else partial(run_tests, engine=engine, unit=unit)
    typed.run(action, debug)


@task(
    help={
        "name": "one measurement; without it those that take seconds",
        "all": "also those that take minutes, compilers or built images",
        "record": "keep the run in records/bench, which BENCH.md is written from",
    }
)
def bench(c, name="", all=False, record=False, debug=False):
    """The measurements, as one table with what was kept of those that did not run now."""
    typed.run(lambda: measure([name] if name else [], record, all), debug)


def prove_images(words: typed.Words, image: str | None, model: str | None, gpus: str | None, json: bool) -> None:
    """`invoke smoke`."""
    from images.docker import connect
    from images.proof.smoke import expect, prove_image
    from images.render import VARIANT

    matrix, variants, wanted = typed.selected(words)
    report = Report()
    engine = connect(say=report.line)
    if image:
        facts = engine.inspect(image)
        if facts is None:
            raise NothingSelected(f"the engine has no image {image}", do="docker pull it, or ./inv build it")
        variant = variants.valid.get(facts.labels.get(VARIANT, ""))
        if variant is None:
            raise UsageError(f"{image} carries no label {VARIANT} of this matrix", do="select a variant instead")
        targets = [(image, variant)]
    else:
        targets = [(f"{matrix.image}:{v.id}", v) for v in planning.select(matrix, variants, wanted)]
        for reference, variant in targets:
            if engine.inspect(reference) is None:
                raise NothingSelected(f"{reference} is not built", do=f"./inv build --only '{variant.id}'")
    records = []
    for reference, variant in targets:
        with report.step(f"smoke {variant.id}") as step:
            record = prove_image(
                reference, expect(variant), engine_env=engine.cli_env(), model=model, gpus=gpus, report=report
            )
            step.note(record.evidence())
        write_atomically(typed.CHECKOUT.root / "build" / "records" / f"{variant.id}.json", record.to_json())
        records.append(record)
    if json:
        typed.print_json([json_module.loads(record.to_json()) for record in records])
    if bad := [record.variant_id for record in records if not record.ok]:
        raise CheckFailed(f"smoke failed: {', '.join(bad)}", where="build/records")


def audit_device_code(target: str, archs: Sequence[str], json: bool, record: bool = False) -> None:
    """`invoke audit`."""
    from images.proof.audit import audit_command
    from images.proof.audit import record as record_wheel

    if record:
        report = Report()
        report.line(f"recorded: {record_wheel(typed.CHECKOUT.root, Path(target).expanduser()).path}")
        report.next_command("./inv render", "the README's table follows the records")
        return
    audit_command(target, archs, json)


def slim_folder(folder: str, archs: Sequence[str], json: bool, nvidia_libraries: bool) -> None:
    """`invoke slim`."""
    from images.device_code.slim import slim_command

    try:
        refused = slim_command(folder, archs, as_json=json, nvidia_libraries=nvidia_libraries)
    except ValueError as error:
        raise UsageError(str(error), do="./inv slim FOLDER --arch 7.5") from error
    if refused:
        raise CheckFailed("some libraries were refused and left as they were", cause="their layout is not known")


def record_served(words: typed.Words) -> None:
    """`invoke served`."""
    from images.build import PYTHON_IN_IMAGE
    from images.docker import connect
    from images.proof.audit import loaded_libraries as recording

    matrix, variants, wanted = typed.selected(words)
    report = Report()
    docker = connect(say=report.line)
    for variant in planning.select(matrix, variants, wanted):
        image = f"{matrix.image}:{variant.id}"
        if docker.inspect(image) is None:
            raise NothingSelected(f"{image} is not built", do=f"./inv build --only '{variant.id}'")
        with report.step(f"libraries that {variant.served} loads") as step:
            libraries = recording.record(docker, image, PYTHON_IN_IMAGE, variant.modules)
            path = typed.CHECKOUT.root / recording.FOLDER / f"{variant.served}.txt"
            write_atomically(path, recording.render(libraries, variant.id))
            step.note(f"{len(libraries)} libraries")
    report.next_command("git diff images/proof/audit/loaded", "commit what changed")


def run_tests(*, engine: bool, unit: bool) -> None:
    """`invoke test`: pytest over what this machine can run; its closing line is the last thing printed."""
    folders = ["tests/engine"] if engine else ["tests/unit"] if unit else ["tests/unit", "tests/engine"]
    argv = [sys.executable, "-m", "pytest", *folders, "--durations=10"]
    if folders == ["tests/unit"]:
        argv += ["--cov", "--cov-report="]  # what is measured, and how much it must be: pyproject.toml
    if (workers := min(os.cpu_count() or 1, TEST_PROCESSES)) > 1:
        # A file stays in one process; tests/conftest.py says which files too, and what comes first.
        argv += ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"]
    code = process.stream(argv, lambda line: print(line, flush=True), cwd=typed.CHECKOUT.root, check=False)
    if code:
        raise CheckFailed(f"pytest exited with {code}")


def measure(names: Sequence[str], record: bool, everything: bool) -> None:
    """`invoke bench`."""
    from bench import bench as run_bench

    run_bench(typed.CHECKOUT, names, record=record, everything=everything)


def prove_on_card(only: Sequence[str]) -> None:
    """`invoke test --gpu`: the image for this machine's card proves itself on it, and leaves a record."""
    from images.cards import read_machine
    from images.docker import connect
    from images.proof.on_card import proof as gpu_proof

    card = gpu_proof.card_of(read_machine())
    matrix, variants, wanted = typed.selected(typed.Words(cards=[card]))
    variant = planning.select(matrix, variants, wanted)[0]
    report, reference = Report(), f"{matrix.image}:{variant.id}"
    engine = connect(say=report.line)
    facts = engine.inspect(reference)
    if facts is None:
        raise NothingSelected(f"{reference} is not built", do=f"./inv build --only '{variant.id}'")
    folder = typed.CHECKOUT.root / "build" / "records"
    kept, record = gpu_proof.prove(
        reference, facts.labels, typed.CHECKOUT.root, folder, engine.cli_env(), report.line, only
    )
    report.line(record.evidence())
    report.line(
        f"to publish it as evidence, commit {kept.relative_to(typed.CHECKOUT.root)} as records/cards/{kept.name}"
    )
