"""Compiled code on this machine: a folder a key, whole or not there, checked whenever it is used.

``$CARDSTOCK_HOME/compiled/KEY`` holds the archive, its compiled.json, and origin.json: whether it was made here, or who
signed it where it came from. Only this user writes there; what it holds of the first two kinds is used without asking.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from images.compiled.key import CompiledKey
from images.compiled.pack import check_archive
from images.compiled.record import ARCHIVE, FILE, MOST, CompiledRecord, read_record
from images.core import CardstockError, Unsafe, UsageError, default_layout, read_json, work_folder
from images.registry import Identity, digest_of_file

ORIGIN = "origin.json"
_KEY = re.compile(r"[0-9a-f]{64}")
_MOST_ARCHIVE = 4 << 30  # bytes of an archive
Say = Callable[[str], None]


@dataclass(frozen=True)
class Origin:
    """Where compiled code is from. ``source`` "" is this machine, else REPO@sha256:… or a file.

    ``signer`` is who was found to have signed it, as `signer_text` says it; "" where no signature was verified.
    """

    source: str = ""
    signer: str = ""

    @property
    def trusted(self) -> bool:
        """Whether it may be used without being asked for by the user: made here, or signed."""
        return not self.source or bool(self.signer)

    def text(self) -> str:
        """For people."""
        if not self.source:
            return "made here"
        return f"{self.source}, {f'signed ({self.signer})' if self.signer else 'not verified'}"


MADE_HERE = Origin()


def signer_text(signer: Path | Identity) -> str:
    """A signer in words: the beginning of its public key's SHA-256, or the pattern of its identity."""
    return f"identity {signer.pattern}" if isinstance(signer, Identity) else f"key {digest_of_file(signer)[:19]}"


@dataclass(frozen=True)
class Kept:
    """Compiled code that lies on this machine: its folder, its record, where it is from."""

    folder: Path
    record: CompiledRecord
    origin: Origin

    @property
    def archive(self) -> Path:
        """The archive's path."""
        return self.folder / ARCHIVE

    @property
    def record_file(self) -> Path:
        """The path of its compiled.json."""
        return self.folder / FILE


def default_store() -> CompiledStore:
    """The store of this machine: $CARDSTOCK_HOME/compiled."""
    return CompiledStore(default_layout().home / "compiled")


class CompiledStore:
    """Compiled code below one folder. Safe for several processes at once: entries come and go by one rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: CompiledKey, say: Say = lambda _: None) -> Kept | None:
        """What is kept by a key, its bytes checked; None where nothing is. What is damaged is said, and removed."""
        folder = self.root / key.digest
        if not folder.is_dir():
            return None
        try:
            kept = self._read(folder)
            check_kept(folder, kept.record, key)
        except CardstockError as error:
            say(f"removed from {self.root}: {error.what}: {error.cause}")
            with self.work() as grave:
                os.replace(folder, grave / folder.name)
            return None
        return kept

    def put(self, key: CompiledKey, folder: Path, origin: Origin) -> Kept:
        """Move a finished folder (made by `work`) into the store, once all was checked.

        Raises Unsafe for another key's, and for an archive that is not its record's; nothing is stored then.
        """
        check_kept(folder, read_record(folder), key)
        (folder / ORIGIN).write_text(json.dumps(asdict(origin)) + "\n", encoding="utf-8")
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        place = self.root / key.digest
        with self.work() as grave:
            if place.is_dir():
                os.replace(place, grave / place.name)
            os.replace(folder, place)
        return self._read(place)

    def entries(self) -> tuple[Kept, ...]:
        """All that lies here, by key; what makes no sense is left out. Archives are not read."""
        found = []
        for folder in sorted(self.root.glob("*")) if self.root.is_dir() else []:
            if _KEY.fullmatch(folder.name):
                try:
                    found.append(self._read(folder))
                except CardstockError:
                    continue
        return tuple(found)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """An empty folder on the store's disk, gone at the end unless `put` took it."""
        with work_folder("compiled", self.root / ".work") as folder:
            inner = folder / "made"
            inner.mkdir()
            yield inner

    def _read(self, folder: Path) -> Kept:
        record = read_record(folder)
        if record.key.digest != folder.name:
            raise Unsafe(f"{folder.name[:12]} holds other compiled code than its name says", where=str(folder))
        said = read_json(folder / ORIGIN, most=MOST)
        if not isinstance(said, dict) or set(said) != {"source", "signer"} or not all(map(_is_text, said.values())):
            raise Unsafe(f"{folder.name[:12]} does not say where it is from", where=str(folder / ORIGIN))
        return Kept(folder, record, Origin(**said))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def check_kept(folder: Path, record: CompiledRecord, key: CompiledKey) -> None:
    """Raises Unsafe unless a folder holds the compiled code of ``key``, as its record tells of it."""
    if different := key.differences(record.key):
        raise Unsafe(
            "this compiled code is not what it is kept as: its own record is of another key",
            cause="; ".join(different),
            do="nothing of it was used",
            where=str(folder / FILE),
        )
    archive = folder / ARCHIVE
    if not archive.is_file() or archive.is_symlink():
        raise Unsafe(f"the compiled code has lost its archive {ARCHIVE}", where=str(folder))
    check_archive(archive, record.sha256, record.size, record.files, record.unpacked, str(archive))


def write_file(kept: Kept, into: Path) -> None:
    """Both as one file for another machine: a tar of compiled.json and the archive. Whole or not at all."""
    beside = into.with_name(f".{into.name}.{os.getpid()}")
    try:
        with tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in (kept.record_file, kept.archive):
                entry = tarfile.TarInfo(path.name)
                entry.size, entry.mode = path.stat().st_size, 0o644
                with path.open("rb") as source:
                    tar.addfile(entry, source)
        beside.replace(into)
    finally:
        beside.unlink(missing_ok=True)


def read_file_into(file: Path, folder: Path) -> CompiledRecord:
    """Unpack what `write_file` wrote into a folder; its record. Raises UsageError for another kind of file."""
    most = {FILE: MOST, ARCHIVE: _MOST_ARCHIVE}
    seen = []
    try:
        with file.open("rb") as source, tarfile.open(fileobj=source, mode="r|") as tar:
            for entry in tar:
                if not entry.isreg() or entry.size > most.pop(entry.name, -1):
                    raise UsageError(
                        f"{file} is no file of ./inv warm --out",
                        cause=f"it holds {entry.name[:100]!r} of {entry.size} bytes",
                    )
                seen.append(entry.name)
                member = tar.extractfile(entry)
                assert member is not None  # noqa: S101  (a plain file)
                with (folder / entry.name).open("wb") as out:
                    shutil.copyfileobj(member, out, 1 << 20)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UsageError(
            f"{file} cannot be read", cause=str(error), do="name what ./inv warm --out has written"
        ) from error
    if most:
        raise UsageError(f"{file} is no file of ./inv warm --out", cause=f"it holds {seen or 'nothing'}")
    return read_record(folder)
