"""From the engine to a registry by digest alone: no tag is written, so none can name what is not proven yet.

An engine with the classic store can push neither by digest nor as zstd (`docker buildx` accepts the options and pushes
gzip under a tag), so the layers are packed here, out of what the engine saves. A layer is packed once for each
machine; the registry is asked for it before a byte is sent.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from images.core import CardstockError, Chunks, UsageError, hold, human_bytes, process, work_folder, write_atomically
from images.docker import ImageFacts
from images.registry import (
    CONFIG,
    Blob,
    Packing,
    RemoteImage,
    Repository,
    digest_of,
    digest_of_file,
    layer_type,
    make_manifest,
)

GZIP_LEVEL, ZSTD_LEVEL = 6, 3
_CHUNK = 4 << 20
_GZIP = 16 + zlib.MAX_WBITS
Say = Callable[[str], None]
Save = Callable[[], AbstractContextManager[Iterable[bytes]]]


@dataclass(frozen=True)
class Layer:
    """A layer packed once: its digest and size as packed, and its size as a tar, in bytes."""

    digest: str
    size: int
    unpacked: int


@dataclass(frozen=True)
class Pushed:
    """An image that a registry has whole: its manifest's and configuration's digests, its layers, base first."""

    digest: str
    config: str
    layers: tuple[Layer, ...]


class Packed:
    """What is known of layers packed on this machine, in a folder: diff id and packing -> `Layer`; configurations."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "layers.json"
        self._layers = _read(self._file)

    def layer(self, diff_id: str, packing: Packing) -> Layer | None:
        """The layer, if it was packed before."""
        return self._layers.get(f"{packing} {diff_id}")

    def add(self, diff_id: str, packing: Packing, layer: Layer) -> None:
        """Keep it, at once and whole, beside what other runs have kept meanwhile."""
        with hold(self._folder / ".lock", "the list of packed layers"):
            self._layers = {**_read(self._file), **self._layers, f"{packing} {diff_id}": layer}
            write_atomically(self._file, json.dumps({key: asdict(one) for key, one in self._layers.items()}, indent=1))

    def config(self, digest: str) -> Path | None:
        """An image's configuration, its bytes checked."""
        path = self._folder / digest.replace(":", "-")
        return path if path.is_file() and digest_of_file(path) == digest else None

    def add_config(self, digest: str, content: bytes) -> None:
        """Keep it."""
        write_atomically(self._folder / digest.replace(":", "-"), content.decode())


def _read(file: Path) -> dict[str, Layer]:
    """What is known, of a file that is there and whole; what cannot be read is packed again."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {str(key): Layer(**value) for key, value in told.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def push(
    facts: ImageFacts, save: Save, repository: Repository, packing: Packing, packed: Packed, say: Say = lambda _: None
) -> Pushed:
    """Bring an image of the engine into a repository, and name it by its digest alone.

    ``save`` gives the image as `docker save` does. Raises RegistryFailure when the registry stays broken: run again, it
    goes on with what is not there yet.
    """
    known = {diff: packed.layer(diff, packing) for diff in facts.layers}
    missing = {diff for diff, layer in known.items() if layer is None or not repository.has_blob(layer.digest)}
    config = packed.config(facts.id)
    if missing or config is None:
        wanted = missing | (set() if config else {facts.id})
        for name, path in saved(save, wanted, {*facts.layers, facts.id} - wanted):
            if name == facts.id:
                packed.add_config(name, path.read_bytes())
            else:
                _push_layer(name, path, repository, packing, packed, say)
        config = packed.config(facts.id)
    layers = tuple(layer for diff in facts.layers if (layer := packed.layer(diff, packing)))
    if config is None or len(layers) != len(facts.layers):
        raise CardstockError(
            f"the image {facts.id} did not come out of the engine whole",
            cause="its configuration or a layer is missing in what the engine saved; an engine with the containerd "
            "store saves images in a form that is not read here",
            do="publish from an engine with the classic store (the embedded one: unset DOCKER_HOST)",
        )
    repository.upload(config, facts.id)
    raw = make_manifest(
        Blob(CONFIG, facts.id, config.stat().st_size),
        [Blob(layer_type(packing), layer.digest, layer.size) for layer in layers],
    )
    return Pushed(repository.put_manifest(raw, digest_of(raw)), facts.id, layers)


def remember(packed: Packed, packing: Packing, image: RemoteImage, unpacked: Iterable[int]) -> None:
    """What a builder has pushed need not be packed here: layers, with their sizes ``unpacked``, and configuration.

    Unless it packed them in another way than is published: then nothing is taken from it.
    """
    if any(layer.media_type != layer_type(packing) for layer in image.layers):
        return
    for diff, layer, size in zip(image.diff_ids, image.layers, unpacked, strict=True):
        packed.add(diff, packing, Layer(layer.digest, layer.size, size))
    packed.add_config(image.config, image.configuration)


def _push_layer(diff_id: str, path: Path, repository: Repository, packing: Packing, packed: Packed, say: Say) -> None:
    out = path.with_suffix(".packed")
    try:
        (_gzip if packing == "gzip" else pack_zstd)(path, out)
        layer = Layer(digest_of_file(out), out.stat().st_size, path.stat().st_size)
        say(f"layer {diff_id[7:19]}: {human_bytes(layer.unpacked)}, {human_bytes(layer.size)} as {packing}")
        repository.upload(out, layer.digest)
        packed.add(diff_id, packing, layer)
    finally:
        out.unlink(missing_ok=True)


def saved(save: Save, wanted: Iterable[str], others: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """The ``wanted`` members of a saved image, by the digest of their bytes, each as a file for as long as it is looked
    at. ``others`` are digests that need not be looked at where a member is named by its digest.

    What a member is, is seen from its bytes: engines name them differently.
    """
    left, skip = set(wanted), set(others)
    with save() as chunks, tarfile.open(fileobj=io.BufferedReader(Chunks(iter(chunks)), 1 << 20), mode="r|") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is None or f"sha256:{member.name.rpartition('/')[2]}" in skip or not left:
                continue
            with _spooled(stream) as (digest, path):
                if digest in left:
                    left.remove(digest)
                    yield digest, path


@contextmanager
def _spooled(stream: IO[bytes]) -> Iterator[tuple[str, Path]]:
    with work_folder("push") as folder:
        path, digest = folder / "layer", hashlib.sha256()
        with path.open("wb") as out:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
        yield f"sha256:{digest.hexdigest()}", path


def _gzip(path: Path, out: Path) -> None:
    """As gzip on all cores: one member for each piece, without a time, so that the same layer gives the same bytes."""
    cores = os.cpu_count() or 1
    with path.open("rb") as source, out.open("wb") as target, ThreadPoolExecutor(cores) as pool:
        pieces = [source.read(_CHUNK)]  # an empty layer is one empty piece
        while pieces:
            for packed in pool.map(_member, pieces):
                target.write(packed)
            pieces = [piece for _ in range(2 * cores) if (piece := source.read(_CHUNK))]


def _member(piece: bytes) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(piece) + packer.flush()


def pack_zstd(path: Path, out: Path, level: int = ZSTD_LEVEL) -> None:
    """As zstd on all cores. Raises UsageError where the program is missing."""
    if shutil.which("zstd") is None:
        raise UsageError("layers as zstd need the program zstd", do="apt-get install zstd")
    process.run(["zstd", "-q", "-f", "-T0", f"-{level}", "-o", str(out), str(path)])


def sizes(layers: Iterable[Layer]) -> Mapping[str, int]:
    """Packed size by digest."""
    return {layer.digest: layer.size for layer in layers}
