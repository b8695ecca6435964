"""`invoke bench server`: attacks on the server on transformers, and what an ordinary request takes, beside how it was.

The image for the CPU serves the tiny checkpoint with the checkout's own server mounted into it, 4 GiB of memory and no
swap. $CARDSTOCK_BENCH_BEFORE names a folder with the server's files of another commit (its
dockerfiles/rootfs/opt/cardstock), which is measured as the peer. A server that an attack ends is started anew.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import payloads
from bench.firing import CHAT, Memory, Reply, closed_within, fire, lines_held, send, send_all
from bench.frame import bench
from bench.record import Row
from bench.stages import Workbench, workbench
from bench.start import Clock, make_spec, seconds_to_healthy
from images.core import CardstockError, process
from images.docker import ContainerSpec, Mount, PublishedPort
from images.matrix import Variant
from images.proof.tiny_model import write_checkpoint
from images.render import Checkout

BEFORE = "CARDSTOCK_BENCH_BEFORE"
ROOTFS = Path("dockerfiles/rootfs/opt/cardstock")
MEMORY = 4 * 2**30
PORT = 18_766
REQUESTS = 500
PATIENCE = 300.0
MODEL = "tiny"


def chat(body: bytes, count: int = 1) -> list[Reply]:
    """The same chat request, ``count`` times at once."""
    return send_all(PORT, [payloads.request(CHAT, body)] * count, PATIENCE)


def large_pictures() -> bytes:
    """Eight pictures of 64 megapixels, in 1.5 MB."""
    return payloads.with_pictures(MODEL, [payloads.data_url(payloads.png(8000, 8000))] * 8)


def held(begun: bytes, count: int, seconds: float) -> list[Reply]:
    """``count`` connections that say no more, for ``seconds`` or until the server has closed them."""
    with lines_held(PORT, begun, count) as lines:
        closed_within(lines, seconds)
    return []


ATTACKS: dict[str, Callable[[], list[Reply]]] = {
    "a text to stop at of a million letters": lambda: chat(payloads.chat(MODEL, stop="a" * 1_000_000, max_tokens=2)),
    "10 MB of empty messages": lambda: chat(payloads.wide_body(MODEL, 10)),
    "60 MB of nested lists": lambda: chat(payloads.nested_lists(MODEL, 60)),
    "25 bodies of 60 MB that lack their last byte": lambda: held(payloads.begun_body(60), 25, 75),
    "300 connections with half a header": lambda: held(payloads.half_headers(), 300, 20),
    "eight pictures of 64 megapixels": lambda: chat(large_pictures()),
    "two such requests at once": lambda: chat(large_pictures(), 2),
}


@dataclass(frozen=True)
class Harm:
    """What an attack did: seconds, the longest silence of /health, growth of memory in MB; or that the server ended."""

    seconds: float
    silence: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Measured:
    """One server: the harm of each attack, and the median seconds of an ordinary request."""

    harms: tuple[Harm, ...]
    usual: float


@contextmanager
def serving(tools: Workbench, spec: ContainerSpec) -> Iterator[Memory]:
    """Started, healthy, and gone afterwards. Raises CheckFailed."""
    containers = tools.engine.containers
    containers.start(spec, {})
    try:
        seconds_to_healthy(containers, spec.name, Clock())
        state = containers.find(spec.name)
        first = int(state.attributes["State"]["Pid"]) if state else 0
        children = Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
        yield Memory(lambda argv: process.run(argv).out, int(children[0]) if children else first)
    finally:
        containers.remove(spec.name)


def harm(memory: Memory, attack: Callable[[], Sequence[Reply]]) -> Harm:
    """Fire one attack and see what comes of it."""
    begin = time.monotonic()
    try:
        fired = fire(PORT, memory, attack)
    except (StopIteration, CardstockError):  # the process is gone
        return Harm(time.monotonic() - begin)
    return Harm(fired.seconds, fired.health.silence, fired.growth / 1e6)


def ordinary() -> float:
    """Median seconds of a small question, of `REQUESTS`; the first twenty do not count."""
    raw, taken = payloads.request(CHAT, payloads.chat(MODEL, max_tokens=1), connection="close"), []
    for _ in range(REQUESTS + 20):
        begin = time.perf_counter()
        send(PORT, raw)
        taken.append(time.perf_counter() - begin)
    return median(taken[20:])


def measured(tools: Workbench, image: str, model: Path, rootfs: Path) -> Measured:
    """All attacks on one server."""
    base = make_spec("", image, model)
    base = replace(
        base,
        env=(*base.env, ("CARDSTOCK_ENGINE", "transformers"), ("CARDSTOCK_DEFAULT_ARGS", "[]")),
        mounts=(*base.mounts, Mount(str(rootfs.resolve()), "/opt/cardstock")),
        ports=(PublishedPort(8000, PORT),),
        memory=MEMORY,
    )
    harms: list[Harm] = []
    usual = 0.0
    while len(harms) < len(ATTACKS):
        with serving(tools, replace(base, name=f"cardstock-bench-{uuid.uuid4().hex[:12]}")) as memory:
            usual = usual or ordinary()
            for name, attack in list(ATTACKS.items())[len(harms) :]:
                harms.append(harm(memory, attack))
                tools.report.line(f"{name}: {harms[-1]}")
                if harms[-1].megabytes is None:
                    break
    return Measured(tuple(harms), usual)


def rows(image: str, ours: Measured, before: Measured | None) -> Iterator[Row]:
    """Three rows an attack, and one for an ordinary request."""
    for at, name in enumerate(ATTACKS):
        now, then = ours.harms[at], before.harms[at] if before else None
        against = _against(then)
        why = "" if now.megabytes is not None else "the server ended"
        for what, unit in (("seconds", "s"), ("silence", "s"), ("megabytes", "MB")):
            words = {"seconds": "until it is over", "silence": "longest silence of /health", "megabytes": "memory"}
            peer = getattr(then, what) if then else None
            yield Row("server", f"{name}: {words[what]}", getattr(now, what), peer, unit, against, why, image)
    peer = before.usual if before else None
    usual = f"an ordinary request, median of {REQUESTS}"
    yield Row("server", usual, ours.usual, peer, "s", "how it was" if before else "", image=image)


def _against(then: Harm | None) -> str:
    if then is None:
        return ""
    return "how it was" if then.megabytes is not None else "how it was: it ended"


def measure(tools: Workbench, variant: Variant) -> Iterator[Row]:
    """The rows of one image."""
    with tempfile.TemporaryDirectory(prefix="cardstock-bench-") as folder:
        Path(folder).chmod(0o755)
        model = write_checkpoint(Path(folder, "tiny")).folder
        image, older = tools.image_name(variant), os.environ.get(BEFORE)
        before = measured(tools, image, model, Path(older)) if older else None
        ours = measured(tools, image, model, tools.checkout.root / ROOTFS)
    yield from rows(tools.image_label(variant), ours, before)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("server", heavy="the built image for the CPU, ten minutes")
    def server() -> Iterable[Row]:
        tools = workbench(checkout)
        for variant in [one for one in tools.built() if one.cuda is None]:
            yield from measure(tools, variant)
