"""`invoke bench start`: from a container's start to a healthy server, first with nothing, then with its own caches.

The server has the tiny checkpoint, so what is timed is what every model waits for: imports, and what an engine finds
out before it loads. By default the image for the CPU; $CARDSTOCK_BENCH_ONLY names others by a glob on variant ids.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

from bench.frame import bench
from bench.levels import chosen_variants, run_count
from bench.record import Row
from bench.stages import Workbench, workbench
from images.build import PYTHON_IN_IMAGE
from images.core import CheckFailed
from images.docker import RUN_LABEL, ContainerSpec, ContainerState, Engine, Mount
from images.matrix import Variant
from images.proof.smoke import Health, expect, start_arguments, unhealthy_text, why_not_served
from images.proof.tiny_model import write_checkpoint
from images.render import MODELS, Checkout

REPEATS = 3
LIMIT = 900.0  # seconds to get healthy
GRACE = 60  # seconds to end
INSIDE, PLACE = Path(__file__).with_name("imports_inside.py"), "/tmp/imports_inside.py"  # noqa: S108  (in a container)


class ContainerEngine(Protocol):
    """What of images.docker.containers.Containers is needed."""

    def start(self, spec: ContainerSpec, environment: Mapping[str, str]) -> None: ...
    def find(self, name: str) -> ContainerState | None: ...
    def log(self, name: str) -> str: ...
    def restart(self, name: str, seconds: int) -> None: ...
    def stop(self, name: str, seconds: int) -> ContainerState | None: ...
    def remove(self, name: str) -> None: ...


@dataclass(frozen=True)
class Clock:
    """Time, for tests to replace."""

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class StartTimes:
    """Seconds: the first start to healthy, its end after SIGTERM, a second start with the caches of the first."""

    first: float
    end: float
    again: float


def make_spec(name: str, image: str, model: Path) -> ContainerSpec:
    """The image's server with the model, read-only; what it caches goes to a volume of its own, as the image says."""
    return ContainerSpec(
        image,
        tuple(start_arguments(MODELS, "tiny")),
        name=name,
        env=(("HF_HUB_OFFLINE", "1"),),
        mounts=(Mount(str(model), MODELS),),
        shm=1,
        labels=((RUN_LABEL, name),),
    )


def seconds_to_healthy(containers: ContainerEngine, name: str, clock: Clock) -> float:
    """Seconds until it is. Raises CheckFailed, with the end of its log, where it does not get so."""
    began = clock.now()
    while True:
        state = containers.find(name)
        health, waited = Health.of(state.attributes if state else {}), clock.now() - began
        if health.verdict:
            return waited
        if health.verdict is False or waited > LIMIT:
            what, cause, do = unhealthy_text(health, containers.log(name), waited)
            raise CheckFailed(what, cause=cause, do=do)
        clock.sleep(0.25)


def measure_start(containers: ContainerEngine, image: str, model: Path, clock: Clock) -> StartTimes:
    """Start a container, end it, start it again; it is gone afterwards."""
    name = f"cardstock-bench-{uuid.uuid4().hex[:12]}"
    containers.start(make_spec(name, image, model), {})
    try:
        first = seconds_to_healthy(containers, name, clock)
        ending = clock.now()
        containers.stop(name, GRACE)
        ended = clock.now()
        containers.restart(name, GRACE)
        return StartTimes(first, ended - ending, seconds_to_healthy(containers, name, clock))
    finally:
        containers.remove(name)


@dataclass(frozen=True)
class ImportCost:
    """Of importing an image's server, as it imports it: processor seconds until torch is there, and until all is.

    ``modules`` are loaded then, and ``opened`` files were opened for them.
    """

    torch: float
    server: float
    modules: int
    opened: int = 0

    @property
    def ratio(self) -> float:
        """All to torch alone, in one process."""
        return self.server / self.torch


def rows(variant: str, image: str, starts: Sequence[StartTimes], imported: ImportCost) -> Iterator[Row]:
    """Medians of the starts, and what the imports cost."""
    first, again, end = (median(getattr(one, what) for one in starts) for what in ("first", "again", "end"))
    measures = f"{variant}: first start to healthy; runs: {len(starts)}"
    yield Row("start", measures, first, None, "s", image=image, headline=True)
    yield Row("start", f"{variant}: the next start, /cache kept", again, first, "s", "first start", image=image)
    cost = f"{variant}: importing the server, processor time"
    yield Row("start", cost, imported.server, imported.torch, "s", "torch alone", image=image)
    yield Row("start", f"{variant}: modules that the server imports", imported.modules, None, "modules", image=image)
    yield Row("start", f"{variant}: files opened for them", imported.opened, None, "files", image=image)
    yield Row("start", f"{variant}: from SIGTERM to its end", end, None, "s", image=image)


def import_cost(engine: Engine, image: str, backend: str) -> ImportCost:
    """In containers that do nothing else: the one of REPEATS with the least processor time, and files from one more."""

    def run(*words: str) -> dict[str, float]:
        files, program = {PLACE: INSIDE.read_bytes()}, [PLACE, backend, *words]
        ran = engine.run(image, program, entrypoint=[PYTHON_IN_IMAGE], files=files)
        return dict(json.loads(ran.out.splitlines()[-1]))

    best = min((run() for _ in range(REPEATS)), key=lambda told: told["server"])
    return ImportCost(best["torch"], best["server"], int(best["modules"]), int(run("count")["opened"]))


def measure(tools: Workbench, variant: Variant) -> Iterator[Row]:
    """The rows of one image."""
    image = tools.image_label(variant)
    if reason := why_not_served(expect(variant), gpus=False):
        yield Row("start", f"{variant.id}: first start to healthy", None, None, "s", why=reason, image=image)
        return
    with tempfile.TemporaryDirectory(prefix="cardstock-bench-") as folder:
        model = Path(folder, "tiny")
        write_checkpoint(model)
        Path(folder).chmod(0o755)
        made = [
            measure_start(tools.engine.containers, tools.image_name(variant), model, Clock())
            for _ in range(run_count())
        ]
    yield from rows(variant.id, image, made, import_cost(tools.engine, tools.image_name(variant), variant.backend))


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("start", heavy="the built image for the CPU, ten minutes")
    def measured() -> Iterable[Row]:
        tools = workbench(checkout)
        for variant in chosen_variants(tools):
            yield from measure(tools, variant)
