"""How large an image's layers are once packed: as gzip and as zstd, the two forms that registries keep."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from images.core import CardstockError, Chunks, UsageError, process, write_atomically

if TYPE_CHECKING:
    from images.docker import Engine

# Levels that pushing uses: docker's gzip writer takes 6, BuildKit's zstd 3.
GZIP_LEVEL, ZSTD_LEVEL = 6, 3
_CHUNK = 4 << 20
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Packed:
    """Bytes of one or more layers: as tar, and packed."""

    tar: int = 0
    gzip: int = 0
    zstd: int = 0

    def __add__(self, other: Packed) -> Packed:
        return Packed(self.tar + other.tar, self.gzip + other.gzip, self.zstd + other.zstd)

    def __sub__(self, other: Packed) -> Packed:
        return Packed(self.tar - other.tar, self.gzip - other.gzip, self.zstd - other.zstd)


def total(sizes: Iterable[Packed]) -> Packed:
    """Their sum."""
    return sum(sizes, Packed())


# A tar of nothing: the layer of a WORKDIR that was there already, which the label does not name.
EMPTY = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


def layer_names(told: str, layers: Sequence[str]) -> dict[str, str]:
    """Diff id to name of an image's ``layers``, base first, as its label ``told`` has the names of the topmost.

    What lies below the first named one has its name: the base is of "os". A layer of nothing on top has the name of
    the one below. Empty for no names, or more than layers.
    """
    names = told.split()
    named = [layer for layer in layers if layer != EMPTY]
    if not names or len(names) > len(named):
        return {}
    found = dict(zip(named, [names[0]] * (len(named) - len(names)) + names, strict=True))
    return found | {layer: names[-1] for layer in layers if layer == EMPTY}


class Sizes:
    """Sizes of layers by diff id, kept in ``file``: a layer is packed once, for its id is its content's hash.

    Without ``gzip`` the sizes as gzip are 0, which saves most of the time; such sizes want a file of their own.
    """

    def __init__(self, engine: Engine, file: Path, *, gzip: bool = True) -> None:
        self._engine = engine
        self._gzip = gzip
        self._file = file
        stored = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        self._known = {layer: Packed(**sizes) for layer, sizes in stored.items()}
        self._names = file.with_name(f"names-of-{file.name}")
        self._named: dict[str, list[str]] = json.loads(self._names.read_text()) if self._names.is_file() else {}

    def of(self, reference: str) -> dict[str, Packed]:
        """Diff id to sizes of an image's layers, base first. Raises CardstockError for a name the engine has not."""
        facts = self._engine.inspect(reference)
        if facts is None:
            raise CardstockError(f"the engine has no image {reference}")
        if set(facts.layers) - self._known.keys():
            saved = partial(self._engine.save, reference)
            for layer, sizes in packed_layers(saved, facts.layers, dict(self._known), gzip=self._gzip):
                self._known[layer] = sizes
                self._write()  # a large layer takes minutes: none is packed twice
        return {layer: self._known[layer] for layer in facts.layers}

    def kept(self, name: str) -> dict[str, Packed] | None:
        """What `of` gave for the image that it was told to keep by ``name``; None where it was not."""
        layers = self._named.get(name)
        return None if layers is None else {layer: self._known[layer] for layer in layers}

    def keep(self, name: str, reference: str) -> dict[str, Packed]:
        """As `of`; it is known by ``name`` from now on, also when the engine has the image no more."""
        sizes = self.of(reference)
        self._named[name] = list(sizes)
        write_atomically(self._names, json.dumps(self._named, indent=1) + "\n")
        return sizes

    def _write(self) -> None:
        known = {layer: vars(sizes) for layer, sizes in self._known.items()}
        write_atomically(self._file, json.dumps(known, indent=1) + "\n")


def packed_layers(
    save: Callable[[], AbstractContextManager[Iterable[bytes]]],
    layers: Iterable[str],
    known: Mapping[str, Packed],
    *,
    gzip: bool = True,
) -> Iterator[tuple[str, Packed]]:
    """Diff id and sizes of the ``layers`` not ``known``, out of the tar that ``save`` gives.

    Which member is which layer is seen from its hash, not from its name, which engines choose differently. Raises
    CardstockError where a layer does not come.
    """
    wanted = set(layers) - known.keys()
    with save() as chunks, tarfile.open(fileobj=io.BufferedReader(Chunks(iter(chunks)), 1 << 20), mode="r|") as tar:
        for member in tar:
            named = f"sha256:{member.name.rpartition('/')[2]}"
            stream = tar.extractfile(member) if member.isreg() and named not in known else None
            if stream is None or not wanted:
                continue
            layer, sizes = pack(stream, wanted, gzip=gzip)
            if sizes is not None:
                wanted.remove(layer)
                yield layer, sizes
    if wanted:
        raise CardstockError(f"{len(wanted)} layers did not come out of the engine", cause=", ".join(sorted(wanted)))


def pack(stream: IO[bytes], wanted: Iterable[str], *, gzip: bool = True) -> tuple[str, Packed | None]:
    """The diff id of a layer's tar, and its sizes if it is among ``wanted``."""
    with tempfile.TemporaryDirectory(prefix="cardstock-layer-") as folder:
        file = Path(folder, "layer")
        digest = hashlib.sha256()
        with file.open("wb") as out:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
        layer = f"sha256:{digest.hexdigest()}"
        if layer not in set(wanted):
            return layer, None
        return layer, Packed(file.stat().st_size, gzip_size(file) if gzip else 0, zstd_size(file))


def gzip_size(file: Path) -> int:
    """Bytes of the file as gzip."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    with file.open("rb") as source:
        size = sum(len(packer.compress(chunk)) for chunk in iter(lambda: source.read(_CHUNK), b""))
    return size + len(packer.flush())


def zstd_size(file: Path) -> int:
    """Bytes of the file as zstd. Raises UsageError where there is no program for it."""
    if shutil.which("zstd") is None:
        raise UsageError("sizes as zstd need the program zstd", do="apt-get install zstd")
    packed = file.with_suffix(".zst")
    process.run(["zstd", "-q", f"-{ZSTD_LEVEL}", "-o", str(packed), str(file)])
    size = packed.stat().st_size
    packed.unlink()
    return size
