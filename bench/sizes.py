"""`invoke bench sizes`: what each built image weighs packed, against the same pins untouched, and what a second costs.

Untouched is what the same Dockerfile installs before anything is dropped: the layers of its stages `venv` and
`nvidia-whole`, and of the finished image those that hold neither. A kernel built for exactly these cards is counted
with the slimmed side only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile

from bench.frame import bench
from bench.layers import Packed, Sizes, total
from bench.record import Row
from bench.stages import UNTOUCHED, Workbench, workbench
from images.core import NothingSelected
from images.matrix import Variant
from images.render import Checkout

CACHE = "build/bench/layers.json"
_FORMS = {"zstd": "zstd", "gzip": "gzip", "tar": "unpacked"}


@dataclass(frozen=True)
class PackedImage:
    """One image: ``own`` are its layers base first, ``venv`` those of the stage that its environment begins with.

    ``nvidia`` are those of the stage with all of NVIDIA's wheels. ``image`` is its variant and the hash of its inputs,
    as `Row` has it.
    """

    variant: Variant
    own: Mapping[str, Packed]
    venv: Mapping[str, Packed]
    nvidia: Mapping[str, Packed]
    image: str = ""

    @property
    def of_nvidia(self) -> Packed:
        """NVIDIA's libraries: they stand on the operating system, as the untouched environment does in its stage."""
        return list(self.own.values())[len(self.venv) - 1]

    @property
    def of_nvidia_before(self) -> Packed:
        """The same with every file of theirs."""
        return list(self.nvidia.values())[-1]

    @property
    def after(self) -> Packed:
        """The whole image."""
        return total(self.own.values())

    @property
    def before(self) -> Packed:
        """The same pins untouched: instead of the image's environment the one that was installed."""
        kept = self.after - self.of_nvidia - total(self.environment)
        return kept + self.of_nvidia_before + list(self.venv.values())[-1]

    @property
    def environment(self) -> Sequence[Packed]:
        """The image's layers with its environment: behind NVIDIA's, and behind the compiler where Triton needs one."""
        jit = self.variant.backend == "vllm" and self.variant.cuda is not None
        first = len(self.venv) + jit
        return list(self.own.values())[first : first + (2 if self.variant.archs else 1)]


def bytes_to_fetch(second: Mapping[str, Packed], first: Mapping[str, Packed]) -> Packed:
    """What a host that has ``first`` fetches for ``second``: from the first layer on that differs."""
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))
    return total(list(second.values())[shared:])


def rows_of(images: Sequence[PackedImage]) -> Iterator[Row]:
    """Rows in MB: packed with slimming, the peer without; then the second card of each stack."""
    for one in images:
        parts = {
            "all": (one.after, one.before),
            "NVIDIA's libraries": (one.of_nvidia, one.of_nvidia_before),
            "the rest": (one.after - one.of_nvidia, one.before - one.of_nvidia_before),
        }
        for form in ("zstd", "gzip", "tar"):
            for what, sides in parts.items():
                after, before = (getattr(side, form) / 1e6 for side in sides)
                measures = f"{one.variant.id}: {what}, {_FORMS[form]}"
                shown = (what, form) == ("all", "zstd")
                yield Row("sizes", measures, after, before, "MB", "untouched", image=one.image, headline=shown)
    for first, second in combinations(images, 2):
        if (first.variant.lock, first.variant.attention) == (second.variant.lock, second.variant.attention):
            added = bytes_to_fetch(second.own, first.own)
            name = f"{second.variant.id} on a host with {first.variant.id}"
            for form in ("zstd", "gzip"):
                packed = getattr(added, form) / 1e6, getattr(second.after, form) / 1e6
                shown = form == "zstd"
                yield Row("sizes", f"{name}, {form}", *packed, "MB", "the whole", image=second.image, headline=shown)


def measure_images(bench: Workbench) -> list[PackedImage]:
    """Every variant that the engine has under its name; an environment no longer in the cache is installed again."""
    sizes = Sizes(bench.engine, bench.checkout.root / CACHE)
    measured = []
    for variant in bench.built():
        with bench.report.step(f"weigh {variant.id}"):
            before = []
            for stage in UNTOUCHED:
                with bench.stage(variant, stage) as reference:
                    before.append(sizes.of(reference))
            nvidia, venv = before
            measured.append(
                PackedImage(variant, sizes.of(bench.image_name(variant)), venv, nvidia, bench.image_label(variant))
            )
    return measured


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("sizes", heavy="built images, minutes for each layer not weighed before")
    def rows() -> Iterable[Row]:
        images = measure_images(workbench(checkout))
        if not images:
            raise NothingSelected("bench sizes weighs built images, and there are none", do="./inv build")
        return list(rows_of(images))
