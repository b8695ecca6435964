"""What is published in a repository: found, kept as a file, and moved back. Nothing is built, no engine is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from images.build import Job, Plan
from images.catalogue import (
    Catalogue,
    PublishedImage,
    SigningKeys,
    change_catalogue,
    check_content,
    fetch_catalogue,
    immutable_tag,
    repair_tags,
    utc_now,
    without_newest,
)
from images.context import Context
from images.core import NothingSelected, human_bytes, write_atomically
from images.matrix import Variant
from images.registry import Repository

LOCAL = "build/catalogue.json"


@dataclass(frozen=True)
class Destination:
    """A repository that is published to, and how its catalogue is signed; ``keys`` None: it is not."""

    context: Context
    repository: Repository
    keys: SigningKeys | None = None


def published_images(repository: Repository, jobs: Iterable[Job]) -> dict[str, PublishedImage]:
    """Variant id -> the image that was published of the job's inputs, for those that were."""
    catalogue, _ = fetch_catalogue(repository)
    by_tag = {image.tag: image for image in catalogue.images} if catalogue else {}
    tags = {job.variant.id: immutable_tag(job.variant.id, job.input_hash) for job in jobs}
    return {identifier: by_tag[tag] for identifier, tag in tags.items() if tag in by_tag}


def print_what_would_be_done(destination: Destination, plan: Plan) -> None:
    """What publishing would do with each job of the plan, and nothing else."""
    there = published_images(destination.repository, plan.jobs)
    rows = []
    for job in plan.jobs:
        image = there.get(job.variant.id)
        state = "up to date" if image else "to publish" if job.state == "locked" else f"never: its stack is {job.state}"
        rows.append([immutable_tag(job.variant.id, job.input_hash), state, image.summary() if image else ""])
    destination.context.report.table(rows, ["tag", "state", "evidence"])


def roll_back(destination: Destination, variants: Sequence[Variant]) -> list[PublishedImage]:
    """Move the moving tags of these variants back to what they named before; the images that they name then.

    Raises NothingSelected where a variant has no image before its newest; then nothing was moved for it.
    """
    out = []
    for variant in variants:
        catalogue, _ = fetch_catalogue(destination.repository)
        if catalogue is None:
            raise NothingSelected(
                f"nothing is published in {destination.repository.name}", do="see that its name is right"
            )
        _, moves = without_newest(catalogue, variant.id, utc_now())
        for image in moves.values():
            check_content(destination.repository, image)
        change = partial(_without, variant.id, catalogue.current[variant.id].digest)
        after = change_catalogue(destination.repository, change, destination.keys)
        repair_tags(destination.repository, variant.id, say=destination.context.report.line)
        save_catalogue(destination, after)
        out.append(after.current[variant.id])
    return out


def _without(variant: str, digest: str, before: Catalogue) -> Catalogue:
    """Rolled back from this image; as it is where that was done."""
    newest = before.current.get(variant)
    return without_newest(before, variant, utc_now())[0] if newest and newest.digest == digest else before


def save_catalogue(destination: Destination, catalogue: Catalogue) -> None:
    """The catalogue as a plain file, for a site to serve."""
    write_atomically(destination.context.checkout.root / LOCAL, catalogue.to_json())
    destination.context.report.line(
        f"catalogue: {len(catalogue.images)} images, {human_bytes(sum(catalogue.layers.values()))} of layers; {LOCAL}"
    )
