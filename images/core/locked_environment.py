"""Python environments beside the development one: made of a lock with hashes, on first use, outside of the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from images.core import process
from images.core.errors import RegistryFailure, Unsafe, UsageError

_SECONDS = 1200.0
# uv does not read pip's settings, and who set up pip for ./inv need not do it twice.
_PIP = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_CERT": "SSL_CERT_FILE"}
Say = Callable[[str], None]


def provide_environment(lock: Path, home: Path, say: Say = lambda _: None, uv: str | None = None) -> Path:
    """The Python of the environment that ``lock`` describes, below ``home``/environments; made if it is not there yet.

    Raises Unsafe when a package is not what the lock says, RegistryFailure when one cannot be had.
    """
    text = lock.read_bytes() + sys.version.encode()
    folder = home / "environments" / f"{lock.stem}-{hashlib.sha256(text).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    if python.exists():
        return python
    say(f"installing what {lock.name} lists into {folder} (once, about a minute)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        work = Path(temporary) / "whole"
        _install(uv or find_uv(), lock, work)
        if not python.exists():  # another run may have been faster
            shutil.rmtree(folder, ignore_errors=True)  # or its Python is gone
            work.replace(folder)
    return python


def find_uv() -> str:
    """The program of the package uv, wherever pip put it. Raises UsageError where it is not there."""
    from uv import find_uv_bin

    try:
        return find_uv_bin()
    except FileNotFoundError as error:
        raise UsageError(
            "uv is not beside this Python, and makes the environments of the demo page and of downloads",
            cause=str(error),
            do="install it: pip install uv",
        ) from error


def uv_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add for uv: pip's index and CA, where uv's own are not set."""
    return {new: environment[old] for old, new in _PIP.items() if old in environment and new not in environment}


def _own_python() -> str:
    """The Python that this one's environment was made of: such an environment (uvx) may be gone while ours is kept."""
    return os.path.realpath(sys.executable)


def _install(uv: str, lock: Path, folder: Path) -> None:
    env = uv_settings(os.environ)
    process.run([uv, "venv", "--quiet", "--relocatable", "--python", _own_python(), str(folder)], env=env, timeout=60)
    argv = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), "--require-hashes", "--no-deps"]
    try:
        process.run([*argv, "-r", str(lock)], env=env, timeout=_SECONDS)
    except process.ProcessFailed as error:
        if "Hash mismatch" in error.tail:
            raise Unsafe(
                f"a package is not what {lock.name} says",
                cause=error.tail,
                do="do not use this package index; or, if the lock was edited, make it again",
                where=str(lock),
            ) from error
        raise RegistryFailure(
            f"the packages of {lock.name} could not be installed",
            cause=error.tail,
            do="set what uv needs (UV_DEFAULT_INDEX, SSL_CERT_FILE, HTTPS_PROXY), then run again",
            where=str(lock),
        ) from error
