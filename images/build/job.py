"""Jobs: what a build has to do for each chosen variant, and what is done already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from images.core import TextEnum
from images.matrix import FIRST_IMAGE, Matrix, Variant, join_sm
from images.render import (
    EVIDENCE,
    INPUT,
    PROVEN,
    STAGING,
    Checkout,
    LockState,
    Templates,
    bake_target,
    render_dockerfile,
)

# As FIRST_IMAGE: the first image for the CPU, and one more of the same lock.
FIRST_CPU_IMAGE = 10_000_000_000
FURTHER_IMAGE = 6_000_000_000


@dataclass(frozen=True)
class Job:
    """One image to make: its inputs' hash, and the names it is built and tagged as."""

    variant: Variant
    dockerfile: str
    input_hash: str
    state: LockState
    staging: str
    tags: tuple[str, ...]


def make_job(checkout: Checkout, matrix: Matrix, templates: Templates, variant: Variant, state: LockState) -> Job:
    """The job of a variant; reads the checkout's files."""
    dockerfile = render_dockerfile(templates, matrix, variant, state == "locked")
    parts = checkout.input_files(variant.lock, variant.plugins)
    parts["Dockerfile"] = dockerfile.encode()
    parts["kernel"] = repr(variant.kernel).encode()
    parts["target"] = repr(sorted(bake_target(matrix, variant).items())).encode()
    digest = input_hash(parts)
    return Job(
        variant=variant,
        dockerfile=dockerfile,
        input_hash=digest,
        state=state,
        staging=f"{STAGING}:{digest[:24]}",
        tags=(f"{matrix.image}:{variant.id}", f"{matrix.image}:{variant.id}-{digest[:12]}"),
    )


class ImageState(TextEnum):
    """What an image on the engine is to the inputs of its variant."""

    ABSENT = "absent"
    OUTDATED = "outdated"
    UNPROVEN = "unproven"
    PROVEN = "proven"
    UNKNOWN = "?"


def state_of_image(job: Job, labels: Mapping[str, str] | None) -> ImageState:
    """What the tagged image (its labels; None if there is none) is to this job."""
    if labels is None:
        return ImageState.ABSENT
    if labels.get(INPUT) != job.input_hash:
        return ImageState.OUTDATED
    proven = labels.get(PROVEN) == "yes" and labels.get(EVIDENCE)
    return ImageState.PROVEN if proven else ImageState.UNPROVEN


def disk_needed(jobs: Iterable[Job]) -> int:
    """Bytes that building these should need at most."""
    seen: set[str] = set()
    total = 0
    for job in jobs:
        first = FIRST_IMAGE[job.variant.backend] if job.variant.cuda else FIRST_CPU_IMAGE
        total += FURTHER_IMAGE if job.variant.lock in seen else first
        seen.add(job.variant.lock)
    return total


def describe(job: Job) -> str:
    """One line for people: what will be built."""
    variant = job.variant
    kernel = f", {variant.kernel.package} {variant.kernel.version} from source" if variant.kernel else ""
    cards = join_sm(variant.archs) or "CPU"
    return f"{variant.id}: {variant.backend} on {cards}{kernel}; stack {variant.stack} {job.state}"


def input_hash(parts: Mapping[str, bytes]) -> str:
    """64 hex digits over names and contents: an image whose inputs have this hash need not be built again."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(f"{len(name)}:{name}:{len(parts[name])}:".encode())
        digest.update(parts[name])
    return digest.hexdigest()
