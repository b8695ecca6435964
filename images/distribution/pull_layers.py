"""Pulling an image layer by layer onto the disk, and from there into the engine: what came stays, also after a crash.

An engine with the classic store drops every layer of a pull that fails (tried with 26.1: the next pull fetches them all
again), and these images have layers of gigabytes. So the engine's own pull comes first, which is parallel, and what it
could not finish goes on here: a layer that broke off goes on at its last byte, in this run or in another.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from images.catalogue import PublishedImage
from images.core import CardstockError, LockTimeout, RegistryFailure, Unsafe, bytes_below, hold, human_bytes, lock_path
from images.distribution.disk_space import Disk, device_of, disk_of, short_of
from images.distribution.have import common
from images.distribution.push import Say
from images.registry import Blob, RemoteImage, Repository, digest_of_file, read_image
from images.render import VARIANT

if TYPE_CHECKING:
    from images.docker import Engine

_CHUNK = 4 << 20
# Below the state folder: what pulls left that did not end.
PULLED = "pulled"


@dataclass(frozen=True)
class Started:
    """The folder of a pull that was begun, below ``home``: it is there until the image is in the engine."""

    home: Path
    digest: str

    @property
    def folder(self) -> Path:
        """Holds the layers that came, whole or in part."""
        return self.home / self.digest.replace(":", "-")

    @property
    def before(self) -> bool:
        """Whether an earlier run began it and did not end it."""
        return self.folder.is_dir()

    def bytes_of(self, layers: Iterable[Blob]) -> int:
        """Bytes of these layers that have come already, whole or in part."""
        size = 0
        for layer in layers:
            path = self.folder / layer.digest.replace(":", "-")
            for one in (path, path.with_name(f".{path.name}.part")):
                size += one.stat().st_size if one.is_file() else 0
        return size

    def begin(self) -> None:
        """From now on it is begun."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def end(self) -> None:
        """Nothing of it is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def alone(self, what: str, say: Say) -> AbstractContextManager[bool]:
        """Hold it, so that one pulls and others wait; whether it had to be waited for."""
        return hold(_lock(self.home, self.folder.name), f"the pull of {what}", say)


def _lock(home: Path, name: str) -> Path:
    return lock_path("pull", name, home.parent)


def drop_left(home: Path, say: Say = lambda _: None) -> int:
    """Drop what pulls left that did not end, below ``home``, but for those that are under way; bytes."""
    dropped = 0
    for folder in sorted(home.iterdir()) if home.is_dir() else []:
        try:
            with hold(_lock(home, folder.name), "a pull", seconds=0):
                dropped += bytes_below(folder)
                shutil.rmtree(folder, ignore_errors=True)
        except LockTimeout as busy:
            say(f"left as it is: {folder}: {busy.holder} pulls it")
    return dropped


def fetch(engine: Engine, repository: Repository, image: PublishedImage, started: Started, say: Say) -> str:
    """Bring a verified image into the engine out of its layers, each by digest; its id.

    Raises RegistryFailure where the registry stays broken: what came is kept, and the same again goes on. Unsafe where
    something else came.
    """
    found = _remote(repository, image)
    there = _there(engine, found.diff_ids)
    if there:
        say(f"{there} of {len(found.layers)} layers are in the engine")
    files: list[Path | None] = [None] * there
    for layer in found.layers[there:]:
        files.append(_layer(repository, layer, started.folder, say))
    engine.load(_archive(found, files))
    if engine.inspect(found.config) is None:
        raise Unsafe(
            f"{repository.name}@{image.digest}: the engine made another image of its layers",
            cause=f"it has none of the id {found.config}",
            do="do not use it; tell whoever publishes it",
        )
    return found.config


def check_disk_space(
    engine: Engine,
    repository: Repository,
    image: PublishedImage,
    started: Started | None = None,
    *,
    layered: bool = False,
) -> None:
    """Raise CardstockError where a disk has less free than pulling this image takes, as far as is known.

    The engine's own pull takes what it lacks of the layers, packed as they come and unpacked as they stay. One that
    goes on layer by layer (``layered``) has the packed layers in the folder of ``started`` as well, without those that
    lie there already; the engine is then given them once more, as it loads them.
    """
    free = engine.free_bytes()
    found = _remote(repository, image)
    missing = found.layers[_there(engine, found.diff_ids) :]
    lacking = sum(layer.size for layer in missing)
    need = lacking + image.unpacked * lacking // max(1, image.compressed)
    where = engine.layers_folder() if layered else ""
    engine_disk = None if free is None else Disk(where or engine.endpoint, device_of(where) if where else None, free)
    needs = [(engine_disk, need)]
    if started is not None and layered:
        needs.append((disk_of(started.folder), max(0, lacking - started.bytes_of(missing))))
    if short := short_of(needs):
        disk, wanted = short
        lying = _lying(started)
        raise CardstockError(
            f"the disk is too small for {image.variant}: {human_bytes(wanted)} needed, {human_bytes(disk.free)} free",
            cause="; ".join(["its layers come packed, and are unpacked beside that", *lying]),
            do="free some space (./inv engine --prune"
            + (" drops what earlier pulls left)" if lying else ")")
            + ", or set CARDSTOCK_HOME, for the embedded engine and for what is pulled, to a larger disk",
            where=disk.folder,
        )


def _lying(started: Started | None) -> list[str]:
    """What of earlier pulls lies in the state folder, in words."""
    size = bytes_below(started.home) if started is not None and started.home.is_dir() else 0
    return [f"{human_bytes(size)} of pulls that did not end lie in {started.home}"] if started and size else []


def _remote(repository: Repository, image: PublishedImage) -> RemoteImage:
    found = read_image(repository, image.digest)
    if found is None:
        raise RegistryFailure(f"{repository.name} has no {image.digest} any more", do="run the same again later")
    return found


def _there(engine: Engine, diff_ids: Sequence[str]) -> int:
    """How many layers, from the base on, some image of the engine has already."""
    return common([facts.layers for facts in engine.images(VARIANT)], diff_ids)


def _layer(repository: Repository, layer: Blob, folder: Path, say: Say) -> Path:
    path = folder / layer.digest.replace(":", "-")
    if not (path.is_file() and digest_of_file(path) == layer.digest):
        say(f"layer {layer.digest[7:19]}: {human_bytes(layer.size)}")
        repository.download(layer, path, keep=True)
    return path


def _archive(found: RemoteImage, files: Sequence[Path | None]) -> Iterator[bytes]:
    """An image as `docker load` takes it; a layer that the engine has (None) is named and not sent."""
    name = f"{found.config.removeprefix('sha256:')}.json"
    names = [diff.removeprefix("sha256:") for diff in found.diff_ids]
    listed = [{"Config": name, "RepoTags": [], "Layers": names}]
    yield from _member(name, len(found.configuration), [found.configuration])
    yield from _member("manifest.json", len(told := json.dumps(listed).encode()), [told])
    for layer, path in zip(names, files, strict=True):
        if path is not None:
            yield from _member(layer, path.stat().st_size, _chunks(path))
    yield b"\0" * 1024


def _member(name: str, size: int, content: Iterable[bytes]) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = size
    yield entry.tobuf()
    yield from content
    yield b"\0" * (-size % 512)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
