"""Building: bake, prove, label, tag. A name is given to an image only when it is whole and what was asked is proven."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from images import bake, process
from images.bake import registry_reference
from images.bases import apt_sources, base_context, ca_bundle, local_reference
from images.checkout import Checkout, write_atomically
from images.engine import Engine
from images.errors import CardstockError, CheckFailed, RegistryFailure
from images.jobs import Job, describe, disk_needed, done_state
from images.labels import READ_IMAGE, labels, read_reading
from images.matrix import Base, Matrix
from images.render import BAKE_FILE
from images.report import Report, human_bytes
from images.site import SiteSettings
from images.smoke.expectation import expect
from images.smoke.prove import prove
from images.smoke.record import Record
from images.states import lock_indexes

LOGS = "build/logs"
RECORDS = "build/records"
# The Debian suite whose non-free part packages a CUDA compiler (12.4).
TOOLKIT_SUITE = "trixie"
PYTHON_IN_IMAGE = "/opt/venv/bin/python"

# BuildKit's plain progress: "#12 [venv 3/5] RUN …", "#12 DONE 3.2s", "#12 CACHED", "#15 61.2 [3/34] c++ …".
_STAGE = re.compile(r"#\d+ \[(?P<stage>[^\]]+)\] (?P<what>.+)")
_OBJECT = re.compile(r"#\d+ [\d.]+ \[(?P<at>\d+)/(?P<of>\d+)\] ")


@dataclass(frozen=True)
class Built:
    """What became of a job: "up to date", "built" or "labelled" (only its proof was missing), and its smoke record."""

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
    out: list[Built] = []
    to_do = []
    for job in jobs:
        state = _state(engine, job)
        if state == "proven" or (state == "unproven" and not smoke):
            report.line(f"up to date: {job.tags[0]} (input {job.input_hash[:12]}, {state})")
            out.append(Built(job, "up to date", None))
        else:
            to_do.append(job)
    if not to_do:
        return out
    missing = [job for job in to_do if engine.inspect(job.staging) is None]
    if missing:
        check_disk(engine, missing)
        for job in missing:
            report.line(f"to build: {describe(job)}")
        _bake(checkout, matrix, missing, engine, site, report)
    for job in to_do:
        out.append(_finish(checkout, job, engine, report, smoke=smoke, gpus=gpus, model=model))
    return out


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


def resolve(image: Base, engine: Engine, site: SiteSettings, report: Report) -> str | None:
    """An image by digest: as pinned, else as the registry of the user's own engine has it today; None out of reach.

    The embedded engine is for machines without a registry: it is not asked.
    """
    if site.bases == "packages":
        return None
    if image.digest is None and not engine.embedded and (digest := engine.registry_digest(image.image)):
        report.line(f"{image.image} is {digest} today; matrix.yaml does not pin it, so this image is for local use")
        image = Base(image=image.image, digest=digest)
    return registry_reference(image)


def named_contexts(
    matrix: Matrix, jobs: Sequence[Job], engine: Engine, site: SiteSettings, report: Report
) -> tuple[tuple[str, str], ...]:
    """What the Dockerfiles' ``FROM base`` and ``FROM devel`` are on this machine.

    Raises RegistryFailure for a job whose kernels need a compiler image that cannot be had.
    """
    contexts: dict[str, str] = {}
    for job in jobs:
        cuda = job.variant.cuda
        if job.variant.kernel is None or cuda is None or matrix.toolkits[cuda].nvcc != "devel-image":
            continue
        devel = matrix.devel_images[cuda]
        reference = resolve(devel, engine, site, report)
        if reference is None:
            raise RegistryFailure(
                f"{job.variant.id} cannot be built here: no compiler for CUDA {cuda}",
                cause=f"nvcc {cuda} comes in {devel.image}, which has no digest in matrix.yaml and no registry here",
                do=f"use an engine that reaches a registry, or take sdpa: ./inv plan --cuda {cuda} --attention sdpa",
                where=matrix.where("devel_images", cuda, "digest"),
            )
        contexts["devel"] = f"docker-image://{reference}"
    with report.step("base image"):
        base = resolve(matrix.bases["bookworm"], engine, site, report)
        contexts["base"] = base_context("bookworm", engine, registry=base, say=report.line)
    return tuple(contexts.items())


def _bake(
    checkout: Checkout, matrix: Matrix, jobs: Sequence[Job], engine: Engine, site: SiteSettings, report: Report
) -> None:
    """One `docker buildx bake` for all of them: BuildKit shares and parallelises."""
    contexts = named_contexts(matrix, jobs, engine, site, report)
    with tempfile.TemporaryDirectory(prefix="cardstock-build-") as folder:
        secrets = _secrets(Path(folder), site, unlocked_indexes(matrix, jobs))
        override = Path(folder, "override.json")
        override.write_text(
            bake.override_file({job.variant.id: job.staging for job in jobs}, bake.Site(contexts, secrets)),
            encoding="utf-8",
        )
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


def unlocked_indexes(matrix: Matrix, jobs: Sequence[Job]) -> tuple[str, ...]:
    """Package indexes that jobs without a lock need beside the default one."""
    keys = [(job.variant.stack, job.variant.engine) for job in jobs if job.state != "locked"]
    return tuple(dict.fromkeys(index for key in keys for index in lock_indexes(matrix, *key)))


def _secrets(folder: Path, site: SiteSettings, indexes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Build secrets of this site: id -> file. They exist while a RUN step does, and in no layer."""
    sources = {"apt": apt_sources(own=site.apt), "apt-toolkit": apt_sources(TOOLKIT_SUITE, "non-free")}
    found: dict[str, Path | None] = {"ca": ca_bundle(site.ca), "uv": site.uv, "pip": site.pip}
    if indexes:
        own = site.uv.read_text(encoding="utf-8") if site.uv else ""
        sources["uv"] = own + "".join(f'\n[[index]]\nurl = "{index}"\n' for index in indexes)
    for name, text in sources.items():
        if text:
            found[name] = folder / name
            (folder / name).write_text(text, encoding="utf-8")
    return tuple((name, str(path)) for name, path in found.items() if path)


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
    if match := _OBJECT.match(line):
        return f"compiled {match['at']} of {match['of']} objects" if int(match["at"]) % 5 == 0 else None
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
    return Built(job, "built", record)


def _labels(checkout: Checkout, job: Job, engine: Engine, record: Record | None) -> dict[str, str]:
    ran = engine.run(job.staging, ["-c", READ_IMAGE], entrypoint=[PYTHON_IN_IMAGE])
    return labels(
        job.variant,
        read_reading(ran.out),
        job.input_hash,
        evidence=record.evidence() if record else "not proven: built with --no-smoke",
        proven=record is not None,
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
