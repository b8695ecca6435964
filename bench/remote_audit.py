"""`invoke bench remote-audit`: an image audited in a registry, beside pulling the same image from there.

A built image is pushed to a real registry on loopback, as gzip and as zstd. Its audit there and a pull into an empty
engine of its own (bench/pull.py) are timed one after the other, without a slow line between: what both do with the
bytes counts. Nothing of it stays. By default the image for the CPU; $CARDSTOCK_BENCH_ONLY names others by a glob on
variant ids. The audit must say what the audit in the engine says.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.frame import bench
from bench.levels import chosen_variants
from bench.loopback_registry import loopback_registry
from bench.pull import check_room, empty_engine
from bench.record import Row
from bench.stages import Workbench, workbench
from images.core import CardstockError, CheckFailed
from images.distribution import Packed
from images.distribution import push as pushing
from images.docker import ImageFacts
from images.matrix import Variant
from images.proof.audit import audit_image
from images.proof.audit.remote import audit_remote, parse_image_name
from images.registry import Packing, Repository
from images.render import Checkout

_PACKINGS: tuple[Packing, ...] = ("gzip", "zstd")


@dataclass(frozen=True)
class Compared:
    """Bytes of the layers and those that the audit read of them; seconds of audit and pull."""

    packed: int
    received: int
    audit: float
    pull: float


def rows_of(variant: str, image: str, packing: str, seen: Compared) -> Iterator[Row]:
    """What one image took, packed so."""
    name = f"{variant}: audited in a registry, {packing}"
    yield Row("remote-audit", name, seen.audit, seen.pull, "s", "pulled into an empty engine", image=image)
    name = f"{variant}: bytes read for that, {packing}"
    yield Row("remote-audit", name, seen.received / 1e6, seen.packed / 1e6, "MB", "its layers", image=image)


def compare(tools: Workbench, facts: ImageFacts, packing: Packing, folder: Path) -> Compared:
    """Push an image, audit it there and pull it; all of it in ``folder``. Raises CheckFailed where audits differ."""
    check_room(facts, shutil.disk_usage(folder).free)
    with loopback_registry(folder / "registry") as port:
        repository = f"127.0.0.1:{port}/bench/audit"
        pushed = pushing.push(
            facts, lambda: tools.engine.save(facts.id), Repository(repository), packing, Packed(folder / "packed")
        )
        reference = f"{repository}@{pushed.digest}"
        name = parse_image_name(reference)
        if name is None:
            raise CardstockError(f"{reference} names no registry")
        began = time.perf_counter()
        found = audit_remote(name, lambda: Repository(repository), lambda _: None)
        audited = time.perf_counter() - began
        with empty_engine(folder / "e") as engine:
            began = time.perf_counter()
            engine.pull(reference)
            pulled = time.perf_counter() - began
    here = audit_image(tools.engine, facts.id)
    if (found.audit.libraries, found.audit.others) != (here.libraries, here.others):
        raise CheckFailed(f"the audit of {reference} is not that of the image in the engine")
    return Compared(found.image.size, found.received, audited, pulled)


def measure(tools: Workbench, variants: Sequence[Variant]) -> Iterator[Row]:
    """The rows of these images."""
    for variant in variants:
        facts = tools.engine.inspect(tools.image_name(variant))
        if facts is None:
            raise CardstockError(f"the engine has no image {tools.image_name(variant)}")
        for packing in _PACKINGS:
            # A socket's path is short: not below the state folder.
            folder = Path(tempfile.mkdtemp(prefix="cs-"))
            try:
                with tools.report.step(f"audit {variant.id} in a registry, {packing}"):
                    seen = compare(tools, facts, packing, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            yield from rows_of(variant.id, tools.image_label(variant), packing, seen)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("remote-audit", heavy="the built image for the CPU, root on Debian, room for it twice, ten minutes")
    def measured() -> Iterable[Row]:
        tools = workbench(checkout)
        yield from measure(tools, chosen_variants(tools))
