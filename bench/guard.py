"""`invoke bench guard`: attacks on vLLM's own server, with the guard before it and without.

The image for the CPU serves the tiny checkpoint, with the checkout's own guard mounted into it, 6 GiB of memory and no
swap. Without the guard it starts as images did before there was one. A server that an attack ends is started anew.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.firing import Memory, fire
from bench.frame import bench
from bench.guard_attacks import ATTACKS, Attack, Target
from bench.record import Row
from bench.stages import Workbench, workbench
from bench.start import Clock, make_spec, seconds_to_healthy
from images.core import CardstockError, process
from images.docker import ContainerSpec, Mount, PublishedPort
from images.matrix import Variant
from images.proof.tiny_model import write_checkpoint
from images.render import Checkout

MEMORY = 6 * 2**30
PORT = 18_765
PATIENCE = 120.0
BARE = (("CARDSTOCK_GUARD", "off"), ("CARDSTOCK_DEFAULT_ARGS", '["--enforce-eager"]'))
# A file of a megabyte whose 64 frames have 8 megapixels each.
_VIDEO = """
import base64, cv2, numpy
path = "/tmp/attack.mp4"
out = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 1, (3840, 2160))
for _ in range(64):
    out.write(numpy.zeros((2160, 3840, 3), "uint8"))
out.release()
print(base64.b64encode(open(path, "rb").read()).decode())
"""


@dataclass(frozen=True)
class Side:
    """What an attack did to one server: seconds, the longest silence of /health, growth of memory in MB.

    ``ended``: the server did not outlive it; then the other figures are those of its last moment, or none.
    """

    seconds: float
    silence: float | None
    megabytes: float | None
    ended: bool = False


@dataclass(frozen=True)
class Server:
    """A server of the bench; ``pid`` of its API server, as this machine counts."""

    tools: Workbench
    spec: ContainerSpec
    pid: int
    video: bytes

    @property
    def target(self) -> Target:
        """What attacks are fired at."""
        return Target(PORT, "tiny", self.video, PATIENCE)

    def lives(self) -> bool:
        """Whether its container runs and answers."""
        state = self.tools.engine.containers.find(self.spec.name)
        return state is not None and state.status == "running" and self.target.get("/health").status == 200


def server_spec(image: str, model: Path, rootfs: Path, env: Sequence[tuple[str, str]]) -> ContainerSpec:
    """The container of one side."""
    spec = make_spec(f"cardstock-bench-{uuid.uuid4().hex[:12]}", image, model)
    return replace(
        spec,
        env=(*spec.env, *env),
        mounts=(*spec.mounts, Mount(str(rootfs), "/opt/cardstock")),
        ports=(PublishedPort(8000, PORT),),
        memory=MEMORY,
    )


@contextmanager
def serving(tools: Workbench, spec: ContainerSpec) -> Iterator[Server]:
    """Started, healthy, and gone afterwards. Raises CheckFailed."""
    import base64

    containers = tools.engine.containers
    containers.start(spec, {})
    try:
        seconds_to_healthy(containers, spec.name, Clock())
        code, told = containers.execute(spec.name, ["python", "-c", _VIDEO])
        video = base64.b64decode(told.strip().splitlines()[-1]) if code == 0 else b""
        state = containers.find(spec.name)
        first = int(state.attributes["State"]["Pid"]) if state else 0
        yield Server(tools, spec, api_server(first), video)
    finally:
        containers.remove(spec.name)


def api_server(first: int) -> int:
    """The first process of the container, or its child where that is tini."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
    return int(children[0]) if children and "tini" in Path(f"/proc/{first}/comm").read_text(encoding="ascii") else first


def attacked(server: Server, attack: Attack) -> Side:
    """Fire one attack and see what comes of it."""
    memory = Memory(lambda argv: process.run(argv).out, server.pid)
    begin = time.monotonic()
    try:
        fired = fire(PORT, memory, lambda: attack.fire(server.target))
    except (StopIteration, process.ProcessFailed, CardstockError):
        return Side(time.monotonic() - begin, None, None, ended=True)
    return Side(fired.seconds, fired.health.silence, fired.growth / 1e6, ended=not server.lives())


def all_attacks(tools: Workbench, spec: ContainerSpec) -> list[Side]:
    """Each attack on a server that is well."""
    sides: list[Side] = []
    while len(sides) < len(ATTACKS):
        named = replace(spec, name=f"cardstock-bench-{uuid.uuid4().hex[:12]}")
        with serving(tools, named) as server:
            for attack in ATTACKS[len(sides) :]:
                sides.append(attacked(server, attack))
                tools.report.line(f"{attack.name}: {sides[-1]}")
                if sides[-1].ended:
                    break
    return sides


def rows(image: str, ours: Sequence[Side], peers: Sequence[Side]) -> Iterator[Row]:
    """Three rows an attack."""
    against = "without the guard"
    for attack, with_it, without in zip(ATTACKS, ours, peers, strict=True):
        end = "; without the guard the server ends" if without.ended else ""
        name = f"{attack.name}{end}"
        yield Row("guard", f"{name}: until it is answered", with_it.seconds, without.seconds, "s", against, image=image)
        yield Row("guard", f"{name}: longest silence of /health", with_it.silence, without.silence, "s", against,
                  why="" if with_it.silence is not None else "the server ended", image=image)  # fmt: skip
        yield Row("guard", f"{name}: memory that it takes", with_it.megabytes, without.megabytes, "MB", against,
                  why="" if with_it.megabytes is not None else "the server ended", image=image)  # fmt: skip


def measure(tools: Workbench, variant: Variant) -> Iterator[Row]:
    """The rows of one image."""
    with tempfile.TemporaryDirectory(prefix="cardstock-bench-") as folder:
        model = Path(folder, "tiny")
        write_checkpoint(model)
        Path(folder).chmod(0o755)
        rootfs = tools.checkout.root / "dockerfiles" / "rootfs" / "opt" / "cardstock"
        image = tools.image_name(variant)
        ours = all_attacks(tools, server_spec(image, model, rootfs, ()))
        peers = all_attacks(tools, server_spec(image, model, rootfs, BARE))
    yield from rows(tools.image_label(variant), ours, peers)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("guard", heavy="the built image for the CPU, fifteen minutes")
    def measured() -> Iterable[Row]:
        tools = workbench(checkout)
        for variant in [one for one in tools.built() if one.cuda is None]:
            yield from measure(tools, variant)
