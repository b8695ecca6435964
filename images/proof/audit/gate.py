"""Level 1: does every library that the server loads hold code for the image's cards? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from images.device_code.audit import Audit, cell
from images.device_code.model import ARCHIVE, BARE
from images.device_code.verdict import PARTLY, parse_capability
from images.proof.audit.loaded_libraries import owned_by_nvidia

_SITE = "site-packages/"
# Of a folder of such files a program takes those for its card; an archive is for linking.
_NOT_LOADED_WHOLE = (*BARE, ARCHIVE)


@dataclass(frozen=True)
class GateResult:
    """What was found: ``failures`` (library and card), ``known`` gaps with their reason, libraries not ``served``."""

    failures: tuple[str, ...]
    known: tuple[str, ...]
    not_loaded: tuple[str, ...]
    archs: tuple[str, ...]


def judge_audit(
    audit: Audit,
    archs: Sequence[str],
    loaded_libraries: Iterable[str] | None,
    gaps: Sequence[tuple[str, str]],
    optional: Sequence[tuple[str, str]] = (),
) -> GateResult:
    """Check an audit for the cards ``archs``.

    ``served`` are the libraries that the server loads (None: not recorded, so all of them count); ``gaps`` are globs
    below site-packages with a reason: they excuse a library that has code for the card in part; only one of
    ``optional`` may be without any.
    NVIDIA's own libraries choose among their kernels by themselves and are not checked, nor are cubins and other files
    of code alone, among which programs choose, and static archives.
    """
    loaded = None if loaded_libraries is None else frozenset(loaded_libraries)
    failures: list[str] = []
    known: list[str] = []
    idle: list[str] = []
    good: list[str] = []
    for arch in archs:
        before = len(failures)
        for one in audit.libraries:
            name, verdict = one.name, audit.verdict(one, parse_capability(arch))
            if one.library.form in _NOT_LOADED_WHOLE:
                continue
            below = name.partition(_SITE)[2]
            if not below or owned_by_nvidia(below) or verdict.covers:
                continue
            text = f"{below} on {arch}: {cell(verdict)}"
            excuses = gaps if verdict.kind == PARTLY else optional
            reason = next((why for glob, why in excuses if fnmatchcase(below, glob)), None)
            if loaded is not None and below not in loaded:
                idle.append(text)
            elif reason is not None:
                known.append(f"{text} ({reason})")
            else:
                failures.append(text)
        if len(failures) == before:
            good.append(arch)
    return GateResult(tuple(failures), tuple(known), tuple(idle), tuple(good))


def device_code_left(audit: Audit) -> tuple[str, ...]:
    """What holds device code in an image that uses no card: each file, and what it holds.

    NVIDIA's own libraries are there as they came or not at all, and are not counted.
    """
    left = []
    for one in audit.libraries:
        below = one.name.partition(_SITE)[2]
        holds = one.problem or one.library.unread or " ".join(one.archs)
        if below and holds and not owned_by_nvidia(below):
            left.append(f"{below}: {holds}")
    return tuple(left)
