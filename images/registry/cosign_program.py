"""The program cosign: where it is found, and which flags it knows.

Flags by version, read in its sources (cmd/cosign/cli/options of v2.5.0, v2.6.3, v3.0.2, v3.1.2) and tried with those of
Debian, 2.5.0 and 3.1.1. Until 2.5 a signature has one form, under a tag that every version reads. 2.6 learned another,
kept as a referrer (`--new-bundle-format`), which 3.0 writes by default, together with the addresses of the public log
(`--use-signing-config`). A key that stays out of that log is refused there, unless both are turned off.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from images.core import CardstockError, Layout, debian, default_layout, process

# Debian's cosign starts with the release after bookworm; it needs nothing but libc, and runs on bookworm as well.
_SUITE = {"bookworm": "trixie"}
_ASK_SECONDS = 60.0
_VERSION = re.compile(r'gitversion"?:\s*"?v?(\d{1,4})\.(\d{1,4})', re.IGNORECASE)
_NEW_FLAG = "--use-signing-config"
Say = Callable[[str], None]


def find_cosign(layout: Layout | None = None, say: Say = lambda _: None) -> str:
    """The program: of $PATH, or fetched once into $CARDSTOCK_HOME. Raises CardstockError with what to do."""
    if found := shutil.which("cosign"):
        return found
    layout = layout or default_layout()
    program = layout.home / "cosign" / "usr" / "bin" / "cosign"
    if not program.is_file():
        mirror = debian.host_mirror()
        if mirror is None:
            raise CardstockError(
                "cosign is not installed",
                cause="this host is not Debian, so it cannot be fetched",
                do="install cosign (https://docs.sigstore.dev/cosign), then run again",
            )
        say(f"fetching cosign from Debian's package into {program.parents[2]}")
        work = layout.home / "cosign.new"
        shutil.rmtree(work, ignore_errors=True)
        apt = debian.PrivateApt(work / "apt", mirror.lines(_SUITE.get(mirror.codename, mirror.codename)))
        apt.update()
        debian.unpack(apt.download(["cosign"], work / "debs"), work / "prefix")
        shutil.rmtree(program.parents[2], ignore_errors=True)
        os.replace(work / "prefix", program.parents[2])
        shutil.rmtree(work)
    return str(program)


@dataclass(frozen=True)
class CosignFlags:
    """What this cosign must be told to write and to read the form of signature that every cosign reads.

    ``sign`` goes with `sign` and `attest`; ``verify`` are the ways to look for a signature, one after the other.
    """

    sign: tuple[str, ...] = ()
    verify: tuple[tuple[str, ...], ...] = ((),)


OLD = CosignFlags()
NEW = CosignFlags(
    ("--new-bundle-format=false", f"{_NEW_FLAG}=false"), (("--new-bundle-format=false",), ("--new-bundle-format=true",))
)


def flags_of(program: str) -> CosignFlags:
    """The flags of a cosign, by the version that it names; by its help where it names none, as Debian's ("devel").

    Raises CardstockError for a program that cannot be run, and for cosign 1, which has no flag to stay out of the log.
    """
    try:
        told = process.run([program, "version"], timeout=_ASK_SECONDS, check=False)
        named = _VERSION.search(told.out) or _VERSION.search(told.err)
        version = (int(named[1]), int(named[2])) if named else None
        if version and version < (2, 0):
            raise unfit(program, f"it is of version {version[0]}.{version[1]}")
        if version and version < (4, 0):
            return NEW if version >= (2, 6) else OLD
        asked = process.run([program, "sign", "--help"], timeout=_ASK_SECONDS, check=False)
        return NEW if _NEW_FLAG in asked.out or _NEW_FLAG in asked.err else OLD
    except process.ProcessFailed as error:
        raise CardstockError(
            "cosign cannot be run",
            cause=error.tail,
            do="install cosign anew (https://docs.sigstore.dev/cosign), then run again",
            where=program,
        ) from error


def unfit(program: str, cause: str) -> CardstockError:
    """The error for a cosign that cannot do what is asked of it."""
    return CardstockError(
        "this cosign cannot be used: it does not know how a key signs, or is verified, without the public log",
        cause=cause,
        do="install cosign 2.x or 3.x (https://docs.sigstore.dev/cosign), then run again",
        where=program,
    )
