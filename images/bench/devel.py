"""The size of NVIDIA's devel image, from its manifest in the registry: nothing is pulled."""

from __future__ import annotations

from collections.abc import Callable

from images.errors import RegistryFailure
from images.matrix import Base
from images.registry import Manifest, Repository

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
        found = [one for one in manifest.content["manifests"] if _is_amd64(one.get("platform", {}))]
        if not found:
            raise RegistryFailure(f"{base.image} has nothing for linux/amd64")
        manifest = _manifest(repository, str(found[0]["digest"]))
    return sum(int(layer["size"]) for layer in manifest.content["layers"])


def _manifest(repository: Repository, reference: str) -> Manifest:
    manifest = repository.manifest(reference)
    if manifest is None:
        raise RegistryFailure(f"{repository.name} has no {reference}")
    return manifest


def _is_amd64(platform: dict[str, str]) -> bool:
    return (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")
