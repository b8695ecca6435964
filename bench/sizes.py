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
from bench.layers import Packed, Sizes, layer_names, total
from bench.record import Row
from bench.stages import UNTOUCHED, Workbench, workbench
from images.core import NothingSelected, UsageError
from images.matrix import Variant
from images.render import LAYERS, Checkout

CACHE = "build/bench/layers.json"
# How engines know a layer again: by it and all below it, or by its own digest.
BY_DIGEST = "containerd's store"
STORES = ("classic store", BY_DIGEST)
_FORMS = {"zstd": "zstd", "gzip": "gzip", "tar": "unpacked"}


# What changes with the engine, where torch and NVIDIA's libraries stay.
_ABOVE_TORCH = ("rest", "card-torch", "card-rest", "rootfs", "plugin", "class-facts", "seal")
# Layers of an image's environment beside NVIDIA's libraries, by the names that the image gives them.
_ENVIRONMENT = ("torch", "triton", "rest", "card-torch", "card-rest")


def named_layers(told: str, own: Sequence[str]) -> dict[str, str]:
    """As `layer_names`. Raises UsageError for an image that does not name its layers, or names more than it has."""
    names = layer_names(told, own)
    if not names:
        raise UsageError(
            f"the image has {len(own)} layers and {len(told.split())} names for them",
            cause=f"{LAYERS}: {told!r}" if told else "it was built before images named their layers",
            do="build it again: ./inv build --only ID",
        )
    return names


@dataclass(frozen=True)
class PackedImage:
    """One image: ``own`` are its layers base first, ``venv`` those of the stage that its environment begins with.

    ``nvidia`` are those of the stage with all of NVIDIA's wheels. ``names`` are what the layers of ``own`` are, by
    diff id. ``image`` is its variant and the hash of its inputs, as `Row` has it. ``whole`` is the same image
    with every library of NVIDIA's, where one is built.
    """

    variant: Variant
    own: Mapping[str, Packed]
    venv: Mapping[str, Packed]
    nvidia: Mapping[str, Packed]
    names: Mapping[str, str]
    image: str = ""
    whole: Packed | None = None

    def of(self, *names: str) -> Packed:
        """The layers of these names together."""
        return total(packed for layer, packed in self.own.items() if self.names[layer] in names)

    @property
    def of_nvidia(self) -> Packed:
        """NVIDIA's libraries, and what stands in for some."""
        return self.of("libraries")

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
        kept = self.after - self.of_nvidia - self.of(*_ENVIRONMENT)
        return kept + self.of_nvidia_before + list(self.venv.values())[-1]


def bytes_to_fetch(second: Mapping[str, Packed], first: Mapping[str, Packed], *, by_digest: bool = False) -> Packed:
    """What a host that has ``first`` fetches for ``second``: from the first layer on that differs.

    So it is in docker's classic store, which knows a layer by all below it. ``by_digest``, as in the store of
    containerd: every layer that ``first`` has nowhere.
    """
    if by_digest:
        return total(packed for layer, packed in second.items() if layer not in first)
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
            if one.whole is not None:
                whole, name = getattr(one.whole, form) / 1e6, f"{one.variant.id}-whole: all, {_FORMS[form]}"
                yield Row("sizes", name, whole, getattr(one.before, form) / 1e6, "MB", "untouched", image=one.image)
    for one in images:
        yield from newer_engine(one)
    for first, second in combinations(images, 2):
        if first.variant.id != second.variant.id and share_torch(first, second):
            yield from second_image(first, second)


def newer_engine(one: PackedImage) -> Iterator[Row]:
    """What a host fetches of an image that has an older engine on the same torch: all that is not torch's and below.

    Reckoned from this image's layers: those of torch come out byte for byte the same of another lock with one torch
    (tests/engine/test_layers.py). The classic store fetches torch's part for the cards again, as it lies above.
    """
    above = {name: one.of(name) for name in _ABOVE_TORCH if name in one.names.values()}
    for store in STORES:
        fetched = total(packed for name, packed in above.items() if store != BY_DIGEST or name != "card-torch")
        name = f"{one.variant.id} on a host with an older engine on the same torch, {store}"
        for form in ("zstd", "gzip"):
            packed = getattr(fetched, form) / 1e6, getattr(one.after, form) / 1e6
            yield Row("sizes", f"{name}, {form}", *packed, "MB", "the whole", image=one.image)


def share_torch(first: PackedImage, second: PackedImage) -> bool:
    """Whether two images have the layers with NVIDIA's libraries and with torch in common."""
    of_both = [layer for layer in first.own if layer in second.own]
    return {"libraries", "torch"} <= {first.names[layer] for layer in of_both}


def second_image(first: PackedImage, second: PackedImage) -> Iterator[Row]:
    """What a host with the one fetches for the other, by each of the two ways that engines know layers."""
    one_stack = (first.variant.lock, first.variant.attention) == (second.variant.lock, second.variant.attention)
    for store in STORES:
        added = bytes_to_fetch(second.own, first.own, by_digest=store == BY_DIGEST)
        name = f"{second.variant.id} on a host with {first.variant.id}, {store}"
        for form in ("zstd", "gzip"):
            packed = getattr(added, form) / 1e6, getattr(second.after, form) / 1e6
            shown = form == "zstd" and one_stack and store != BY_DIGEST
            yield Row("sizes", f"{name}, {form}", *packed, "MB", "the whole", image=second.image, headline=shown)


def untouched_sizes(bench: Workbench, sizes: Sizes, variant: Variant, stage: str) -> dict[str, Packed]:
    """Of a stage with an untouched environment, which is installed once for the same inputs."""
    name = f"{stage} of {variant.id}@{bench.job(variant).input_hash}"
    if (kept := sizes.kept(name)) is not None:
        return kept
    with bench.stage(variant, stage) as reference:
        return sizes.keep(name, reference)


def measure_images(bench: Workbench) -> list[PackedImage]:
    """Every variant that the engine has under its name."""
    sizes = Sizes(bench.engine, bench.checkout.root / CACHE)
    measured = []
    for variant in bench.built():
        with bench.report.step(f"weigh {variant.id}"):
            nvidia, venv = (untouched_sizes(bench, sizes, variant, stage) for stage in UNTOUCHED)
            own = sizes.of(bench.image_name(variant))
            facts = bench.facts(variant)
            names = named_layers(facts.labels.get(LAYERS, ""), facts.layers) if facts else {}
            name = f"{bench.image_name(variant)}-whole"
            whole = total(sizes.of(name).values()) if bench.engine.inspect(name) else None
            measured.append(PackedImage(variant, own, venv, nvidia, names, bench.image_label(variant), whole))
    return measured


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("sizes", heavy="built images, minutes for each layer not weighed before")
    def rows() -> Iterable[Row]:
        images = measure_images(workbench(checkout))
        if not images:
            raise NothingSelected("bench sizes weighs built images, and there are none", do="./inv build")
        return list(rows_of(images))
