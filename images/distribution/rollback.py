"""What is published in a repository: told, kept as a file, and moved back. Nothing is built, no engine is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from images.build import Job
from images.catalogue import (
    Catalogue,
    PublishedImage,
    SigningKeys,
    change_catalogue,
    check_image,
    fetch_catalogue,
    immutable_tag,
    set_tag,
    utc_now,
    without_newest,
)
from images.core import RegistryFailure, Report, human_bytes, write_atomically
from images.matrix import Variant
from images.registry import Repository
from images.render import Checkout

LOCAL = "build/catalogue.json"


@dataclass(frozen=True)
class Stand:
    """A repository, and what a look at it or a change of its tags needs: whom to tell, how to sign."""

    checkout: Checkout
    repository: Repository
    report: Report
    keys: SigningKeys | None = None


def tell(stand: Stand, jobs: Sequence[Job]) -> None:
    """What publishing would do with each job, and nothing else."""
    catalogue, _ = fetch_catalogue(stand.repository)
    rows = []
    for job in jobs:
        tag = immutable_tag(job.variant.id, job.input_hash)
        there = next((image for image in catalogue.images if image.tag == tag), None) if catalogue else None
        state = "up to date" if there else "to publish" if job.state == "locked" else f"never: its stack is {job.state}"
        rows.append([tag, state, there.summary() if there else ""])
    stand.report.table(rows, ["tag", "state", "evidence"])


def roll_back(stand: Stand, variants: Sequence[Variant]) -> list[PublishedImage]:
    """Move the moving tags of these variants back to what they named before; the images that they name then.

    Raises NothingSelected where a variant has no image before its newest; then nothing was moved for it.
    """
    out = []
    for variant in variants:
        catalogue, _ = fetch_catalogue(stand.repository)
        if catalogue is None:
            raise RegistryFailure(f"nothing is published in {stand.repository.name}", do="see that its name is right")
        _, moves = without_newest(catalogue, variant.id, utc_now())
        for image in moves.values():
            check_image(stand.repository, image)
        for tag, image in moves.items():
            set_tag(stand.repository, tag, image.digest)
            stand.report.line(f"{tag} -> {image.tag} ({image.digest})")
        change = partial(_without, variant.id, catalogue.current[variant.id].digest)
        after = change_catalogue(stand.repository, change, stand.keys)
        keep(stand, after)
        out.append(after.current[variant.id])
    return out


def _without(variant: str, digest: str, before: Catalogue) -> Catalogue:
    """Rolled back from this image; as it is where that was done."""
    newest = before.current.get(variant)
    return without_newest(before, variant, utc_now())[0] if newest and newest.digest == digest else before


def keep(stand: Stand, catalogue: Catalogue) -> None:
    """The catalogue as a plain file, for a site to serve."""
    write_atomically(stand.checkout.root / LOCAL, catalogue.to_json())
    stand.report.line(
        f"catalogue: {len(catalogue.images)} images, {human_bytes(sum(catalogue.layers.values()))} of layers; {LOCAL}"
    )
