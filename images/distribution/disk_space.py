"""Whether the disks have room for a push, before the engine writes gigabytes to find out that they have not."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from images.core import CardstockError, human_bytes
from images.docker import Engine, ImageFacts

# A tar has a header of 512 bytes a file and fills its last block: 3% of the layers of these images. The rest is room.
_TAR = 1.1


@dataclass(frozen=True)
class Disk:
    """A disk that a push writes to: what lies there, its device (None where it cannot be known), its free bytes."""

    folder: str
    device: int | None
    free: int


def needed(size: int, largest: int) -> tuple[int, int]:
    """Bytes that a push needs in the engine's data folder and in the temporary one.

    ``size`` is the image's and ``largest`` its largest layer's, unpacked. An engine with the classic store saves an
    image whole into its data folder before it gives the first byte; here one layer at a time lies as a tar, and packed.
    """
    return int(size * _TAR), int(2 * largest * _TAR)


def check(engine: Engine, facts: ImageFacts) -> None:
    """Raise CardstockError where a disk has less free than pushing this image needs, as far as that is known."""
    wanted = needed(facts.size, max(engine.layer_sizes(facts.id), default=facts.size))
    refuse_small(facts.tags[0] if facts.tags else facts.id, wanted, _engine_disk(engine), _disk(tempfile.gettempdir()))


def refuse_small(name: str, wanted: tuple[int, int], engine: Disk | None, temporary: Disk | None) -> None:
    """As `check`, from what is known: a disk that holds both folders needs room for both."""
    theirs, here = wanted
    if engine and temporary and engine.device is not None and engine.device == temporary.device:
        engine, temporary, theirs = Disk(f"{engine.folder}, {temporary.folder}", None, engine.free), None, theirs + here
    for disk, need in ((engine, theirs), (temporary, here)):
        if disk and disk.free < need:
            raise CardstockError(
                f"the disk is too small to publish {name}: {human_bytes(need)} needed, {human_bytes(disk.free)} free",
                cause="the engine saves the image whole before it is packed, one layer at a time",
                do="free some space (./inv engine --prune), or set TMPDIR, for the layers, or CARDSTOCK_HOME, for the "
                "embedded engine, to a larger disk",
                where=disk.folder,
            )


def _engine_disk(engine: Engine) -> Disk | None:
    free, root = engine.free_bytes(), engine.host().root
    return None if free is None else Disk(root, _device(root), free)


def _disk(folder: str) -> Disk:
    return Disk(folder, _device(folder), shutil.disk_usage(folder).free)


def _device(folder: str) -> int | None:
    """The device of a folder, or of the nearest above it that may be looked at."""
    for path in (Path(folder), *Path(folder).parents):
        with suppress(OSError):
            return path.stat().st_dev
    return None
