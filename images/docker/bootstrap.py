"""A Debian root file system from packages, for where no image registry can be reached. Needs root and apt.

mmdebstrap makes it, the host's or one unpacked beside, so the host's package database is left alone; the result holds
no mirror, no package lists, no caches, and the same bytes for the same packages (seen with 1.3.5; 1.5.7 gives one
folder another time).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.core import CardstockError, EngineUnreachable, PrintLine, RegistryFailure, debian, process, work
from images.docker.embedded import mounts

# Times in the image: nothing is newer than this second (2025-01-01), whenever it is built.
EPOCH = 1735689600
# What Debian's own slim images hold. mmdebstrap's mode "unshare" would want user id ranges, which containers lack.
_OPTIONS = (
    "--mode=root",
    "--variant=minbase",
    "--format=directory",
    "--skip=check/signed-by",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
)
# Of this host or of this minute, and so no part of an image; mmdebstrap takes away the rest of the kind.
_EMPTIED = (
    "dev etc/apt/sources.list.d run usr/share/info var/cache/apt var/cache/debconf var/lib/apt/lists var/log".split()
)
_REMOVED = (
    "etc/.pwd.lock etc/apt/apt.conf.d/99mmdebstrap etc/apt/sources.list etc/group- etc/hostname etc/passwd- "
    "etc/resolv.conf var/lib/dpkg/status-old"
).split()
# How the host's apt reaches an archive. (mmdebstrap's apt reads the configuration of the new system instead.)
_TRANSPORT = re.compile(r"^Acquire::(?:https?|ftp|ForceIPv[46])\b.*$", re.MULTILINE)
_LOGINS = 'Dir::Etc::netrc "/etc/apt/auth.conf";\nDir::Etc::netrcparts "/etc/apt/auth.conf.d";\n'
_ARCHIVE_FAILED = re.compile(
    "Failed to fetch|does not have a Release file|is not signed|cannot determine sources.list format"
)
_HOOKS = Path("usr/share/mmdebstrap/hooks/maybe-merged-usr")


def recipe(release: str) -> str:
    """What a base follows from, apart from the packages of the day; raise the number when code changes its content."""
    argv = mmdebstrap_argv(Path("prefix"), release, Path("root"), Path("apt.conf"))
    return "\n".join(["2", str(EPOCH), *_EMPTIED, *_REMOVED, *argv])


@contextmanager
def work_folder(home: Path) -> Iterator[Path]:
    """A folder on the disk of ``home`` that goes away, with whatever a broken run left mounted below it."""
    with work.work_folder("bootstrap", home / "bootstrap", mounts.unmount_below) as folder:
        yield folder


def mmdebstrap_argv(prefix: Path, release: str, root: Path, settings: Path) -> tuple[str, ...]:
    """The argument list; apt sources come on stdin, and those that name no key are checked against Debian's."""
    own = (f"--keyring={debian.KEYRING}", f"--hook-dir={prefix / _HOOKS}", f"--aptopt={settings}")
    return (str(prefix / "usr/bin/mmdebstrap"), *_OPTIONS, *own, release, str(root), "-")


def make_tar(
    release: str,
    sources: str,
    folder: Path,
    *,
    mirror: debian.Mirror | None = None,
    ca: Path | None = None,
    say: PrintLine = lambda _: None,
) -> Path:
    """Bootstrap ``release``, as apt ``sources`` have it today, into an uncompressed tar in ``folder``.

    ``mirror`` is where a host without mmdebstrap gets it; ``ca`` a PEM bundle for sources on https. Raises
    EngineUnreachable where mmdebstrap cannot be had, RegistryFailure when packages cannot be fetched or verified,
    CardstockError when they do not install.
    """
    say(f"bootstrapping Debian {release} from packages (a minute or two)")
    prefix = tool(mirror, folder)
    root, settings = folder / "root", folder / "apt.conf"
    dump = process.run(["apt-config", "dump", "Acquire"], timeout=30).out
    settings.write_text(apt_settings(dump, ca and Path(shutil.copy(ca, folder / "ca.pem"))), encoding="utf-8")
    try:
        argv = mmdebstrap_argv(prefix, release, root, settings)
        process.run(argv, env=environment(prefix), stdin=sources, timeout=1800)
    except process.ProcessFailed as error:
        raise failure(release, folder, error) from error
    clean(root)
    return _pack(root, folder / "base.tar")


def tool(mirror: debian.Mirror | None, folder: Path, host: Path = Path("/")) -> Path:
    """The prefix of a mmdebstrap that is new enough (1.3, Debian 12): the host's, else one unpacked in ``folder``."""
    if (host / _HOOKS).is_dir():
        return host
    if mirror is None:
        raise EngineUnreachable(
            "there is no mmdebstrap to make a base image with",
            cause="this host has none, or one older than 1.3, and its apt names no Debian archive to take it from",
            do="install it with Debian's keys (apt-get install mmdebstrap debian-archive-keyring), then run again",
        )
    apt = debian.PrivateApt(folder / "apt", mirror.lines(mirror.codename))
    apt.update()
    debian.unpack(apt.download_missing(["mmdebstrap"]), folder / "tools")
    return folder / "tools"


def environment(prefix: Path) -> dict[str, str]:
    """What mmdebstrap below ``prefix`` needs: its helpers and, where the host has perl-base alone, modules of perl."""
    path = f"{os.environ.get('PATH', os.defpath)}:{prefix / 'usr/bin'}:/usr/sbin:/sbin"
    modules = [*prefix.glob("usr/share/perl/5*"), *prefix.glob("usr/lib/*/perl/5*")]
    return {"PATH": path, "PERL5LIB": ":".join(map(str, modules)), "SOURCE_DATE_EPOCH": str(EPOCH)}


def apt_settings(dump: str, ca: Path | None) -> str:
    """An apt.conf that reaches archives as this host's apt does (``apt-config dump``), with ``ca`` for https."""
    own = f'Acquire::https::CAInfo "{ca}";\n' if ca else ""
    return "".join(f"{line}\n" for line in _TRANSPORT.findall(dump)) + _LOGINS + own


def failure(release: str, folder: Path, error: process.ProcessFailed) -> CardstockError:
    """What to tell: the archive's failures are known by apt's words, all others are taken for this machine's."""
    what = f"Debian {release} could not be bootstrapped from packages"
    cause = "\n".join(line[:200] for line in error.tail.splitlines()[-10:])
    if _ARCHIVE_FAILED.search(error.tail):
        return RegistryFailure(
            what,
            cause=cause,
            do="check that this host's apt mirror (or that of CARDSTOCK_APT) answers and has this release, "
            "or give a base image by digest",
        )
    return CardstockError(
        what,
        cause=cause,
        do=f"see that the disk of {folder.parent} has room and is not mounted noexec (CARDSTOCK_HOME moves it), "
        "or give a base image by digest",
    )


def clean(root: Path) -> None:
    """Take away what belongs to this host, to this minute, or to nobody."""
    for name in _EMPTIED:
        folder = root / name
        if folder.is_dir():
            for child in folder.iterdir():
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    for name in _REMOVED:
        (root / name).unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("", encoding="ascii")
    (root / "etc/machine-id").chmod(0o644)


def _pack(root: Path, tar: Path) -> Path:
    """All files by name, with numeric owners, none newer than EPOCH."""
    arguments = ("--sort=name", "--numeric-owner", "--one-file-system", f"--mtime=@{EPOCH}", "--clamp-mtime")
    try:
        process.run(["tar", *arguments, "-C", str(root), "-cf", str(tar), "."], timeout=600)
    except process.ProcessFailed as error:
        raise CardstockError("the base could not be packed", cause=error.tail, do="free disk space") from error
    return tar
