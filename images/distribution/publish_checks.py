"""What is never published: unlocked stacks, inputs that no commit holds, images whose NVIDIA libraries were cut."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from images.advisories import gate
from images.build import Job
from images.context import Context
from images.core import CheckFailed, Unsafe, process
from images.device_code.audit import Audit, Audited
from images.docker import ImageFacts
from images.matrix import Matrix
from images.proof.smoke import ProofRecord
from images.render import INPUT, INPUTS, VARIANT

# Libraries of NVIDIA's with code for every generation (audited: CUDA 12.4's); cuFFT and others keep theirs elsewhere.
WHOLE = ("libcublas", "libcurand.so", "libcusolver.so", "libcusparse.so", "libnccl.so")


def refuse_unlocked(jobs: Sequence[Job], why: str = "") -> None:
    """Raise Unsafe where a stack has no lock: what is below its pins could be anything."""
    if bad := [job for job in jobs if job.state != "locked"]:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise Unsafe(
            f"{bad[0].variant.id}{more}: an image of an unlocked stack is never published",
            cause=f"the lock {bad[0].variant.lock} is {bad[0].state}{': ' + why if why else ''}",
            do=f"./inv lock --stack {bad[0].variant.stack} where its index can be reached, and commit what it writes",
        )


def refuse_advisories(context: Context, jobs: Sequence[Job], accepted: Sequence[str]) -> None:
    """Raise Unsafe where an image has an open advisory that is high, critical or not rated, and not ``accepted``.

    Says how many packages were looked up, and what is published in spite of an open advisory.
    """
    assessments = context.assessments
    judged = [assessments.of(job.variant) for job in jobs]
    context.report.line(
        f"advisories of {assessments.known.read}; {assessments.coverage([j.variant for j in jobs]).text()}"
    )
    gate.refuse_open(assessments.known, judged, accepted)
    for one in judged:
        for finding in one.severe_open:
            context.report.line(f"accepted: {finding.name} in {one.variant.id}")


def refuse_stale_advisories(context: Context, today: date, *, accepted: bool) -> None:
    """Say that advisories.yaml is older than 30 days; raise Unsafe where it is older than 90, unless ``accepted``."""
    known = context.assessments.known
    if line := gate.age_line(known, today):
        context.report.line(line)
    gate.refuse_stale(known, today, accepted=accepted)


def clean_revision(root: Path) -> str:
    """The commit that holds all inputs as they are now. Raises Unsafe where there is none."""
    try:
        commit = process.run(["git", "rev-parse", "HEAD"], cwd=root, timeout=60).out.strip()
        told = process.run(["git", "status", "--porcelain", "--", *INPUTS], cwd=root, timeout=60).out
    except process.ProcessFailed as error:
        raise Unsafe(
            "what is published must come from a git checkout", cause=error.tail.strip(), where=str(root)
        ) from error
    if changed := [line[3:] for line in told.splitlines()]:
        raise Unsafe(
            "the inputs of the images are not what the commit holds: nothing is published",
            cause=f"changed: {', '.join(changed[:5])}" + (f" and {len(changed) - 5} more" if len(changed) > 5 else ""),
            do="commit or undo these changes, then run again",
            where=str(root),
        )
    return commit


def refuse_foreign(job: Job, facts: ImageFacts) -> None:
    """Raise Unsafe where the image of the engine was not made of these inputs."""
    if facts.labels.get(INPUT) != job.input_hash or facts.labels.get(VARIANT) != job.variant.id:
        raise Unsafe(
            f"{job.tags[0]} is not the image of these inputs",
            cause=f"its label {INPUT} is {facts.labels.get(INPUT)!r}, not {job.input_hash!r}",
            do=f"./inv build --only '{job.variant.id}'",
        )


def refuse_cut_nvidia(matrix: Matrix, job: Job, found: Audit) -> None:
    """Raise Unsafe where a library of NVIDIA's holds nothing but what the image's cards run.

    Untouched, those that are looked at hold code for every generation that their toolkit compiles for. Their licence
    forbids passing them on modified. An image that is itself for every generation cannot be told from a cut one, and
    passes.
    """
    cuda = job.variant.cuda
    if cuda is None:
        return
    mine = {arch.major for arch in job.variant.archs}
    first, last = (int(text.partition(".")[0]) for text in matrix.toolkits[cuda].sass)
    if set(range(first, last + 1)) <= mine:
        return
    theirs = [one for one in found.libraries if Path(one.name).name.startswith(WHOLE)]
    if cut := [Path(one.name).name for one in theirs if one.archs and _majors(one) <= mine]:
        raise Unsafe(
            f"{job.variant.id}: NVIDIA's own libraries were cut in this image: it is never published",
            cause=f"code for {' '.join(map(str, job.variant.archs))} alone is in {', '.join(cut)}; their licence "
            "forbids to pass them on modified",
            do="build the image with ./inv build, which leaves them as they are",
        )


def _majors(one: Audited) -> set[int]:
    return {int(name.removeprefix("PTX ").partition(".")[0]) for name in one.archs}


def refuse_unproven(job: Job, record: ProofRecord) -> None:
    """Raise CheckFailed where a level failed, or the audit did not cover a card that the image is for."""
    wanted = [arch.capability for arch in job.variant.archs]
    missing = sorted(set(wanted) - set(record.audited))
    if not record.ok or missing:
        failed = [f"{level.name}: {level.reason}" for level in record.levels if level.status == "failed"]
        raise CheckFailed(
            f"{job.variant.id} is pushed but not proven, so no tag names it: {record.evidence()}",
            cause="; ".join(failed) or f"the audit does not cover {' '.join(missing)}",
            do=f"look into it: ./inv smoke --image {record.image}",
        )
