"""`invoke bench guard-cost`: what the guard costs an ordinary request, in one server and in turns.

A middleware of the bench's own hands each request to the application behind the guard, or, where a header asks for it,
to the application itself. So both ways have the same server, the same moment and the same load.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.frame import bench
from bench.guard import PORT, server_spec, serving
from bench.payloads import chat, data_url, png
from bench.record import Row
from bench.stages import Workbench, workbench
from images.core import CheckFailed
from images.docker import Mount
from images.matrix import Variant
from images.proof.tiny_model import write_checkpoint
from images.render import Checkout

REQUESTS = 500
BARE = "x-bare"
EITHER = f"""
from guard import Guard

class Either:
    def __init__(self, app):
        self.bare, self.guarded = app, Guard(app)

    async def __call__(self, scope, receive, send):
        bare = any(name == b"{BARE}" for name, _ in scope.get("headers", ()))
        await (self.bare if bare else self.guarded)(scope, receive, send)
"""
ENV = (
    ("CARDSTOCK_GUARD", "off"),
    ("CARDSTOCK_DEFAULT_ARGS", json.dumps(["--enforce-eager", "--middleware", "either.Either"])),
    ("PYTHONPATH", "/bench:/opt/cardstock/middleware:/opt/cardstock/plugins"),
)


def bodies() -> dict[str, bytes]:
    """Ordinary requests, by what they are."""
    picture = [{"type": "image_url", "image_url": {"url": data_url(png(224, 224))}}]
    return {
        "a question": chat("tiny", max_tokens=1),
        "a question of 20 KB": chat("tiny", "All work and no play. " * 900, max_tokens=1, truncate_prompt_tokens=64),
        "a question about a picture": chat("tiny", [*picture, {"type": "text", "text": "What colour?"}], max_tokens=1),
    }


def seconds(line: http.client.HTTPConnection, body: bytes, *, bare: bool) -> float:
    """One request on a connection that stays. Raises CheckFailed for any answer but 200."""
    headers = {"content-type": "application/json", **({BARE: "1"} if bare else {})}
    begin = time.perf_counter()
    line.request("POST", "/v1/chat/completions", body, headers)
    answer = line.getresponse()
    told = answer.read()
    if answer.status != 200:
        raise CheckFailed(
            f"an ordinary request was answered {answer.status}", cause=told.decode(errors="replace")[:300]
        )
    return time.perf_counter() - begin


def pairs(port: int, body: bytes, count: int) -> tuple[list[float], list[float]]:
    """Seconds with the guard and without, in turns and each first as often; ten of each do not count."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    taken: dict[bool, list[float]] = {False: [], True: []}
    try:
        for at in range(count + 10):
            for bare in (False, True) if at % 2 else (True, False):
                one = seconds(line, body, bare=bare)
                if at >= 10:
                    taken[bare].append(one)
    finally:
        line.close()
    return taken[False], taken[True]


def rows(image: str, name: str, ours: Sequence[float], bare: Sequence[float]) -> Iterator[Row]:
    """The one row of a kind of request: medians."""
    measures = f"{name}, until it is answered: median of {len(ours)}"
    yield Row("guard-cost", measures, median(ours), median(bare), "s", "without the guard", image=image, headline=True)


def measure(tools: Workbench, variant: Variant) -> Iterator[Row]:
    """The rows of one image."""
    with tempfile.TemporaryDirectory(prefix="cardstock-bench-") as folder:
        model, own = Path(folder, "tiny"), Path(folder, "bench")
        write_checkpoint(model)
        own.mkdir()
        (own / "either.py").write_text(EITHER, encoding="ascii")
        Path(folder).chmod(0o755)
        rootfs = tools.checkout.root / "dockerfiles" / "rootfs" / "opt" / "cardstock"
        spec = server_spec(tools.image_name(variant), model, rootfs, ENV)
        with serving(tools, replace(spec, mounts=(*spec.mounts, Mount(str(own), "/bench")))):
            for name, body in bodies().items():
                yield from rows(tools.image_label(variant), name, *pairs(PORT, body, REQUESTS))


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("guard-cost", heavy="the built image for the CPU, three minutes")
    def measured() -> Iterable[Row]:
        tools = workbench(checkout)
        for variant in [one for one in tools.built() if one.cuda is None]:
            yield from measure(tools, variant)
