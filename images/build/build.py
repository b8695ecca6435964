"""Building: bake, prove, label, tag. A name is given to an image only when it is whole and what was asked is proven."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from images.build.job import Job, describe, disk_needed, done_state
from images.core import (
    CardstockError,
    CheckFailed,
    EngineUnreachable,
    PrintLine,
    Report,
    SiteSettings,
    human_bytes,
    process,
    write_atomically,
)
from images.docker import LOGS, Engine, local_reference, run_bake
from images.docker import build_inputs as supplies
from images.kernels import Compiler, Stored, default_store, needs_of, provide
from images.matrix import Kernel, Matrix
from images.proof.smoke import ProofRecord, expect, prove_image
from images.registry import Repository
from images.render import (
    BAKE_FILE,
    DIRTY,
    INPUTS,
    READ_CONTENTS_SCRIPT,
    REVISION,
    VARIANT,
    Checkout,
    lock_indexes,
    lock_states,
    make_labels,
    parse_contents,
)
from images.render import bakefile as bake

RECORDS = "build/records"
PYTHON_IN_IMAGE = "/opt/venv/bin/python"


@dataclass(frozen=True)
class BuiltImage:
    """What became of a job, "up to date" or "built", and the record of its proof."""

    job: Job
    what: str
    record: ProofRecord | None


def build(
    checkout: Checkout,
    matrix: Matrix,
    jobs: Sequence[Job],
    engine: Engine,
    site: SiteSettings,
    report: Report,
    *,
    smoke: bool = True,
    gpus: str | None = None,
    model: str | None = None,
    repository: Repository | None = None,
) -> list[BuiltImage]:
    """Build what is not there, prove it, then label and tag it.

    Kernel wheels come from this machine's store, else from ``repository``, else they are compiled into the store.
    Raises CheckFailed when a build breaks or a smoke level fails (nothing is tagged then), CardstockError when the
    disk or the memory is too small, RegistryFailure and Unsafe for a repository that cannot be used.
    """
    to_do = []
    for job in jobs:
        state = _state(engine, job)
        if state == "proven" or (state == "unproven" and not smoke):
            report.line(f"up to date: {job.tags[0]} (input {job.input_hash[:12]}, {state})")
        else:
            to_do.append(job)
    if missing := [job for job in to_do if engine.inspect(job.staging) is None]:
        check_disk(engine, missing, report.line)
        for job in missing:
            report.line(f"to build: {describe(job)}")
        needs = needs_of(
            (k for j in missing if (k := j.variant.kernel)), checkout.locks, lock_states(matrix, checkout.locks)
        )
        compiler = Compiler(checkout, matrix, lambda: engine, site, report)
        wheels = provide(needs, default_store(), compiler, repository, report.line)
        _bake(checkout, matrix, missing, engine, site, report, wheels)
    return [
        _finish(checkout, job, engine, report, smoke=smoke, gpus=gpus, model=model)
        if job in to_do
        else BuiltImage(job, "up to date", None)
        for job in jobs
    ]


def local_base() -> str:
    """The name of the base that is bootstrapped where no registry serves it."""
    return local_reference("bookworm")


def _state(engine: Engine, job: Job) -> str:
    facts = engine.inspect(job.tags[0])
    return done_state(job, facts.labels if facts else None)


def check_disk(engine: Engine, jobs: Sequence[Job], say: PrintLine = lambda _: None) -> None:
    """Make room for these jobs on the engine's disk. Raises CardstockError when there is too little all the same."""
    need = disk_needed(jobs)
    free = engine.make_room(need, say)
    if free is not None and free < need:
        raise CardstockError(
            f"the disk is too small for this build: {human_bytes(need)} needed, {human_bytes(free)} free",
            cause=f"{len(jobs)} image(s) with their build cache",
            do="free some space (./inv engine --prune --everything drops images too), build fewer at once, "
            "or set CARDSTOCK_HOME to a larger disk",
            where=engine.endpoint,
        )


def _bake(
    checkout: Checkout,
    matrix: Matrix,
    jobs: Sequence[Job],
    engine: Engine,
    site: SiteSettings,
    report: Report,
    wheels: Mapping[Kernel, Stored],
) -> None:
    """One `docker buildx bake` for all of them: BuildKit shares and parallelises.

    Kernels come from ``wheels``; those that have none there (their stack is not locked) are compiled along.
    """
    kernels = tuple(dict.fromkeys(job.variant.kernel for job in jobs if job.variant.kernel))
    along = tuple(kernel for kernel in kernels if kernel not in wheels)
    folders = {j.variant.id: str(wheels[k].folder) for j in jobs if (k := j.variant.kernel) and k in wheels}
    contexts = supplies.named_contexts(matrix, along, engine, site, report)
    log = checkout.root / LOGS / f"{jobs[0].variant.id}.log"
    with tempfile.TemporaryDirectory(prefix="cardstock-build-") as folder:
        secrets = supplies.secrets(Path(folder), site, unlocked_indexes(matrix, jobs))
        override = Path(folder, "override.json")
        images = {job.variant.id: job.staging for job in jobs}
        text = bake.override_file(images, bake.MachineInputs(contexts, secrets), wheels=folders, kernels=along)
        override.write_text(text, encoding="utf-8")
        targets = [bake.target_name(job.variant.id) for job in jobs]
        with report.step(f"build {len(jobs)} image(s)"):
            run_bake(checkout.root, [BAKE_FILE, override], targets, engine.cli_env(), log, report)
    for job in jobs:
        facts = engine.inspect(job.staging)
        if facts is None:
            raise CheckFailed(f"the build of {job.variant.id} ended well but left no image", where=str(log))
        report.line(f"built {job.variant.id}: {human_bytes(facts.size)} unpacked")


def _finish(
    checkout: Checkout, job: Job, engine: Engine, report: Report, *, smoke: bool, gpus: str | None, model: str | None
) -> BuiltImage:
    """Prove the built image, then give it labels and names, then drop its working name."""
    record = None
    if smoke:
        with report.step(f"smoke {job.variant.id}") as step:
            record = prove_image(
                job.staging,
                expect(job.variant),
                engine_env=engine.cli_env(),
                gpus=gpus,
                model=model,
                report=report,
            )
            step.note(record.evidence())
        write_atomically(checkout.root / RECORDS / f"{job.variant.id}.json", record.to_json())
        if not record.ok:
            raise CheckFailed(
                f"{job.variant.id} is built but not proven: {record.evidence()}",
                cause="; ".join(f"{level.name}: {level.reason}" for level in record.levels if level.status == "failed"),
                do=f"look into it: docker run --rm -it --entrypoint sh {job.staging}; it has no other name",
                where=f"{RECORDS}/{job.variant.id}.json",
            )
    _give_labels(checkout, job, engine, job.staging, _labels(checkout, job, engine, record))
    engine.untag(job.staging)
    if engine.embedded:
        drop_replaced(job, engine, report)
    return BuiltImage(job, "built", record)


def drop_replaced(job: Job, engine: Engine, report: Report) -> None:
    """On the embedded engine, which has a limit: names of this variant that stand for other inputs, unless in use."""
    prefix = f"{job.tags[0]}-"
    for facts in engine.images(f"{VARIANT}={job.variant.id}"):
        for tag in facts.tags:
            if tag.startswith(prefix) and tag not in job.tags:
                try:
                    engine.untag(tag)
                except EngineUnreachable:
                    raise
                except CardstockError as error:
                    # A container runs it. The new image is proven and has its names: nothing has failed.
                    report.line(f"left as it is: {tag}: {error.cause}")
                else:
                    report.line(f"replaced: {tag}")


def _labels(checkout: Checkout, job: Job, engine: Engine, record: ProofRecord | None) -> dict[str, str]:
    ran = engine.run(job.staging, ["-c", READ_CONTENTS_SCRIPT], entrypoint=[PYTHON_IN_IMAGE])
    return make_labels(
        job.variant,
        parse_contents(ran.out),
        job.input_hash,
        evidence=record.evidence() if record else "not proven: built with --no-smoke",
        proven=record is not None,
        audited=record.audited if record else (),
        locked=job.state == "locked",
        revision=revision(checkout.root),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def revision(root: Path) -> str:
    """The git commit of the checkout, with "-dirty" if inputs of images are not as it has them; "unknown" outside git.

    The rest of the checkout, its documents and tests, is in no image and says nothing about one.
    """
    try:
        commit = process.run(["git", "rev-parse", "HEAD"], cwd=root).out.strip()
        dirty = process.run(["git", "status", "--porcelain", "--", *INPUTS], cwd=root).out.strip()
    except CardstockError:
        return "unknown"
    return f"{commit}{DIRTY}" if dirty else commit


def _give_labels(checkout: Checkout, job: Job, engine: Engine, reference: str, told: Mapping[str, str]) -> None:
    """Label an image and give it its job's names; its layers stay as they are."""
    with tempfile.TemporaryDirectory(prefix="cardstock-finish-") as folder:
        file = Path(folder, "finish.json")
        file.write_text(bake.finish_file(reference, job.tags, told), encoding="utf-8")
        process.run(
            ["docker", "buildx", "bake", "--progress=plain", "-f", str(file), "finish"],
            cwd=checkout.root,
            env=engine.cli_env(),
        )


def say_commit(checkout: Checkout, job: Job, engine: Engine, commit: str) -> bool:
    """Let an image that was built before its inputs were committed name the commit that has them now.

    Whether it had to be done; the caller knows that this commit has the inputs of the job.
    """
    facts = engine.inspect(job.tags[0])
    if facts is None or not facts.labels.get(REVISION, "").endswith(DIRTY):
        return False
    _give_labels(checkout, job, engine, job.tags[0], {**facts.labels, REVISION: commit})
    return True


def unlocked_indexes(matrix: Matrix, jobs: Sequence[Job]) -> tuple[str, ...]:
    """Package indexes that jobs without a lock need beside the default one."""
    keys = [(job.variant.stack, job.variant.backend) for job in jobs if job.state != "locked"]
    return tuple(dict.fromkeys(index for key in keys for index in lock_indexes(matrix, *key)))
