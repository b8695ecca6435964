"""`invoke bench devel`: images as pulled, against the same pins untouched on NVIDIA's devel base, by arithmetic.

The base is added up from its manifest in the registry, nothing is pulled; the images are those whose weight is kept
(`./inv bench sizes --record`). The devel base has NVIDIA's libraries of its own, and torch's wheels bring theirs all
the same; the operating system below the untouched pins, some 30 MB, is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from bench.frame import bench
from bench.record import FOLDER, BenchRecord, Row, read_records
from images.core import NothingSelected, RegistryFailure
from images.matrix import Base, Variant, make_variants
from images.registry import Manifest, Repository
from images.render import Checkout

HUB = "registry-1.docker.io"
_INDEXES = ("image.index", "manifest.list")


def repository_of(image: str) -> str:
    """Host and path of an image's name as docker reads it: "nvidia/cuda:12.4.1" is on the hub."""
    path = image.partition("@")[0]
    head, slash, tail = path.rpartition("/")
    path = head + slash + tail.partition(":")[0]
    first, _, rest = path.partition("/")
    if rest and (set(first) & set(".:") or first == "localhost"):
        return path
    return f"{HUB}/{path if rest else f'library/{path}'}"


def compressed_bytes(base: Base, open_repository: Callable[[str], Repository] = Repository) -> int:
    """What a pull of the image for x86-64 fetches. Raises RegistryFailure where its registry does not tell."""
    repository = open_repository(repository_of(base.image))
    reference = base.digest or base.image.rpartition(":")[2]
    manifest = _manifest(repository, reference)
    if any(word in manifest.media_type for word in _INDEXES):
        amd64 = [one for one in manifest.content["manifests"] if _is_amd64(one.get("platform", {}))]
        if not amd64:
            raise RegistryFailure(f"{base.image} has nothing for linux/amd64")
        manifest = _manifest(repository, str(amd64[0]["digest"]))
    return sum(int(layer["size"]) for layer in manifest.content["layers"])


def _manifest(repository: Repository, reference: str) -> Manifest:
    manifest = repository.manifest(reference)
    if manifest is None:
        raise RegistryFailure(f"{repository.name} has no {reference}")
    return manifest


def _is_amd64(platform: dict[str, str]) -> bool:
    return (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")


def rows_of(
    sizes: BenchRecord, variants: Mapping[str, Variant], bases: Mapping[str, Base], size: Callable[[Base], int]
) -> Iterator[Row]:
    """A row for each image that ``sizes`` has as gzip. ``bases`` are by CUDA version, ``size`` tells a base's bytes."""
    for one in sizes.rows:
        name, _, what = one.measures.partition(": ")
        variant = variants.get(name)
        if what != "all, gzip" or one.peer is None or variant is None or variant.cuda is None:
            continue
        base = bases[variant.cuda]
        try:
            peer: float | None = size(base) / 1e6 + one.peer
            against = f"untouched on {base.image}"
        except RegistryFailure as error:
            peer, against = None, f"untouched on {base.image}: not run, {error.what}"
        yield Row("devel", one.measures, one.ours, peer, "MB", against, image=one.image)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("devel", heavy="a registry that has NVIDIA's images")
    def rows() -> Iterable[Row]:
        kept = [record for record in read_records(checkout.root / FOLDER) if record.bench == "sizes"]
        if not kept:
            raise NothingSelected("no image's weight is kept", do="./inv bench sizes --record")
        matrix = checkout.matrix()
        return list(rows_of(kept[0], make_variants(matrix).valid, matrix.devel_images, compressed_bytes))
