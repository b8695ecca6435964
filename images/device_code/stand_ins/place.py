"""Put stand-ins in the place of libraries of one installation, and delete what nothing needs any more."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from images.device_code.distributions import Distribution, distributions, forget
from images.device_code.dynamic import read_dynamic
from images.device_code.elf import FatbinError
from images.device_code.record import begin_part, file_hash, keep_attributes
from images.device_code.stand_ins.compiler import check_product, compile_stand_in
from images.device_code.stand_ins.made import DISTRIBUTION, LIST, Gone, Made, StandIn, dumps, folders
from images.device_code.stand_ins.names import StandInError, choose
from images.device_code.stand_ins.source import source, version_script
from images.device_code.unused import matching, remove_empty

_CHUNK = 1 << 20
_LONGEST_USE = 200


@dataclass(frozen=True)
class Wish:
    """Libraries to stand in for: a glob below site-packages ("*" also crosses folders), and what they are used for."""

    glob: str
    used_for: str


def make(site: Path, wishes: Sequence[Wish], gone: Sequence[str], version: str) -> Made:
    """Make and place the stand-ins, delete what the globs of ``gone`` name; ``version`` is Cardstock's.

    Everything is made and checked before the first file is changed. Raises StandInError for a glob without a match, for
    a library that is damaged or that nothing can stand in for, and where there are stand-ins already; RecordError,
    OSError.
    """
    site = site.resolve(strict=True)
    if folders(site):
        raise StandInError(f"{site} has stand-ins already: begin with the packages as they came")
    targets = _targets(site, wishes, gone)
    wheels = distributions(site)
    with TemporaryDirectory() as folder:
        made: list[tuple[Path, StandIn, Path]] = []
        deleted: list[Gone] = []
        for path, use in targets.items():
            owner = next((one for one in wheels if path in one.rows), None)
            name = path.relative_to(site).as_posix()
            if use:
                work = Path(folder, str(len(made)))
                work.mkdir()
                try:
                    made.append((path, *_make_one(path, name, use, owner, work)))
                except (StandInError, FatbinError, ValueError) as error:
                    raise StandInError(f"{name}: {error}") from error
            else:
                deleted.append(Gone(name, path.stat().st_size, _sha256(path), owner.name if owner else ""))
        for path, _, product in made:
            _replace(path, product)
    for one in deleted:
        (site / one.file).unlink()
    emptied = forget(site, wheels, targets)
    remove_empty(site, [site / one.file for one in deleted])
    found = Made(
        tuple(one for _, one, _ in made), tuple(deleted), tuple(f"{one.name} {one.version}" for one in emptied)
    )
    _write_distribution(site, found, version)
    return found


def _targets(site: Path, wishes: Sequence[Wish], gone: Sequence[str]) -> dict[Path, str]:
    """Each file that a glob names, by name, with what it is used for: "" for one that goes."""
    found: dict[Path, str] = {}
    for glob, use in (*((one.glob, one.used_for) for one in wishes), *((glob, "") for glob in gone)):
        matches = sorted({_followed(site, path) for path in matching(site, [glob])})
        if not matches:
            raise StandInError(f"no file below {site} matches {glob!r}")
        for path in matches:
            if path in found and (use or found[path]):
                raise StandInError(f"{path.relative_to(site)} is named twice, by {glob!r} and before it")
            found[path] = use
    return dict(sorted(found.items()))


def _followed(site: Path, path: Path) -> Path:
    """The regular file that is meant: a link is followed once, and must stay inside."""
    target = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path
    if target.is_symlink() or not target.is_file() or site not in target.resolve().parents:
        raise StandInError(f"{path.relative_to(site)} leads to no regular file below {site}")
    return target


def _make_one(path: Path, name: str, use: str, owner: Distribution | None, work: Path) -> tuple[StandIn, Path]:
    if not use.strip() or len(use) > _LONGEST_USE or not use.isprintable():
        raise StandInError(f"what it is used for must be one line of at most {_LONGEST_USE} letters, not {use!r}")
    with _mapped(path) as view:
        real = read_dynamic(view)
    if real is None:
        raise StandInError("it is no shared library")
    chosen = choose(real)
    text = source(chosen, use, owner.numbers if owner else ())
    product = compile_stand_in(work, chosen.soname, text, version_script(chosen))
    check_product(product, real, chosen)
    made = StandIn(
        file=name,
        soname=chosen.soname,
        used_for=use,
        functions=len(chosen.functions),
        left_out=dict(chosen.left_out),
        size=product.stat().st_size,
        sha256=_sha256(product),
        real_size=path.stat().st_size,
        real_sha256=_sha256(path),
        distribution=owner.name if owner else "",
    )
    return made, product


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    with path.open("rb") as file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            yield view


def _replace(path: Path, product: Path) -> None:
    """Put ``product`` in the place of ``path``, whole or not at all; mode, owner and attributes stay."""
    descriptor, part = begin_part(path)
    try:
        with os.fdopen(descriptor, "wb") as file, path.open("rb") as old:
            file.write(product.read_bytes())
            file.flush()
            keep_attributes(old.fileno(), file.fileno())
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _write_distribution(site: Path, made: Made, version: str) -> None:
    folder = site / f"{DISTRIBUTION.replace('-', '_')}-{version}.dist-info"
    lines = [f"- {one.soname}: {one.used_for}" for one in made.stand_ins]
    metadata = (
        f"Metadata-Version: 2.4\nName: {DISTRIBUTION}\nVersion: {version}\n"
        "Summary: Stand-ins for libraries that this image leaves out\nLicense-Expression: Apache-2.0\n"
        "Project-URL: Repository, https://github.com/cardstock-images/cardstock\n\n"
        "Each file has the name and the functions of the library that it stands in for, and none of its code.\n"
        "A call returns that library's status for an operation that is not supported.\n\n" + "\n".join(lines) + "\n"
    )
    files = {"INSTALLER": "cardstock\n", "METADATA": metadata, LIST: dumps(made)}
    try:
        folder.mkdir()
        folder.chmod(0o755)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        rows = []
        for path in sorted([*(folder / name for name in files), *(site / one.file for one in made.stand_ins)]):
            rows.append(f"{path.relative_to(site).as_posix()},{file_hash(path)},{path.stat().st_size}\n")
        rows.append(f"{folder.name}/RECORD,,\n")
        (folder / "RECORD").write_text("".join(rows), encoding="utf-8")
        for path in folder.iterdir():
            path.chmod(0o644)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
