"""`invoke audit TARGET`: find what TARGET names, read its files, print what they hold code for."""

from __future__ import annotations

import io
import json as json_module
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from images.core import CheckFailed, Chunks, EngineUnreachable, Report, UsageError, human_bytes
from images.device_code import audit as auditing
from images.device_code.audit import Audit, Audited
from images.device_code.names import shown
from images.device_code.sources import Watcher, read_file, read_folder, read_tar, read_wheel
from images.device_code.verdict import UNKNOWN, Capability, Verdict
from images.device_code.zip_bounds import ZipRefused
from images.matrix import parse_arch

if TYPE_CHECKING:
    from images.docker import Engine
    from images.proof.audit.remote import RemoteAudit
    from images.registry import Repository

# Without --arch: the cards that Cardstock makes images for.
CARDS: tuple[Capability, ...] = ((7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
_TOLD = 5  # names in a message; the table and the JSON have them all
_PATH_LIKE = re.compile(r"[./~].*|.*\.(so|whl|zip|tar|cubin|fatbin|ptx|a)|.*\.so\.[\d.]+")


@dataclass(frozen=True)
class FromRegistry:
    """How an image is read from its registry: ``repository`` asks one by its name; ``whole``: every layer to its end.

    ``always``: also where the engine has an image of this name. ``platform``: "" for linux/amd64.
    """

    repository: Callable[[str], Repository]
    always: bool = False
    platform: str = ""
    whole: bool = False


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
    audit = _audit_path_named(target)
    if audit is not None:
        return audit
    if engine is None:
        from images.docker import connect

        engine = connect()
    audit = _audit_in_engine(target, engine)
    if audit is None:
        raise UsageError(
            f"nothing is named {target}",
            cause="there is no such path here, and the engine has no such image or container",
            do=f"name it with its registry, as docker.io/library/NAME:TAG; or pull it first: docker pull {target}",
            where=engine.endpoint,
        )
    return audit


def audit_in_registry(target: str, registry: FromRegistry, report: Report) -> RemoteAudit | None:
    """Audit the image ``target`` in its registry; None where it is a path, names no registry, or the engine has it.

    Raises UsageError where the registry is asked for and ``target`` names none.
    """
    from images.proof.audit.remote import audit_remote, parse_image_name

    asked = registry.always or bool(registry.platform) or registry.whole
    name = None if Path(target).expanduser().exists() and not asked else parse_image_name(target)
    if name is None:
        if asked:
            raise UsageError(
                f"{shown(target)} names no registry",
                cause="--remote, --platform and --whole are for images in a registry",
                do="write the registry's host before it, as in docker.io/vllm/vllm-openai:v0.8.5",
            )
        return None
    if not asked and _engine_has(target):
        report.line("the engine has it: that image is audited; --remote reads the registry's")
        return None
    return audit_remote(
        name,
        lambda: registry.repository(name.repository),
        report.line,
        platform=registry.platform,
        whole=registry.whole,
    )


def _engine_has(target: str) -> bool:
    """Whether an engine answers and has this image; none is started for that."""
    from images.docker import connect

    try:
        return connect(start=False).inspect(target) is not None
    except EngineUnreachable:
        return False


def _audit_path_named(target: str) -> Audit | None:
    """The audit of a path; None where there is none of this name."""
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
    return None


def _audit_in_engine(target: str, engine: Engine) -> Audit | None:
    return audit_image(engine, target) if engine.inspect(target) is not None else audit_container(engine, target)


def audit_command(
    target: str,
    archs: Sequence[str],
    json: bool,
    report: Report | None = None,
    *,
    registry: FromRegistry | None = None,
    native: bool = False,
    excepted: Sequence[str] = (),
) -> None:
    """`invoke audit`: print the table, or JSON, of ``target``.

    ``native``: PTX does not count. ``excepted``: globs of libraries that need not have code for the cards.
    Raises CheckFailed for a damaged library, and for a card named in ``archs`` that some library does not cover.
    """
    words = [word for text in archs for word in text.replace(",", " ").replace(";", " ").split() or [text]]
    asked = tuple(dict.fromkeys((arch.major, arch.minor) for arch in map(parse_arch, words)))
    if (native or excepted) and not asked:
        raise UsageError("--native and --except are for cards that are named", do="say which card: --arch 7.5")
    cards = asked or CARDS
    report = report or Report()
    remote = None
    with report.step(f"audit {shown(target)}") as step:
        if registry is not None and target.strip():
            remote = audit_in_registry(target, registry, report)
        audit = remote.audit if remote is not None else audit_target(target)
        step.note(f"{len(audit.libraries)} files with device code, {audit.others} without")
        if remote is not None:
            step.note(f"{human_bytes(remote.received)} of {human_bytes(remote.image.size)} read")
    if json:
        told = auditing.to_json(audit, cards) | ({"registry": remote.to_json()} if remote is not None else {})
        print(json_module.dumps(told, indent=1))
    else:
        _print(audit, cards, report, details=bool(asked))
    if remote is not None:
        _tell_remote(remote, report)
    _raise_if_failing(_without(audit, excepted, report), cards, asked, native=native)
    if remote is not None and asked:
        report.next_command(f"docker pull {remote.by_digest}", "the very image that was audited")
    elif remote is not None:
        report.next_command(f"./inv audit {target} --arch 7.5", "exit code 1 if any of it lacks code for that card")


def _tell_remote(remote: RemoteAudit, report: Report) -> None:
    image = remote.image
    read = f"{human_bytes(remote.received)} of {human_bytes(image.size)} were read"
    report.line(f"{image.digest}, {image.platform}: {read}; layers: {remote.ways()}")
    if remote.unchecked:
        report.line(
            f"of {remote.unchecked} layers parts were read that have no digest of their own: "
            "what the registry gives is believed; --whole reads all and checks it"
        )


def _without(audit: Audit, excepted: Sequence[str], report: Report) -> Audit:
    """The audit without the libraries that a glob names, by the whole name or by what is below site-packages."""
    left = list(audit.libraries)
    for glob in excepted:
        out = [one for one in left if fnmatchcase(one.name, glob) or fnmatchcase(_below_site(one.name), glob)]
        left = [one for one in left if one not in out]
        report.line(f"--except {shown(glob)}: {len(out)} files are not asked for")
    return Audit(audit.target, tuple(left), audit.others) if excepted else audit


def _below_site(name: str) -> str:
    return re.split(r"(?:site|dist)-packages/", name)[-1]


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


def _raise_if_failing(
    audit: Audit, cards: Sequence[Capability], asked: Sequence[Capability], *, native: bool = False
) -> None:
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
        _raise_if_compiled(audit, asked if native else ())
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


def _raise_if_compiled(audit: Audit, asked: Sequence[Capability]) -> None:
    """Raise CheckFailed for a library of which the driver compiles any for one of these cards."""
    compiled: dict[str, list[Verdict]] = {}
    for card in asked:
        for one in audit.libraries:
            if (verdict := audit.verdict(one, card)).ptx is not None:
                compiled.setdefault(one.name, []).append(verdict)
    if compiled:
        lacking = sorted({auditing.name_of(verdict.capability) for found in compiled.values() for verdict in found})
        raise CheckFailed(
            f"{len(compiled)} of {len(audit.libraries)} libraries have PTX alone for some code on {', '.join(lacking)}",
            cause=f"the driver would compile it when it is loaded: {_some([shown(name) for name in compiled], ', ')}",
            do="build them for that card; or let PTX count: without --native",
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
