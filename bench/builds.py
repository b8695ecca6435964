"""`invoke bench noop` and `bench build`: a build with nothing to do, and three cards of a stack at once or in turn."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.frame import bench, medians
from bench.record import Row
from bench.stages import Workbench, workbench
from images.build import ImageState, state_of_image
from images.core import Layout, NothingSelected, Report, process, read_site
from images.docker import connect
from images.docker.embedded import daemon as embedded
from images.matrix import Variant, make_variants
from images.render import Checkout, target_name

# Three cards of one stack whose images need no compiler: what is measured is sharing, not nvcc.
CARDS = tuple(f"cu124-transformers5.24.0-sdpa-sm{arch}" for arch in ("75", "80", "86"))


def proven_variants(tools: Workbench) -> list[tuple[Variant, Path | None]]:
    """The built variants with nothing left to do, and the folder of their kernel's wheel (None without a kernel)."""
    proven = []
    for variant in tools.built():
        facts, wheel = tools.engine.inspect(tools.image_name(variant)), tools.wheel(variant)
        done = facts and state_of_image(tools.job(variant), facts.labels) is ImageState.PROVEN
        if done and (variant.kernel is None or wheel):
            proven.append((variant, wheel))
    return proven


def noop(tools: Workbench) -> Row:
    """A build of what is built, against bake on the same targets. Raises NothingSelected where nothing is built."""
    built = proven_variants(tools)
    if not built:
        raise NothingSelected("bench noop needs built images, and there are none", do="./inv build")
    names = {variant: f"cardstock/bench:{variant.id}" for variant, _ in built}
    wheels = {variant.id: str(wheel) for variant, wheel in built if wheel}
    ours = [str(tools.checkout.root / "inv"), "build", *(word for v in names for word in ("--only", v.id))]
    with tools.bake(names, wheels) as run:
        try:
            taken = medians(
                {"ours": lambda: process.run(ours, cwd=tools.checkout.root), "peer": run},
                repeats=3,
            )
        finally:
            for reference in names.values():
                tools.engine.untag(reference)
    measures = f"./inv build of {len(built)} images that are up to date: {', '.join(v.id for v in names)}"
    images = ", ".join(tools.image_label(variant) for variant in names)
    return Row("noop", measures, taken["ours"], taken["peer"], "s", "docker buildx bake", image=images, headline=True)


@contextmanager
def own_engine(checkout: Checkout, report: Report) -> Iterator[Workbench]:
    """A workbench with an engine of its own that has built nothing yet and is gone afterwards.

    Another engine's cache is neither used nor pushed out. Raises EngineUnreachable where no embedded engine can be.
    """
    layout = Layout(Path(tempfile.mkdtemp(prefix="cs-")))
    before = os.environ.get("DOCKER_HOST")
    try:
        os.environ["DOCKER_HOST"] = layout.endpoint
        engine = connect(layout, say=report.line)
        yield Workbench(checkout, checkout.matrix(), engine, read_site(checkout.root, os.environ), report)
    finally:
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before
        embedded.stop(layout)
        shutil.rmtree(layout.home)


@dataclass(frozen=True)
class BuildTimes:
    """Seconds of building several images: all ``at_once``, or each alone, ``in_turn``."""

    at_once: float
    in_turn: tuple[float, ...]

    def rows(self, how: str, machines: str) -> Iterator[Row]:
        """Against one after the other on the same machine, and against as many machines that share nothing."""
        count = len(self.in_turn)
        measures = f"{how}: {count} cards of cu124 sdpa at once"
        yield Row(
            "build", measures, self.at_once, sum(self.in_turn), "s", "one after the other", headline=how == "cold"
        )
        if machines:
            measures = f"{how}: {count} cards of cu124 sdpa at once, processor time of the machines"
            yield Row("build", measures, self.at_once, count * self.in_turn[0], "s", machines)


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call takes."""
    begun = clock()
    action()
    return clock() - begun


def at_once(tools: Workbench, variants: Sequence[Variant]) -> tuple[float, float]:
    """Seconds of building all in one bake: on an engine that has nothing, then the median of three with nothing new."""
    with tools.bake({variant: tools.image_name(variant) for variant in variants}, {}) as run:
        return seconds(run), median(seconds(run) for _ in range(3))


def in_turn(tools: Workbench, variants: Sequence[Variant]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The same, one bake for each."""
    with tools.bake({variant: tools.image_name(variant) for variant in variants}, {}) as run:
        targets = [target_name(variant.id) for variant in variants]
        cold = tuple(seconds(lambda one=one: run(targets=[one])) for one in targets)  # type: ignore[misc]
        warm = [tuple(seconds(lambda one=one: run(targets=[one])) for one in targets) for _ in range(3)]  # type: ignore[misc]
    return cold, tuple(median(times) for times in zip(*warm, strict=True))


def register(checkout: Checkout) -> None:
    """Make the benches known."""

    @bench("noop", heavy="built images")
    def nothing_to_do() -> Iterable[Row]:
        return [noop(workbench(checkout))]

    @bench("build", heavy="an engine of its own, 12 GB of disk, ten minutes")
    def three_cards() -> Iterable[Row]:
        report = Report()
        valid = make_variants(checkout.matrix()).valid
        variants = [valid[name] for name in CARDS]
        with own_engine(checkout, report) as tools:
            together, warm_together = at_once(tools, variants)
        with own_engine(checkout, report) as tools:
            each, warm_each = in_turn(tools, variants)
        yield from BuildTimes(together, each).rows("cold", "as many machines, each cold")
        yield from BuildTimes(warm_together, warm_each).rows("nothing new", "")
