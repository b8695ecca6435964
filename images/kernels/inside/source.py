"""The source: fetched or given, checked by hash, unpacked where it always is.

A source distribution for most packages; FlashInfer's source comes in a wheel.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from images.kernels.inside.failure import REFUSED, Failure
from images.kernels.inside.recipes import recipe

_HASH = re.compile(r"sha256:([0-9a-f]{64})")


def locked_hashes(lock: Path | None) -> frozenset[str]:
    """The sha256 digests that a lock allows; none without a lock."""
    if lock is None or not lock.is_file():
        return frozenset()
    return frozenset(_HASH.findall(lock.read_text(encoding="utf-8")))


def digest(path: Path) -> str:
    """A file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def obtain(
    package: str, version: str, *, given: Path | None, lock: Path | None, keep: Path, env: Mapping[str, str]
) -> Path:
    """The package's source: the file given, one kept in the folder ``keep``, or fetched with pip into it.

    Raises Failure when it cannot be had, or is not one that the lock allows.
    """
    allowed = locked_hashes(lock)
    keep.mkdir(parents=True, exist_ok=True)
    if given is None:
        kept = (path for path in sorted([*keep.glob("*.tar.gz"), *keep.glob("*.whl")]) if digest(path) in allowed)
        given = next(kept, None) or fetch(package, version, lock, keep, env)
    if allowed and digest(given) not in allowed:
        raise Failure(f"{given.name} has sha256 {digest(given)}, which the lock does not allow", REFUSED)
    return given


def fetch(package: str, version: str, lock: Path | None, folder: Path, env: Mapping[str, str]) -> Path:
    """Download with pip: it knows the site's index, proxy and CA. Raises Failure."""
    of = recipe(package)
    wanted = ["--require-hashes", "-r", str(lock)] if locked_hashes(lock) else [f"{of.source}=={version}"]
    form = ["--no-binary", of.source] if of.packed == "sdist" else ["--only-binary", of.source]
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    argv += ["--disable-pip-version-check", *form, "--dest", str(folder), *wanted]
    done = subprocess.run(argv, capture_output=True, text=True, env=dict(env), check=False)
    names = f"*{version}.tar.gz" if of.packed == "sdist" else f"*-{version}-*.whl"
    found = sorted(folder.glob(names), key=lambda path: path.stat().st_mtime)
    if done.returncode or not found:
        raise Failure(f"{of.source} {version} cannot be fetched: {(done.stderr or done.stdout).strip()[-2000:]}")
    return found[-1]


def unpack(archive: Path, folder: Path) -> Path:
    """The archive's top folder (a wheel's is itself), as ``folder``/source.

    It is left alone if it is this archive's already, with what was built.

    Always the same place, for paths are part of what a compiler cache compares. Raises Failure for a broken archive.
    """
    mark = folder / "unpacked"
    source = folder / "source"
    if source.is_dir() and mark.is_file() and mark.read_text(encoding="ascii") == digest(archive):
        return source
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)  # it is still there if something is mounted on it
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(folder / "new/top")  # noqa: S202  names that lead out stay in it, links become files
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(folder / "new", members=_plain(tar))  # noqa: S202  plain files and folders only
        (top,) = (folder / "new").iterdir()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise Failure(f"{archive.name} cannot be unpacked: {error}") from error
    top.rename(source)
    (folder / "new").rmdir()
    mark.write_text(digest(archive), encoding="ascii")
    return source


def _plain(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Files and folders that stay below the archive's top; Debian 12's Python has no filter for that yet.

    Raises ValueError for a way out of it. Links are left out: no package compiled here has one that its build needs.
    """
    members = [member for member in tar if member.isreg() or member.isdir()]
    for member in members:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{member.name} leads out of the archive")
    return members
