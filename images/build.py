"""Building: bake, prove, label, tag. A name is given to an image only when it is whole and what was asked is proven."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from images import bake, process, supplies
from images.bases import local_reference
from images.checkout import Checkout, write_atomically
from images.engine import Engine
from images.errors import CardstockError, CheckFailed
from images.jobs import Job, describe, disk_needed, done_state
from images.labels import READ_IMAGE, VARIANT, labels, read_reading
from images.matrix import Matrix
from images.render import BAKE_FILE
from images.report import Report, human_bytes
from images.site import SiteSettings
from images.smoke.expectation import expect
from images.smoke.prove import prove
from images.smoke.record import Record

LOGS = "build/logs"
RECORDS = "build/records"
PYTHON_IN_IMAGE = "/opt/venv/bin/python"

# BuildKit's plain progress: "#12 [venv 3/5] RUN …", "#12 DONE 3.2s", "#12 CACHED", and what kernel-build says.
_STAGE = re.compile(r"#\d+ \[(?P<stage>[^\]]+)\] (?P<what>.+)")
_KERNEL = re.compile(r"#\d+ [\d.]+ kernel-build: (?P<said>.+)")


@dataclass(frozen=True)
class Built:
    """What became of a job, "up to date" or "built", and the record of its proof."""

    job: Job
    what: str
    record: Record | None


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
) -> list[Built]:
    """Build what is not there, prove it, then label and tag it.

    Raises CheckFailed when a build breaks or a smoke level fails (nothing is tagged then), CardstockError when the
    disk is too small.
    """
    to_do = []
    for job in jobs:
        state = _state(engine, job)
        if state == "proven" or (state == "unproven" and not smoke):
            report.line(f"up to date: {job.tags[0]} (input {job.input_hash[:12]}, {state})")
        else:
            to_do.append(job)
    if missing := [job for job in to_do if engine.inspect(job.staging) is None]:
        check_disk(engine, missing)
        for job in missing:
            report.line(f"to build: {describe(job)}")
        _bake(checkout, matrix, missing, engine, site, report)
    return [
        _finish(checkout, job, engine, report, smoke=smoke, gpus=gpus, model=model)
        if job in to_do
        else Built(job, "up to date", None)
        for job in jobs
    ]


def local_base() -> str:
    """The name of the base that is bootstrapped where no registry serves it."""
    return local_reference("bookworm")


def _state(engine: Engine, job: Job) -> str:
    facts = engine.inspect(job.tags[0])
    return done_state(job, facts.labels if facts else None)


def check_disk(engine: Engine, jobs: Sequence[Job]) -> None:
    """Raise CardstockError when the engine's disk has less free than these jobs need."""
    free, need = engine.free_bytes(), disk_needed(jobs)
    if free is not None and free < need:
        raise CardstockError(
            f"the disk is too small for this build: {human_bytes(need)} needed, {human_bytes(free)} free",
            cause=f"{len(jobs)} image(s) with their build cache",
            do="free some space (./inv engine --prune), build fewer at once, or set CARDSTOCK_HOME to a larger disk",
            where=engine.endpoint,
        )


def _bake(
    checkout: Checkout, matrix: Matrix, jobs: Sequence[Job], engine: Engine, site: SiteSettings, report: Report
) -> None:
    """One `docker buildx bake` for all of them: BuildKit shares and parallelises."""
    contexts = supplies.named_contexts(matrix, jobs, engine, site, report)
    with tempfile.TemporaryDirectory(prefix="cardstock-build-") as folder:
        secrets = supplies.secrets(Path(folder), site, supplies.unlocked_indexes(matrix, jobs))
        override = Path(folder, "override.json")
        kernels = tuple(dict.fromkeys(job.variant.kernel for job in jobs if job.variant.kernel))
        images = {job.variant.id: job.staging for job in jobs}
        override.write_text(bake.override_file(images, bake.Site(contexts, secrets), kernels=kernels), encoding="utf-8")
        argv = ["docker", "buildx", "bake", "--progress=plain", "-f", BAKE_FILE, "-f", str(override)]
        argv += [bake.target_name(job.variant.id) for job in jobs]
        log = checkout.root / LOGS / f"{jobs[0].variant.id}.log"
        with report.step(f"build {len(jobs)} image(s)"):
            _run_logged(checkout, argv, engine.cli_env(), log, report)
    for job in jobs:
        facts = engine.inspect(job.staging)
        if facts is None:
            raise CheckFailed(f"the build of {job.variant.id} ended well but left no image", where=str(log))
        report.line(f"built {job.variant.id}: {human_bytes(facts.size)} unpacked")


def _run_logged(checkout: Checkout, argv: Sequence[str], env: Mapping[str, str], log: Path, report: Report) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    shown: set[str] = set()
    with log.open("w", encoding="utf-8", buffering=1) as out:

        def on_line(line: str) -> None:
            out.write(line + "\n")
            if (text := interesting(line)) and text not in shown:
                shown.add(text)
                report.line(text)

        try:
            process.stream(argv, on_line, cwd=checkout.root, env=env)
        except process.ProcessFailed as error:
            raise CheckFailed(
                "the build broke; nothing was tagged",
                cause=last_error(error.tail),
                do="mend the cause and run the same again: finished steps are kept",
                where=f"{log.relative_to(checkout.root)} (all of its output)",
            ) from error


def interesting(line: str) -> str | None:
    """The line of BuildKit's progress as people should see it, None for most."""
    if match := _KERNEL.match(line):
        return f"kernel: {match['said']}"
    match = _STAGE.match(line)
    if match is None or match["stage"].startswith("internal"):
        return None
    return f"[{match['stage']}] {match['what'][:100]}"


def last_error(tail: str) -> str:
    """The part of a broken build's last lines that says why."""
    lines = [line for line in tail.splitlines() if line.strip()]
    said = [line for line in lines if re.search(r"error|failed|no space|killed", line, re.IGNORECASE)]
    return "\n".join((said or lines)[-12:])


def _finish(
    checkout: Checkout, job: Job, engine: Engine, report: Report, *, smoke: bool, gpus: str | None, model: str | None
) -> Built:
    """Prove the built image, then give it labels and names, then drop its working name."""
    record = None
    if smoke:
        with report.step(f"smoke {job.variant.id}") as step:
            record = prove(
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
    told = _labels(checkout, job, engine, record)
    with tempfile.TemporaryDirectory(prefix="cardstock-finish-") as folder:
        file = Path(folder, "finish.json")
        file.write_text(bake.finish_file(job.staging, job.tags, told), encoding="utf-8")
        process.run(
            ["docker", "buildx", "bake", "--progress=plain", "-f", str(file), "finish"],
            cwd=checkout.root,
            env=engine.cli_env(),
        )
    engine.untag(job.staging)
    if engine.embedded:
        _drop_replaced(job, engine, report)
    return Built(job, "built", record)


def _drop_replaced(job: Job, engine: Engine, report: Report) -> None:
    """On the embedded engine, which has a limit: names of this variant that stand for other inputs."""
    prefix = f"{job.tags[0]}-"
    for facts in engine.images(f"{VARIANT}={job.variant.id}"):
        for tag in facts.tags:
            if tag.startswith(prefix) and tag not in job.tags:
                engine.untag(tag)
                report.line(f"replaced: {tag}")


def _labels(checkout: Checkout, job: Job, engine: Engine, record: Record | None) -> dict[str, str]:
    ran = engine.run(job.staging, ["-c", READ_IMAGE], entrypoint=[PYTHON_IN_IMAGE])
    return labels(
        job.variant,
        read_reading(ran.out),
        job.input_hash,
        evidence=record.evidence() if record else "not proven: built with --no-smoke",
        proven=record is not None,
        audited=record.audited if record else (),
        locked=job.state == "locked",
        revision=revision(checkout.root),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def revision(root: Path) -> str:
    """The git commit of the checkout, with "-dirty" if files differ from it; "unknown" outside a git checkout."""
    try:
        commit = process.run(["git", "rev-parse", "HEAD"], cwd=root).out.strip()
        dirty = process.run(["git", "status", "--porcelain"], cwd=root).out.strip()
    except CardstockError:
        return "unknown"
    return f"{commit}-dirty" if dirty else commit
