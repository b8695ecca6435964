"""Whether the disks have room for what is to be done, before gigabytes are written to find out that they have not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from images.core import CardstockError, human_bytes, work_root
from images.docker import Engine, ImageFacts

# A tar has a header of 512 bytes a file and fills its last block: 3% of the layers of these images. The rest is room.
_TAR = 1.1


@dataclass(frozen=True)
class Disk:
    """A disk that is written to: what lies there, its device (None where it cannot be known), its free bytes."""

    folder: str
    device: int | None
    free: int


def needed(size: int, largest: int) -> tuple[int, int]:
    """Bytes that a push needs in the engine's data folder and in the state folder.

    ``size`` is the image's and ``largest`` its largest layer's, unpacked. An engine with the classic store saves an
    image whole into its data folder before it gives the first byte; here one layer at a time lies as a tar, and packed.
    """
    return int(size * _TAR), int(2 * largest * _TAR)


def check(engine: Engine, facts: ImageFacts) -> None:
    """Raise CardstockError where a disk has less free than pushing this image needs, as far as that is known."""
    wanted = needed(facts.size, max(engine.layer_sizes(facts.id), default=facts.size))
    refuse_small(facts.tags[0] if facts.tags else facts.id, wanted, _engine_disk(engine), disk_of(work_root()))


def refuse_small(name: str, wanted: tuple[int, int], engine: Disk | None, work: Disk | None) -> None:
    """As `check`, from what is known: a disk that holds both folders needs room for both."""
    if short := short_of([(engine, wanted[0]), (work, wanted[1])]):
        disk, need = short
        raise CardstockError(
            f"the disk is too small to publish {name}: {human_bytes(need)} needed, {human_bytes(disk.free)} free",
            cause="the engine saves the image whole before it is packed, one layer at a time",
            do="free some space (./inv engine --prune), or set CARDSTOCK_HOME, for the layers and the embedded "
            "engine, to a larger disk",
            where=disk.folder,
        )


def short_of(needs: Sequence[tuple[Disk | None, int]]) -> tuple[Disk, int] | None:
    """The first disk that has less free than is needed of it, and how much that is; folders on one disk add up."""
    totals: dict[object, tuple[Disk, int]] = {}
    for disk, need in needs:
        if disk is None or not need:
            continue
        key: object = disk.device if disk.device is not None else disk.folder
        before = totals.get(key)
        if before is not None:
            folder, free = f"{before[0].folder}, {disk.folder}", min(before[0].free, disk.free)
            disk, need = Disk(folder, disk.device, free), before[1] + need
        totals[key] = (disk, need)
    return next(((disk, need) for disk, need in totals.values() if disk.free < need), None)


def _engine_disk(engine: Engine) -> Disk | None:
    free, root = engine.free_bytes(), engine.host().root
    return None if free is None else Disk(root, device_of(root), free)


def disk_of(folder: Path) -> Disk:
    """The disk that a folder lies on, or will lie on once it is made."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return Disk(str(folder), device_of(str(there)), shutil.disk_usage(there).free)


def device_of(folder: str) -> int | None:
    """The device of a folder, or of the nearest above it that may be looked at."""
    for path in (Path(folder), *Path(folder).parents):
        with suppress(OSError):
            return path.stat().st_dev
    return None
