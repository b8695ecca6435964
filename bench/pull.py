"""`invoke bench pull`: from nothing to a healthy server on a machine with 100 Mbit/s, by arithmetic and for real.

By arithmetic, for every image whose size is kept: its bytes as zstd, divided by the line's bytes a second. That leaves
out what an engine does beside: it unpacks each layer as it comes, and is done when the last one is unpacked.

For real: an empty engine of its own (the embedded one, in a folder of its own) pulls a built image, by its digest as
`./inv pull` does, from a real registry on loopback over a line that lets 100 Mbit/s through (bench/throttle.py); then
its server starts with the tiny checkpoint, and is waited for until it is healthy. Nothing of it stays. By default the
image for the CPU; $CARDSTOCK_BENCH_ONLY names others by a glob on variant ids. It needs root on Debian, as the embedded
engine does, and room on the disk: the image twice, packed and unpacked.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.frame import bench
from bench.levels import chosen_variants
from bench.loopback_registry import loopback_registry
from bench.record import FOLDER, BenchRecord, Row, read_records
from bench.stages import Workbench, workbench
from bench.start import Clock, make_spec, seconds_to_healthy
from bench.throttle import RATE, slow_line
from images.core import CardstockError, CheckFailed, Layout, UsageError, human_bytes
from images.distribution import Packed
from images.distribution import push as pushing
from images.docker import Engine, ImageFacts, reach
from images.docker.embedded import daemon as embedded
from images.matrix import Variant
from images.proof.smoke import expect, why_not_served
from images.proof.tiny_model import write_checkpoint
from images.registry import Repository
from images.render import Checkout

_SIZES = ": all, zstd"
# Beside what the line takes: manifests, heads, an engine's second thoughts. More is a fault of the measurement.
_MOST_OVER_THE_WIRE = 1.05
_ROOM = 2 << 30


@dataclass(frozen=True)
class Pulled:
    """One pull: bytes of its layers in the registry, bytes that came over the line, seconds of pull and start.

    ``start`` is None where the server cannot run here, and ``why`` says why.
    """

    packed: int
    received: int
    pull: float
    start: float | None
    why: str = ""


def seconds_by_arithmetic(packed: float, rate: float = RATE) -> float:
    """Seconds that ``packed`` bytes need at ``rate`` bytes a second."""
    return packed / rate


def rows_by_arithmetic(records: Iterable[BenchRecord]) -> Iterator[Row]:
    """For each image that sizes are kept of, beside the same packages untouched."""
    for record in records:
        for row in record.rows if record.bench == "sizes" else ():
            if row.measures.endswith(_SIZES) and row.ours is not None:
                name = row.measures.removesuffix(_SIZES)
                ours, peer = (
                    None if megabytes is None else seconds_by_arithmetic(megabytes * 1e6)
                    for megabytes in (row.ours, row.peer)
                )
                measures = f"{name}: to pull at 100 Mbit/s, by arithmetic"
                yield Row("pull", measures, ours, peer, "s", "untouched" if peer else "", image=row.image)


def rows_of(variant: str, image: str, seen: Pulled) -> Iterator[Row]:
    """What one pull over the slow line took."""
    counted = seconds_by_arithmetic(seen.packed)
    name = f"{variant}: pulled at 100 Mbit/s into an empty engine"
    yield Row("pull", name, seen.pull, counted, "s", "by arithmetic", image=image, headline=True)
    wire = f"{variant}: bytes over the wire of that pull"
    yield Row("pull", wire, seen.received / 1e6, seen.packed / 1e6, "MB", "its layers", image=image)
    if seen.start is None:
        yield Row("pull", f"{variant}: then its start to healthy", None, None, "s", why=seen.why, image=image)
        return
    yield Row("pull", f"{variant}: then its start to healthy", seen.start, None, "s", image=image)
    whole = f"{variant}: from nothing to healthy at 100 Mbit/s"
    yield Row("pull", whole, seen.pull + seen.start, None, "s", image=image, headline=True)


def check_room(facts: ImageFacts, free: int) -> None:
    """Raise UsageError where the disk has too little: the registry's copy, the engine's, what both work in."""
    need = 2 * facts.size + _ROOM
    if free < need:
        raise UsageError(
            f"too little room to pull a second time: {human_bytes(need)} are needed, {human_bytes(free)} free",
            do="free some (./inv engine --prune), or set TMPDIR to a larger disk",
        )


@contextmanager
def empty_engine(folder: Path) -> Iterator[Engine]:
    """The embedded engine, empty, with its state in ``folder``; it is stopped afterwards. Raises EngineUnreachable.

    Without packet-filter rules, which two engines of one machine would share: its containers reach no network.
    """
    layout = Layout(folder)
    try:
        engine = reach(embedded.start(layout, firewall=False))
        try:
            yield engine
        finally:
            engine.close()
    finally:
        embedded.stop(layout)


def check_wire(seen: Pulled) -> None:
    """Raise CheckFailed where less came than the layers are, or much more: then it was no pull of this image alone."""
    if not seen.packed <= seen.received <= seen.packed * _MOST_OVER_THE_WIRE + 1e6:
        raise CheckFailed(
            f"{seen.received} bytes came over the line for layers of {seen.packed}",
            cause="the engine had some of them, or fetched some twice",
            do="measure again",
        )


def pull_slowly(tools: Workbench, variant: Variant, folder: Path) -> Pulled:
    """Push a built image to a registry of its own, and pull and start it from there; all of it in ``folder``."""
    facts = tools.engine.inspect(tools.image_name(variant))
    if facts is None:
        raise CardstockError(f"the engine has no image {tools.image_name(variant)}")
    check_room(facts, shutil.disk_usage(folder).free)
    with loopback_registry(folder / "registry") as port, slow_line("127.0.0.1", port) as line:
        name = "bench/pull"
        pushed = pushing.push(
            facts,
            lambda: tools.engine.save(facts.id),
            Repository(f"127.0.0.1:{port}/{name}"),
            "zstd",
            Packed(folder / "packed"),
        )
        packed = sum(layer.size for layer in pushed.layers)
        with empty_engine(folder / "e") as engine:
            reference = f"127.0.0.1:{line.port}/{name}@{pushed.digest}"
            began = time.perf_counter()
            engine.pull(reference)
            pulled = Pulled(packed, line.received, time.perf_counter() - began, None)
            check_wire(pulled)
            return _started(engine, variant, reference, folder, pulled)


def _started(engine: Engine, variant: Variant, reference: str, folder: Path, pulled: Pulled) -> Pulled:
    """The same with the seconds of a first start, where the server runs here."""
    if reason := why_not_served(expect(variant), gpus=False):
        return Pulled(pulled.packed, pulled.received, pulled.pull, None, reason)
    model = folder / "model" / "tiny"
    write_checkpoint(model)
    for one in (folder, model.parent):
        one.chmod(0o755)
    name = f"cardstock-bench-{uuid.uuid4().hex[:12]}"
    began = time.perf_counter()
    engine.containers.start(make_spec(name, reference, model), {})
    try:
        seconds_to_healthy(engine.containers, name, Clock())
        return Pulled(pulled.packed, pulled.received, pulled.pull, time.perf_counter() - began)
    finally:
        engine.containers.remove(name)


def measure(tools: Workbench, variants: Sequence[Variant]) -> Iterator[Row]:
    """The rows of these images."""
    for variant in variants:
        # A socket's path is short: not below the state folder.
        folder = Path(tempfile.mkdtemp(prefix="cs-"))
        try:
            with tools.report.step(f"pull {variant.id} at 100 Mbit/s"):
                seen = pull_slowly(tools, variant, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        yield from rows_of(variant.id, tools.image_label(variant), seen)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("pull", heavy="the built image for the CPU, root on Debian, room for it twice, ten minutes")
    def measured() -> Iterable[Row]:
        yield from rows_by_arithmetic(read_records(checkout.root / FOLDER))
        tools = workbench(checkout)
        yield from measure(tools, chosen_variants(tools))
