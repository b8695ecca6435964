"""`invoke bench sizes --by package`: what each distribution of a built image weighs, unpacked and packed.

Each is packed by itself, so the sum differs a little from what the layers weigh: there, neighbours share a window. A
file that no RECORD and no package of Debian's names is weighed by the folder that it lies in.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from bench.frame import bench
from bench.layers import zstd_size
from bench.record import Row
from bench.stages import workbench
from images.core import CardstockError, Chunks, NothingSelected
from images.render import Checkout

# So many distributions have a row of their own; the others are one sum.
TOP = 60
DEBIAN, PYTHON, ROOTFS = "Debian", "Debian's Python", "this project's rootfs"
_RECORD = re.compile(r"(?P<site>.+/site-packages)/(?P<name>[^/]+)-[^/-]+\.dist-info/RECORD")
_DPKG = re.compile(r"var/lib/dpkg/info/(?P<name>[^/:]+)(?::[^/]+)?\.list")
_PYC = re.compile(r"(.+/)?__pycache__/([^/]+?)\.[^/]+\.pyc")
_BYTES_OF_A_LIST = 32 << 20


@dataclass(frozen=True)
class Weight:
    """What one distribution weighs: bytes of its files, of them packed, and how many files."""

    files: int = 0
    unpacked: int = 0
    zstd: int = 0

    def __add__(self, other: Weight) -> Weight:
        return Weight(self.files + other.files, self.unpacked + other.unpacked, self.zstd + other.zstd)


Export = Callable[[], AbstractContextManager[Iterator[bytes]]]
"""Gives an image's files as one tar, each time that it is called."""


def members(export: Export) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Each member, its name without a leading "/", and the archive to read it from before the next one is taken."""
    with export() as chunks, tarfile.open(fileobj=io.BufferedReader(Chunks(chunks), 1 << 20), mode="r|") as tar:
        for member in tar:
            member.name = member.name.lstrip("/")
            yield member, tar


def owners_of_files(export: Export) -> dict[str, str]:
    """Path without a leading "/" -> the distribution whose RECORD names it, or ``Debian: PACKAGE``.

    Raises CardstockError for a list that is larger than any real one.
    """
    owned: dict[str, str] = {}
    for member, tar in members(export):
        record, listed = _RECORD.fullmatch(member.name), _DPKG.fullmatch(member.name)
        if not (record or listed) or not member.isreg():
            continue
        if member.size > _BYTES_OF_A_LIST:
            raise CardstockError(f"{member.name} has {member.size} bytes: no list of a package's files is that long")
        stream = tar.extractfile(member)
        text = stream.read().decode("utf-8", "replace") if stream else ""
        if record:
            for row in csv.reader(io.StringIO(text)):
                if row:
                    owned[posixpath.normpath(posixpath.join(record["site"], row[0]))] = record["name"]
        elif listed:
            owner = f"{PYTHON if 'python3' in listed['name'] else DEBIAN}: {listed['name']}"
            owned.update((merged_usr(line.lstrip("/")), owner) for line in text.splitlines())
    return owned


def merged_usr(path: str) -> str:
    """Where a file of Debian's lies: /bin, /lib and /sbin are links into /usr, and its lists name either."""
    return f"usr/{path}" if path.split("/")[0] in {"bin", "sbin", "lib", "lib64"} else path


def owner_of(path: str, owned: Mapping[str, str]) -> str:
    """Whose a file is: its own row, that of the source which a .pyc is of, or the folder that it lies in."""
    found = owned.get(path)
    if found is None and (compiled := _PYC.fullmatch(path)):
        found = owned.get(f"{compiled[1] or ''}{compiled[2]}.py")
    if found is not None:
        return found
    if path.startswith("opt/cardstock/"):
        return ROOTFS
    depth = 6 if "/site-packages/" in path else 2
    return f"of no package: /{'/'.join(path.split('/')[:-1][:depth])}"


def weigh(export: Export, pack: Callable[[Path], int] = zstd_size) -> dict[str, Weight]:
    """Owner -> what its files weigh; ``pack`` gives the packed bytes of a tar.

    What is packed at once is a run of neighbours of one owner, as the tar has them: no more is on the disk at a time.
    """
    owned = owners_of_files(export)
    weights: dict[str, Weight] = {}
    files = ((member, tar) for member, tar in members(export) if not member.isdir())
    for owner, run in groupby(files, lambda pair: owner_of(pair[0].name, owned)):
        weights[owner] = weights.get(owner, Weight()) + _pack_run(run, pack)
    return weights


def _pack_run(run: Iterable[tuple[tarfile.TarInfo, tarfile.TarFile]], pack: Callable[[Path], int]) -> Weight:
    weight = Weight()
    with tempfile.TemporaryDirectory(prefix="cardstock-package-") as folder:
        file = Path(folder, "run.tar")
        with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as out:
            for member, tar in run:
                out.addfile(member, tar.extractfile(member) if member.isreg() else None)
                weight += Weight(1, member.size if member.isreg() else 0)
        return replace(weight, zstd=pack(file))


def largest(weights: Mapping[str, Weight], top: int) -> list[tuple[str, Weight]]:
    """Name and weight, largest packed first; those behind the first ``top`` are one sum at the end."""
    ordered = sorted(weights.items(), key=lambda pair: (-pair[1].zstd, pair[0]))
    rest = ordered[top:]
    if not rest:
        return ordered
    return [*ordered[:top], (f"the other {len(rest)}", sum((weight for _, weight in rest), Weight()))]


def rows_of(variant: str, image: str, weights: Mapping[str, Weight], top: int = TOP) -> Iterator[Row]:
    """Rows in MB, largest first: packed, beside what the same files are unpacked; the sum is the first."""
    whole = sum(weights.values(), Weight())
    for name, weight in [("all, each packed by itself", whole), *largest(weights, top)]:
        yield Row(
            "packages", f"{variant}: {name}", weight.zstd / 1e6, weight.unpacked / 1e6, "MB", "unpacked", image=image
        )


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("packages", heavy="built images, two minutes each: as `sizes --by package`")
    def rows() -> Sequence[Row]:
        work = workbench(checkout)
        found: list[Row] = []
        for variant in work.built():
            with work.report.step(f"weigh the packages of {variant.id}"):
                name = work.image_name(variant)
                weights = weigh(partial(work.engine.export_tar, name))
                found.extend(rows_of(variant.id, work.image_label(variant), weights))
        if not found:
            raise NothingSelected("bench sizes weighs built images, and there are none", do="./inv build")
        return found
