"""`invoke audit TARGET`: find what TARGET names, read its files, print what they hold code for."""

from __future__ import annotations

import io
import json as json_module
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from images.core import CheckFailed, Report, UsageError
from images.device_code import audit as auditing
from images.device_code.audit import Audit, Audited
from images.device_code.names import shown
from images.device_code.sources import Watcher, read_file, read_folder, read_tar, read_wheel
from images.device_code.verdict import UNKNOWN, Capability
from images.device_code.zip_bounds import ZipRefused
from images.matrix import parse_arch

if TYPE_CHECKING:
    from images.docker import Engine

# Without --arch: the cards that Cardstock makes images for.
CARDS: tuple[Capability, ...] = ((7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_TOLD = 5  # names in a message; the table and the JSON have them all
_PATH_LIKE = re.compile(r"[./~].*|.*\.(so|whl|zip|tar|cubin|fatbin|ptx|a)|.*\.so\.[\d.]+")


class Chunks(io.RawIOBase):
    """Chunks of bytes as a file to read from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` with what is left of a chunk, or with the next one."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        room = memoryview(cast("bytearray", buffer))
        count = min(len(room), len(self._left))
        room[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def audit_path(path: Path) -> Audit:
    """Audit a folder, a wheel (any zip file) or one library. Raises UsageError for another kind of file."""
    with _readable(str(path)):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return auditing.audit(str(path), read_folder(path))
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"{shown(str(path))} is no file",
                cause=f"it is {_KINDS.get(stat.S_IFMT(mode), 'of an unknown kind')}",
                do="give a .so, a .whl, a folder, an image or a container",
            )
        if zipfile.is_zipfile(path):
            return auditing.audit(str(path), read_wheel(path))
        name, library = next(iter(read_file(path, path.name)))
        if not getattr(library, "form", "unknown"):
            raise UsageError(
                f"{shown(str(path))} is no library, wheel or folder",
                cause="it is neither an ELF file, a static archive, a cubin, a fat binary, PTX nor a zip file",
                do="give a .so, a .whl, a folder, an image or a container",
            )
        return auditing.audit(str(path), [(name, library)])


def audit_image(engine: Engine, reference: str, watcher: Watcher | None = None) -> Audit:
    """Audit an image that the engine has; its file system is streamed, nothing of it runs or is unpacked.

    ``watcher`` is shown its ELF files and links in the same pass.
    """
    with engine.export_tar(reference) as chunks, _readable(reference):
        return auditing.audit(reference, read_tar(_buffered(chunks), watcher))


def audit_container(engine: Engine, name: str) -> Audit | None:
    """Audit a container, running or not, as `audit_image` does; None where the engine has none of this name."""
    with engine.export_container(name) as chunks, _readable(name):
        return None if chunks is None else auditing.audit(name, read_tar(_buffered(chunks)))


def audit_target(target: str, engine: Engine | None = None) -> Audit:
    """Audit what ``target`` names: a path if there is one of this name, else an image, else a container.

    Raises UsageError where it names nothing, EngineUnreachable where an engine is needed and none answers.
    """
    if not target.strip():
        raise UsageError(
            "there is nothing to audit",
            cause="no target is named",
            do="./inv audit IMAGE, a wheel, a folder or a library",
        )
    path = Path(target).expanduser()
    if path.exists():
        return audit_path(path)
    if _PATH_LIKE.fullmatch(target):
        raise UsageError(f"there is no file or folder {target}", do="see that the path is right")
    if engine is None:
        from images.docker import connect

        engine = connect()
    if engine.inspect(target) is not None:
        return audit_image(engine, target)
    audit = audit_container(engine, target)
    if audit is None:
        raise UsageError(
            f"nothing is named {target}",
            cause="there is no such path here, and the engine has no such image or container",
            do=f"pull the image first (docker pull {target}), or correct the name",
            where=engine.endpoint,
        )
    return audit


def audit_command(target: str, archs: Sequence[str], json: bool, report: Report | None = None) -> None:
    """`invoke audit`: print the table, or JSON, of ``target``.

    Raises CheckFailed for a damaged library, and for a card named in ``archs`` that some library does not cover.
    """
    words = [word for text in archs for word in text.replace(",", " ").replace(";", " ").split() or [text]]
    asked = tuple(dict.fromkeys((arch.major, arch.minor) for arch in map(parse_arch, words)))
    cards = asked or CARDS
    report = report or Report()
    with report.step(f"audit {shown(target)}") as step:
        audit = audit_target(target)
        step.note(f"{len(audit.libraries)} files with device code, {audit.others} without")
    if json:
        print(json_module.dumps(auditing.to_json(audit, cards), indent=1))
    else:
        _print(audit, cards, report, details=bool(asked))
    _raise_if_failing(audit, cards, asked)


def _print(audit: Audit, cards: Sequence[Capability], report: Report, *, details: bool) -> None:
    header, rows = auditing.table(audit, cards)
    if not rows:
        report.line(f"no device code in {shown(audit.target)}")
        return
    report.table(rows, header)
    gaps_header, gaps = auditing.gaps_table(audit, cards)
    if details and gaps:
        print()
        report.table(gaps, gaps_header)


def _raise_if_failing(audit: Audit, cards: Sequence[Capability], asked: Sequence[Capability]) -> None:
    target = shown(audit.target)
    damaged = [f"{shown(one.name)}: {shown(one.problem)}" for one in audit.libraries if one.problem]
    if damaged:
        raise CheckFailed(
            f"{target} holds libraries that cannot be read",
            cause=_some(damaged, "; "),
            do="get them again: they are cut short or damaged",
        )
    if closed := [f"{shown(one.name)}: {shown(one.library.unread)}" for one in audit.libraries if _closed(one)]:
        raise CheckFailed(
            f"of {len(closed)} files or folders in {target} nothing can be told",
            cause=_some(closed, "; "),
            do="let this user read them, or audit as one who may",
        )
    failing = audit.failing(asked)
    if not failing:
        return
    verdicts = [verdict for bad in failing.values() for verdict in bad]
    lacking = ", ".join(sorted({auditing.name_of(verdict.capability) for verdict in verdicts}))
    names = _some([shown(name) for name in failing], ", ")
    if all(verdict.kind == UNKNOWN for verdict in verdicts):
        raise CheckFailed(
            f"whether {len(failing)} of {len(audit.libraries)} libraries have code for {lacking} cannot be told",
            cause=f"they hold code of a form that is not read: {names}",
            do="try them on that card",
        )
    raise CheckFailed(
        f"{len(failing)} of {len(audit.libraries)} libraries lack code for {lacking}",
        cause=f"they were built for other cards: {names}",
        do="known gaps that do no harm are listed, with reasons, in matrix.yaml under gaps",
    )


def _closed(one: Audited) -> bool:
    return one.library.unread.startswith("cannot be read")


def _some(texts: Sequence[str], between: str) -> str:
    more = f"{between}and {len(texts) - _TOLD} more" if len(texts) > _TOLD else ""
    return between.join(texts[:_TOLD]) + more


def _buffered(chunks: Iterator[bytes]) -> io.BufferedReader:
    return io.BufferedReader(Chunks(chunks), 1 << 20)


@contextmanager
def _readable(target: str) -> Iterator[None]:
    """Turn errors of opening a file, and of a broken archive, into errors that say so."""
    try:
        yield
    except ZipRefused as error:
        do = "see where it is from: no wheel is packed like that"
        raise CheckFailed(f"{shown(target)} is not unpacked", cause=shown(str(error)), do=do) from error
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise CheckFailed(
            f"{shown(target)} cannot be read to its end", cause=shown(str(error)), do="get it again"
        ) from error
    except OSError as error:
        raise UsageError(
            f"{shown(str(error.filename or target))} cannot be read",
            cause=error.strerror or str(error),
            do="see its permissions",
        ) from error
