"""`invoke bench oracle`: audit and slim against NVIDIA's cuobjdump, on wheels of the package index.

The wheels are those of `WHEELS`, none of which the project has a record of, downloaded by pip; or those that lie in the
folder named by $CARDSTOCK_BENCH_WHEELS. Each file with device code is listed by both, entry by entry, as it came and
slimmed for one card. What differs is told with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.audit import ORACLE, cuobjdump
from bench.frame import bench
from bench.record import Row
from images.core import CardstockError, UsageError, process
from images.device_code.choose import parse_wanted
from images.device_code.fatbin import PTX, SASS, FatbinError, Library, read
from images.device_code.layout import SlimRefused
from images.device_code.slim import is_nvidia_name, slim_library
from images.device_code.sources import may_hold_code
from images.device_code.zip_bounds import check_directory, check_members
from images.render import Checkout

VARIABLE = "CARDSTOCK_BENCH_WHEELS"
WHEELS = (
    "bitsandbytes==0.45.5",
    "bitsandbytes==0.50.2",
    "ctranslate2==4.8.5",
    "cupy-cuda12x==14.2.0",
    "faiss-gpu-cu12==1.14.1.post1",
    "flashinfer-cubin==0.6.13",
    "jax-cuda12-pjrt==0.12.0.1",
    "nvidia-cufft-cu12==11.4.1.4",
    "nvidia-nccl-cu12==2.32.3",
    "nvidia-nvshmem-cu12==3.8.0",
    "onnxruntime-gpu==1.31.1",
    "sgl-kernel==0.3.21",
    "spconv-cu120==2.3.6",
    "torchaudio==2.6.0",
    "torchvision==0.29.2",
    "warp-lang==1.19.0",
    "xgboost==3.2.0",
)
CARD = "8.6"
_TAGS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_24", "manylinux_2_17", "manylinux2014", "manylinux1", "linux")
_LISTED = re.compile(r"^(ELF|PTX) file .*\.sm_(\d+)([af]?)\.\w+$", re.MULTILINE)
_CUBINS = 200  # of a folder with thousands of them, as many are compared, evenly chosen
_OWN_FAILURE = "cuobjdump stops in the middle of it (Invalid ELF)"

Listed = Counter[tuple[str, int, str]]


@dataclass
class Outcome:
    """One wheel: files and entries that agree, as they came and slimmed, and what differs with its reason."""

    wheel: str
    agree: int = 0
    entries: int = 0
    slimmed: int = 0
    differ: Counter[str] = field(default_factory=Counter)

    @property
    def files(self) -> int:
        """All that were compared."""
        return self.agree + self.differ.total()

    @property
    def text(self) -> str:
        """The row's first words."""
        reasons = "; ".join(f"{count} x {why}" for why, count in self.differ.most_common())
        said = f"{self.wheel}: {self.entries} entries, {self.slimmed} files slimmed for {CARD} and listed again"
        return f"{said}; differ: {reasons}" if reasons else said


def by_cuobjdump(program: Path, path: Path) -> Listed | None:
    """What cuobjdump lists in a file; None where it fails by itself."""
    command = [str(program), "--all-fatbin", "--list-elf", "--list-ptx", str(path)]
    result = process.run(command, check=False, timeout=600)
    if "Invalid ELF" in result.err:
        return None
    return Counter((kind, int(number), suffix) for kind, number, suffix in _LISTED.findall(result.out))


def by_us(found: Library) -> Listed:
    """The same as this project reads it: what cuobjdump looks at. It names no `f` for machine code."""
    entries = [
        entry
        for section in found.sections
        if not section.pooled
        for container in section.containers
        for entry in container.entries
    ]
    listed: Listed = Counter(("ELF", e.arch, e.suffix.replace("f", "")) for e in entries if e.kind == SASS)
    return listed + Counter(("PTX", e.arch, e.suffix) for e in entries if e.kind == PTX)


def compare(program: Path, path: Path, outcome: Outcome) -> None:
    """Both on one file, as it came and slimmed."""
    try:
        found = read(path)
    except FatbinError as error:
        outcome.differ[f"not read: {error.what}"] += 1
        return
    if not found.holds_code:
        return
    theirs, ours = by_cuobjdump(program, path), by_us(found)
    pooled = sum(len(one.entries) for section in found.sections if section.pooled for one in section.containers)
    if theirs is None:
        outcome.differ[_OWN_FAILURE] += 1
    elif theirs != ours:
        outcome.differ[f"ours {dict(ours - theirs)}, cuobjdump's {dict(theirs - ours)}"] += 1
    elif pooled:
        names = " ".join(sorted({section.name for section in found.sections if section.pooled}))
        outcome.differ[f"equal in .nv_fatbin; cuobjdump does not look into {names}, where {pooled} entries are"] += 1
    else:
        outcome.agree += 1
        outcome.entries += ours.total()
        if not is_nvidia_name(path.name):  # those are left as they are
            _slim(program, path, outcome)


def _slim(program: Path, path: Path, outcome: Outcome) -> None:
    try:
        report = slim_library(path, [parse_wanted(CARD)])
    except SlimRefused as error:
        outcome.differ[f"slim refuses it: {error.reason}"] += 1
        outcome.agree -= 1
        return
    if report is None or not report.changed:
        return
    if by_cuobjdump(program, path) == by_us(read(path)):
        outcome.slimmed += 1
    else:
        outcome.differ["slimmed, they list otherwise"] += 1
        outcome.agree -= 1


def measure_wheel(program: Path, wheel: Path, scratch: Path) -> Outcome:
    """Compare every file of a wheel, one unpacked at a time."""
    outcome = Outcome("-".join(wheel.name.split("-")[:2]))
    check_directory(wheel)
    with zipfile.ZipFile(wheel) as packed:
        check_members(packed)
        members = [one for one in packed.infolist() if not one.is_dir() and may_hold_code(one.filename)]
        cubins = [one for one in members if one.filename.endswith(".cubin")]
        passed_over = set(cubins) - set(cubins[:: -(-len(cubins) // _CUBINS) or 1])
        for member in members:
            if member in passed_over:
                continue
            path = scratch / Path(member.filename).name
            with packed.open(member) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            compare(program, path, outcome)
            path.unlink()
    return outcome


def download(pin: str, folder: Path) -> Path | None:
    """The wheel of a pin, by pip; None where the index does not have it."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    words += [word for tag in _TAGS for word in ("--platform", f"{tag}_x86_64")]
    before = set(folder.iterdir())
    try:
        process.run([*words, "--platform", "any", "--python-version", "3.11", "-d", str(folder), pin], timeout=900)
    except CardstockError:
        return None
    return next(iter(set(folder.iterdir()) - before), None)


def _wheels(scratch: Path) -> Iterator[tuple[str, Path | None]]:
    """Name and file of each wheel; a downloaded one is deleted after its turn."""
    if given := os.environ.get(VARIABLE):
        yield from ((path.name, path) for path in sorted(Path(given).glob("*.whl")))
        return
    for pin in WHEELS:
        path = download(pin, scratch)
        yield pin, path
        if path is not None:
            path.unlink()


def measure() -> Iterator[Row]:
    """A row for each wheel: how many of its files agree, of how many. Raises UsageError where cuobjdump is missing."""
    program = cuobjdump()
    if program is None:
        raise UsageError(f"bench oracle needs {ORACLE}", do=f"pip install {ORACLE}")
    with tempfile.TemporaryDirectory(prefix="bench-oracle-") as place:
        scratch, wheels = Path(place, "files"), Path(place, "wheels")
        scratch.mkdir()
        wheels.mkdir()
        for name, path in _wheels(wheels):
            if path is None:
                yield Row("oracle", name, None, None, "files", why="the index has no such wheel")
                continue
            found = measure_wheel(program, path, scratch)
            yield Row("oracle", found.text, found.agree, found.files, "files", "all that hold code")


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("oracle", heavy="2.5 GB of wheels of the package index, and minutes")
    def rows() -> Iterable[Row]:
        return list(measure())
