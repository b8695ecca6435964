"""Building: a list of steps, in `build_images`. An image gets its name when it is whole and proven, and not before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from images.build import at_builder
from images.build.at_builder import AtBuilder
from images.build.job import Job, describe, disk_needed
from images.build.plan import Plan
from images.context import Context
from images.core import (
    UTC,
    CardstockError,
    CheckFailed,
    EngineUnreachable,
    PrintLine,
    Report,
    hold_all,
    human_bytes,
    process,
    work_folder,
    write_atomically,
)
from images.docker import (
    LOGS,
    Engine,
    build_inputs,
    carried,
    explained,
    local_reference,
    pushed_digests,
    run_bake,
)
from images.kernels import Compiler, Stored, default_store, provide
from images.matrix import Kernel, Matrix
from images.proof.smoke import ProofRecord, expect, prove_image
from images.registry import RemoteImage, Repository
from images.render import (
    BAKE_FILE,
    DIRTY,
    INPUTS,
    READ_CONTENTS_SCRIPT,
    REVISION,
    VARIANT,
    Checkout,
    bakefile,
    lock_indexes,
    make_labels,
    parse_contents,
)

RECORDS = "build/records"
PYTHON_IN_IMAGE = "/opt/venv/bin/python"


@dataclass(frozen=True)
class BuildSettings:
    """How to build: with or without the proof, on which cards, with which real model, and whose wheels to take.

    ``at`` is a builder of its own that builds instead of the engine.
    """

    smoke: bool = True
    gpus: str | None = None
    model: str | None = None
    wheels: Repository | None = None
    at: AtBuilder | None = None


@dataclass(frozen=True)
class BuiltImage:
    """What became of a job, the record of its proof, and what is in the registry where a builder pushed it."""

    job: Job
    outcome: Literal["up to date", "built"]
    record: ProofRecord | None
    pushed: RemoteImage | None = None


def build_images(context: Context, plan: Plan, how: BuildSettings) -> list[BuiltImage]:
    """Build what is not there, prove it, then label and name it.

    Raises CheckFailed when a build breaks or a smoke level fails (nothing is named then), CardstockError when the disk
    or the memory is too small, RegistryFailure and Unsafe for a repository of wheels that cannot be used.
    """
    records: dict[Job, ProofRecord | None] = {}
    pushed: dict[Job, RemoteImage] = {}
    wanted = [(job.staging, f"the build of {job.variant.id}") for job in plan.to_do(proof=how.smoke)]
    with hold_all("build", wanted, context.report.line) as waited:
        plan = plan.on(context.engine) if waited else plan  # who held them may have built them
        to_do = plan.to_do(proof=how.smoke)
        report_up_to_date(context, plan, to_do)
        if to_do:
            context.engine.cleanup()
        if missing := plan.to_build(to_do):
            check_disk(context.engine, missing, context.report.line)
            wheels = provide_wheels(context, plan.only({job.variant.id for job in missing}), how)
            pushed = bake_images(context, missing, wheels, how.at)
        for job in to_do:
            records[job] = prove_job(context, job, how) if how.smoke else None
            if how.at and job in pushed:
                pushed[job] = label_where_pushed(context, job, records[job], how.at, pushed[job])
            else:
                label_and_name(context, job, records[job])
    return [
        BuiltImage(job, "built" if job in records else "up to date", records.get(job), pushed.get(job))
        for job in plan.jobs
    ]


def report_up_to_date(context: Context, plan: Plan, to_do: Sequence[Job]) -> None:
    """Say which images stay as they are, and which will be built."""
    for job in plan.jobs:
        if job not in to_do:
            state = plan.state(job.variant)
            context.report.line(f"up to date: {job.tags[0]} (input {job.input_hash[:12]}, {state})")
    for job in plan.to_build(to_do):
        context.report.line(f"to build: {describe(job)}")


def local_base() -> str:
    """The name of the base that is bootstrapped where no registry serves it."""
    return local_reference("bookworm")


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


def provide_wheels(context: Context, plan: Plan, how: BuildSettings) -> dict[Kernel, Stored]:
    """The kernel wheels of the plan: from this machine's store, else from a repository, else compiled."""
    compiler = Compiler(
        context.checkout,
        context.matrix,
        lambda: context.engine,
        context.site,
        context.report,
        builder=how.at.builder if how.at else None,
        pushing=how.at.pushing if how.at else None,
    )
    return provide(plan.needs, default_store(), compiler, how.wheels, context.report.line)


def bake_images(
    context: Context, jobs: Sequence[Job], wheels: Mapping[Kernel, Stored], at: AtBuilder | None = None
) -> dict[Job, RemoteImage]:
    """One `docker buildx bake` for all of them: BuildKit shares and parallelises; what a builder ``at`` has pushed.

    Kernels come from ``wheels``; those that have none there (their stack is not locked) are compiled along.
    """
    matrix, engine, site, report = context.matrix, context.engine, context.site, context.report
    kernels = tuple(dict.fromkeys(job.variant.kernel for job in jobs if job.variant.kernel))
    along = tuple(kernel for kernel in kernels if kernel not in wheels)
    folders = {j.variant.id: str(wheels[k].folder) for j in jobs if (k := j.variant.kernel) and k in wheels}
    contexts = build_inputs.named_contexts(matrix, along, engine, site, report)
    log = context.checkout.root / LOGS / f"{jobs[0].variant.id}.log"
    with work_folder("build") as folder:
        secrets = build_inputs.secrets(folder, site, unlocked_indexes(matrix, jobs))
        override = folder / "override.json"
        staged = {job.variant: job.staging for job in jobs}
        if at:
            contexts = carried(contexts, engine, folder / "contexts")
        machine = bakefile.MachineInputs(contexts, secrets)
        text = bakefile.override_file(staged, machine, wheels=folders, kernels=along, pushed=at.pushing if at else None)
        override.write_text(text, encoding="utf-8")
        targets = [bakefile.target_name(job.variant.id) for job in jobs]
        files: list[Path | str] = [BAKE_FILE, override]
        if at:
            digests = bake_at(context, at, files, targets, log, folder / "pushed.json")
        else:
            with report.step(f"build {len(jobs)} image(s)"):
                run_bake(context.checkout.root, files, targets, engine.cli_env(), log, report)
    if at:
        named = {job: digests[bakefile.target_name(job.variant.id)] for job in jobs}
        return {job: at_builder.take(engine, at, job, digest, report) for job, digest in named.items()}
    for job in jobs:
        facts = engine.inspect(job.staging)
        if facts is None:
            raise CheckFailed(f"the build of {job.variant.id} ended well but left no image", where=str(log))
        report.line(f"built {job.variant.id}: {human_bytes(facts.size)} unpacked")
    return {}


def bake_at(
    context: Context, at: AtBuilder, files: Sequence[Path | str], targets: Sequence[str], log: Path, metadata: Path
) -> dict[str, str]:
    """Have a builder build and push them; the digest of each target.

    Raises CheckFailed for a build that breaks, RegistryFailure where the builder cannot push, EngineUnreachable where
    it goes away.
    """
    root, builder = context.checkout.root, at.builder
    with context.report.step(f"build {len(targets)} image(s) at {builder.name} ({builder.driver})"):
        try:
            run_bake(
                root, files, targets, builder.environment, log, context.report, builder=builder.name, metadata=metadata
            )
        except CheckFailed as error:
            raise explained(builder, error, at.repository.name, at.cache) from error
    return pushed_digests(metadata, targets)


def prove_job(context: Context, job: Job, how: BuildSettings) -> ProofRecord:
    """Prove the built image and keep the record. Raises CheckFailed for one that fails a level."""
    with context.report.step(f"smoke {job.variant.id}") as step:
        record = prove_image(
            job.staging,
            expect(job.variant),
            engine_env=context.engine.cli_env(),
            gpus=how.gpus,
            model=how.model,
            report=context.report,
        )
        step.note(record.evidence())
    write_atomically(context.checkout.root / RECORDS / f"{job.variant.id}.json", record.to_json())
    if not record.ok:
        raise CheckFailed(
            f"{job.variant.id} is built but not proven: {record.evidence()}",
            cause="; ".join(f"{level.name}: {level.reason}" for level in record.levels if level.status == "failed"),
            do=f"look into it: docker run --rm -it --entrypoint sh {job.staging}; it has no other name",
            where=f"{RECORDS}/{job.variant.id}.json",
        )
    return record


def label_and_name(context: Context, job: Job, record: ProofRecord | None) -> None:
    """Give the built image its labels and its names, and take its working name away."""
    checkout, engine = context.checkout, context.engine
    give_labels(checkout, job, engine, job.staging, _labels(context, job, record))
    engine.drop_name(job.staging, context.report.line)  # a container that a killed run left may hold it
    if engine.embedded:
        drop_replaced(job, engine, context.report)


def label_where_pushed(
    context: Context, job: Job, record: ProofRecord | None, at: AtBuilder, image: RemoteImage
) -> RemoteImage:
    """The same for an image that a builder has pushed: labelled in its registry, named here as it comes from there."""
    engine, report = context.engine, context.report
    labelled = at_builder.name(engine, at, job, image, _labels(context, job, record), report)
    engine.drop_name(job.staging, report.line)
    if engine.embedded:
        drop_replaced(job, engine, report)
    return labelled


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


def _labels(context: Context, job: Job, record: ProofRecord | None) -> dict[str, str]:
    checkout, engine, judged = context.checkout, context.engine, context.assessments.of(job.variant)
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
        advisories=(
            context.assessments.known.read.isoformat(),
            [finding.advisory.id for finding in judged.having("open")],
        ),
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


def give_labels(checkout: Checkout, job: Job, engine: Engine, reference: str, told: Mapping[str, str]) -> None:
    """Label an image and give it its job's names; its layers stay as they are."""
    with work_folder("finish") as folder:
        file = folder / "finish.json"
        file.write_text(bakefile.finish_file(reference, job.tags, told), encoding="utf-8")
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
    give_labels(checkout, job, engine, job.tags[0], {**facts.labels, REVISION: commit})
    return True


def unlocked_indexes(matrix: Matrix, jobs: Sequence[Job]) -> tuple[str, ...]:
    """Package indexes that jobs without a lock need beside the default one."""
    keys = [(job.variant.stack, job.variant.backend) for job in jobs if job.state != "locked"]
    return tuple(dict.fromkeys(index for key in keys for index in lock_indexes(matrix, *key)))
