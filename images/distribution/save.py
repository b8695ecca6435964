"""Images of the engine into a folder of pieces, for a machine that reaches no registry. Run again, it goes on.

Layers are packed first, each once, and kept in the folder until all pieces are written: the same packed bytes give the
same pieces, so those that are whole are not written a second time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from images.core import CardstockError, UsageError, hold, human_bytes, lock_path, write_atomically
from images.distribution import disk_space
from images.distribution.have import Have, common
from images.distribution.pieces import Fault, Stream, fault_of, write_pieces
from images.distribution.push import Layer, Packed, pack_zstd, saved
from images.distribution.saved import (
    SAVED_FILE,
    SUMS,
    Saved,
    SavedImage,
    SavedLayer,
    SavedPiece,
    members,
    read_saved,
    sums,
    tar_parts,
)
from images.docker import ImageFacts
from images.registry import digest_of_file

if TYPE_CHECKING:
    from images.docker import Engine

# Beyond what pushing takes, as these bytes are carried. Of 1.6 GB of layers of vLLM 0.33 on CUDA 13, level 3 leaves
# 816 MB, 7 793, 9 783, and 12, in more than twice the time of 9, 781.
ZSTD_LEVEL = 9
WORK = ".save"  # in the folder, until all is written
Say = Callable[[str], None]


@dataclass(frozen=True)
class ToSave:
    """An image to save: its variant's id, what the engine calls it, the names it has there, its archs, its evidence."""

    variant: str
    reference: str
    tags: tuple[str, ...]
    archs: tuple[str, ...]
    evidence: str


@dataclass(frozen=True)
class Wish:
    """What a folder is to hold: images with what the engine knows of them, how large pieces are, the layers to send."""

    images: tuple[tuple[ToSave, ImageFacts], ...]
    split: int
    sent: frozenset[str]

    @property
    def layers(self) -> list[str]:
        """Diff ids of all layers, each once."""
        return list(dict.fromkeys(diff for _, facts in self.images for diff in facts.layers))

    def is_met_by(self, there: Saved) -> bool:
        """Whether an index is of the same images, cut the same way, with the same layers left out."""
        same = [(one.id, one.tags) for one in there.images] == [(facts.id, one.tags) for one, facts in self.images]
        sent = frozenset(diff for diff, layer in there.layers.items() if layer.sent)
        return same and there.split == self.split and sent == self.sent


def make_wish(engine: Engine, images: Sequence[ToSave], split: int, have: Have | None) -> Wish:
    """What is to be saved of these images. Raises CardstockError for one that the engine has not, or cannot give."""
    if engine.keeps_what_came():
        raise _not_whole(images[0].reference)
    found = []
    for one in images:
        facts = engine.inspect(one.reference)
        if facts is None:
            raise CardstockError(f"the engine has no image {one.reference} any more")
        found.append((one, facts))
    chains = have.chains if have else ()
    sent = frozenset(diff for _, facts in found for diff in facts.layers[common(chains, facts.layers) :])
    return Wish(tuple(found), split, sent)


def save(engine: Engine, wish: Wish, folder: Path, say: Say = lambda _: None) -> Saved:
    """Write the pieces, the index and the list of digests into a folder; what is whole there already stays.

    Raises UsageError where the folder holds other images, CardstockError where a disk is too small or the engine does
    not give an image whole. Killed or broken off, the same again goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with hold(lock_path("save", str(folder.resolve())), f"what is saved into {folder}", say):
        if (folder / SAVED_FILE).exists():
            there = read_saved(folder)
            if not wish.is_met_by(there):
                raise _of_others(folder, there)
            faults = [fault for piece in there.plain_pieces() if (fault := fault_of(folder, piece))]
            if not faults:
                say(f"{len(there.pieces)} pieces are whole already")
                _finish(folder, there)
                return there
            say(f"to be written again: {', '.join(_words(fault) for fault in faults[:20])}")
        return _save(engine, wish, folder, say)


def _words(fault: Fault) -> str:
    return f"{fault.name} ({fault.why})"


def _of_others(folder: Path, there: Saved) -> UsageError:
    return UsageError(
        f"{folder} holds something else that was saved",
        cause=f"{', '.join(image.variant for image in there.images)}, in pieces of {there.split} bytes"
        + (", without layers that another machine has" if not all(one.sent for one in there.layers.values()) else ""),
        do="name an empty folder, or remove this one's files",
    )


def _save(engine: Engine, wish: Wish, folder: Path, say: Say) -> Saved:
    work = folder / WORK
    work.mkdir(exist_ok=True)
    packed = Packed(work)
    for one, facts in wish.images:
        _pack(engine, one, facts, wish.sent, packed, work, say)
    layers = {diff: _layer(packed, diff, diff in wish.sent) for diff in wish.layers}
    images = tuple(_image(one, facts, _configuration(packed, one, facts)) for one, facts in wish.images)
    blobs = {layers[diff].digest: work / _name(diff) for diff in wish.sent}
    blobs |= {facts.id: _configuration(packed, one, facts) for one, facts in wish.images}
    stream = Stream(tar_parts(members(images, layers), blobs))
    _check_room(folder, stream.size, wish.split)
    pieces = write_pieces(stream, folder, wish.split, say)
    written = Saved.model_validate(
        {
            "schema": 1,
            "images": images,
            "layers": layers,
            "split": wish.split,
            "pieces": tuple(SavedPiece(name=one.name, size=one.size, sha256=one.sha256) for one in pieces),
        }
    )
    write_atomically(folder / SAVED_FILE, written.to_json())
    _finish(folder, written)
    return written


def _finish(folder: Path, written: Saved) -> None:
    """What is left to do once pieces and index are there: the list for `sha256sum -c`; the packed layers go."""
    write_atomically(folder / SUMS, sums(written.plain_pieces(), (folder / SAVED_FILE).read_bytes()))
    shutil.rmtree(folder / WORK, ignore_errors=True)


def _image(one: ToSave, facts: ImageFacts, configuration: Path) -> SavedImage:
    return SavedImage(
        variant=one.variant,
        id=facts.id,
        configuration=configuration.stat().st_size,
        tags=one.tags,
        archs=one.archs,
        evidence=one.evidence,
        layers=facts.layers,
    )


def _name(diff_id: str) -> str:
    return diff_id.replace(":", "-") + ".zst"


def _layer(packed: Packed, diff_id: str, sent: bool) -> SavedLayer:
    """A layer that `_pack` has seen."""
    known = packed.layer(diff_id, "zstd")
    if known is None:
        raise KeyError(diff_id)
    digest, size = (known.digest, known.size) if sent else (diff_id, known.unpacked)
    return SavedLayer(digest=digest, size=size, unpacked=known.unpacked, sent=sent)


def _configuration(packed: Packed, one: ToSave, facts: ImageFacts) -> Path:
    path = packed.config(facts.id)
    if path is None:
        raise _not_whole(one.reference)
    return path


def _pack(
    engine: Engine, one: ToSave, facts: ImageFacts, sent: frozenset[str], packed: Packed, work: Path, say: Say
) -> None:
    """Have all of an image that is to be sent packed in the folder of the work, and its configuration.

    Of a layer that is not sent, its size is all that is wanted.
    """
    missing = {diff for diff in facts.layers if not _is_packed(packed, diff, work, sent=diff in sent)}
    wanted = missing | (set() if packed.config(facts.id) else {facts.id})
    if not wanted:
        return
    disk_space.check(engine, facts)
    for name, path in saved(partial(engine.save, one.reference), wanted, {*facts.layers, facts.id} - wanted):
        size = path.stat().st_size
        if name == facts.id:
            packed.add_config(name, path.read_bytes())
        elif name not in sent:
            packed.add(name, "zstd", Layer(name, size, size))
        else:
            out = work / _name(name)
            # Of this process alone: the zstd of a killed one may still be writing its own.
            part = out.with_suffix(f".{os.getpid()}")
            pack_zstd(path, part, ZSTD_LEVEL)
            layer = Layer(digest_of_file(part), part.stat().st_size, size)
            part.replace(out)
            packed.add(name, "zstd", layer)
            say(f"layer {name[7:19]}: {human_bytes(size)}, {human_bytes(layer.size)} as zstd")
        wanted.discard(name)
    if wanted:
        raise _not_whole(one.reference)


def _is_packed(packed: Packed, diff_id: str, work: Path, *, sent: bool) -> bool:
    known = packed.layer(diff_id, "zstd")
    if known is None or not sent:
        return known is not None
    path = work / _name(diff_id)
    return path.is_file() and path.stat().st_size == known.size and digest_of_file(path) == known.digest


def _not_whole(reference: str) -> CardstockError:
    return CardstockError(
        f"{reference} does not come out of the engine whole",
        cause="its configuration or a layer is missing in what the engine gives; an engine with the containerd store "
        "gives images in a form that is not read here",
        do="save from an engine with the classic store (the embedded one: unset DOCKER_HOST)",
    )


def _check_room(folder: Path, size: int, split: int) -> None:
    """Raise CardstockError where the disk has less free than the pieces still take."""
    there = sum(path.stat().st_size for path in folder.glob("piece-*.part"))
    need = max(0, size - there) + min(split, size)  # one that is written anew lies beside the old one
    disk = disk_space.disk_of(folder)
    if disk.free < need:
        raise CardstockError(
            f"the disk is too small for the pieces: {human_bytes(need)} needed, {human_bytes(disk.free)} free",
            cause="the packed layers lie beside them until all are written",
            do="free some space, or name a folder on a larger disk",
            where=str(folder),
        )
