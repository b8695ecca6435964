"""A Debian root file system from packages, for where no image registry can be reached. Needs Debian and root.

debootstrap runs from an unpacked prefix, so the host's package database is left alone; the result holds no mirror, no
package lists, no caches, and the same bytes for the same packages.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from images.core import CardstockError, PrintLine, RegistryFailure, debian, process
from images.docker.embedded import mounts

# Times in the image: nothing is newer than this second (2025-01-01), whenever it is built.
EPOCH = 1735689600
_DPKG_RULES = """\
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
"""
_EMPTIED = (
    "dev etc/apt/sources.list.d proc run sys tmp usr/share/info usr/share/locale usr/share/man var/cache/apt "
    "var/cache/debconf var/lib/apt/lists var/log var/tmp"
).split()
# Of this host or of this minute, and so no part of an image.
_REMOVED = (
    "etc/apt/sources.list etc/hostname etc/resolv.conf etc/.pwd.lock root/.wget-hsts var/cache/ldconfig/aux-cache "
    "var/lib/dpkg/available var/lib/dpkg/status-old var/lib/dpkg/diversions-old var/lib/dpkg/statoverride-old "
    "etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid-"
).split()
# wget is debootstrap's way to fetch; libpsl is the one library of it that apt does not bring too.
_TOOLS = ("debootstrap", "wget")
_PSL = {"bookworm": "libpsl5"}


def recipe(release: str) -> str:
    """What a base follows from, apart from the packages of the day; raise the number when code changes its content."""
    argv = debootstrap_argv("debootstrap", release, Path("root"), "mirror")
    return "\n".join(["1", str(EPOCH), _DPKG_RULES, *_EMPTIED, *_REMOVED, *argv])


@contextmanager
def work_folder(home: Path) -> Iterator[Path]:
    """A folder on the disk of ``home`` that goes away, with whatever a broken run left mounted below it."""
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bootstrap-", dir=home))
    try:
        yield folder
    finally:
        mounts.unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)


def debootstrap_argv(program: Path | str, release: str, root: Path, mirror: str) -> tuple[str, ...]:
    """The argument list: the smallest variant, checked against Debian's keys."""
    keyring = f"--keyring={debian.KEYRING}"
    return (str(program), "--variant=minbase", "--merged-usr", keyring, release, str(root), mirror)


def make_tar(release: str, mirror: debian.Mirror, folder: Path, say: PrintLine = lambda _: None) -> Path:
    """Bootstrap ``release`` with its security fixes into an uncompressed tar in ``folder``.

    Raises RegistryFailure when packages cannot be fetched or verified, CardstockError when they do not install.
    """
    say(f"bootstrapping Debian {release} from packages (under a minute)")
    program, environment = _tools(mirror, folder)
    root = folder / "root"
    argv = debootstrap_argv(program, release, root, mirror.archive)
    try:
        process.run(argv, env={**environment, "SOURCE_DATE_EPOCH": str(EPOCH)}, timeout=1800)
    except process.ProcessFailed as error:
        log = root / "debootstrap" / "debootstrap.log"
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:] if log.is_file() else []
        raise RegistryFailure(
            f"Debian {release} could not be bootstrapped from packages",
            cause="\n".join([error.tail, *tail]).strip(),
            do="check that this host's apt mirror answers and has this release, or give a base image by digest",
        ) from error
    (root / "etc/dpkg/dpkg.cfg.d/cardstock").write_text(_DPKG_RULES, encoding="utf-8")
    _upgrade(root, mirror, release, folder / "apt")
    clean(root)
    return _pack(root, folder / "base.tar")


def _tools(mirror: debian.Mirror, folder: Path) -> tuple[str, dict[str, str]]:
    """A debootstrap to run and the environment it needs: the host's, else one unpacked beside."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    environment = {"PATH": path, "LC_ALL": "C", **_proxies()}
    found = shutil.which("debootstrap", path=path)
    if found and shutil.which("wget", path=path):
        return found, environment
    apt = debian.PrivateApt(folder / "apt-tools", mirror.lines(mirror.codename))
    apt.update()
    prefix = folder / "tools"
    debian.unpack(apt.download((*_TOOLS, _PSL.get(mirror.codename, "libpsl5t64")), folder / "debs"), prefix)
    if not shutil.which("wget", path=path):
        wrapper = prefix / "bin" / "wget"
        wrapper.parent.mkdir(exist_ok=True)
        lib = f"{prefix}/usr/lib/{os.uname().machine}-linux-gnu"
        script = f"#!/bin/sh\nLD_LIBRARY_PATH='{lib}' exec '{prefix}/usr/bin/wget' \"$@\"\n"
        wrapper.write_text(script, encoding="utf-8")
        wrapper.chmod(0o755)
        environment["PATH"] = f"{wrapper.parent}:{path}"
    environment["DEBOOTSTRAP_DIR"] = str(prefix / "usr/share/debootstrap")
    return str(prefix / "usr/sbin/debootstrap"), environment


def _proxies() -> Mapping[str, str]:
    """The proxies of this host's apt, for wget."""
    asked = ["apt-config", "shell", "http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy"]
    said = process.run(asked, check=False, timeout=30).out
    return dict(re.findall(r"^(https?_proxy)='([^']+)'$", said, re.MULTILINE))


def _upgrade(root: Path, mirror: debian.Mirror, release: str, folder: Path) -> None:
    """Bring security fixes in: the host's apt fetches for the new system, whose own dpkg installs."""
    apt = debian.PrivateApt(folder, mirror.lines(release))
    apt.update()
    debs = apt.download_upgrades(root)
    if not debs:
        return
    inside = root / "var/cache/apt/archives"
    names = [Path(shutil.copy(deb, inside)).relative_to(root) for deb in debs]
    environment = {"DEBIAN_FRONTEND": "noninteractive", "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C"}
    argv = ["chroot", str(root), "dpkg", "--install", *(f"/{name}" for name in names)]
    process.run(argv, env={**environment, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, timeout=900)


def clean(root: Path) -> None:
    """Take away what belongs to this host, to this minute, or to nobody."""
    for name in _EMPTIED:
        folder = root / name
        if folder.is_dir():
            for child in folder.iterdir():
                shutil.rmtree(child) if child.is_dir() and not child.is_symlink() else child.unlink()
    for name in _REMOVED:
        (root / name).unlink(missing_ok=True)
    for path in sorted((root / "usr/share/doc").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != "copyright":
            path.unlink()
    (root / "etc/machine-id").write_text("", encoding="ascii")


def _pack(root: Path, tar: Path) -> Path:
    """All files by name, with numeric owners, none newer than EPOCH."""
    arguments = ("--sort=name", "--numeric-owner", "--one-file-system", f"--mtime=@{EPOCH}", "--clamp-mtime")
    try:
        process.run(["tar", *arguments, "-C", str(root), "-cf", str(tar), "."], timeout=600)
    except process.ProcessFailed as error:
        raise CardstockError("the base could not be packed", cause=error.tail, do="free disk space") from error
    return tar
