"""A server's cache, through the engine: what it has compiled is taken out, and put into another one.

The cache is a volume or a folder of the engine's machine. Nothing of this machine's disk is written through it: a
container of the image, as the image's own user and without a network, does (`inside/archive.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images.compiled.inside import archive as inside
from images.compiled.key import CompiledKey
from images.compiled.pack import pack, take
from images.compiled.record import ARCHIVE, FILE, make_record
from images.compiled.store import MADE_HERE, CompiledStore, Kept
from images.core import UTC, CardstockError, CheckFailed, Unsafe
from images.docker import Mount
from images.registry import digest_of_file
from images.render import CACHE

if TYPE_CHECKING:
    from images.docker import Engine

# The image's Python; the Dockerfile's template has it so.
PYTHON = "/opt/venv/bin/python"
_HERE = "/cardstock-compiled"
_SECONDS = 600.0
# Folders of the cache that are asked for: the first part of each kept one would bring the weights along.
_FOLDERS = tuple(sorted(name for name in inside.UNITS if not any(name.startswith(f"{one}/") for one in inside.UNITS)))


@dataclass(frozen=True)
class Filled:
    """What came of filling a cache: ``there`` it was before, else ``units`` were moved in and ``kept`` were there."""

    there: bool
    files: int = 0
    units: int = 0
    kept: int = 0


def fill(engine: Engine, image: str, cache: str, kept: Kept) -> Filled:
    """Put compiled code into a cache (a volume's name, or an absolute path), before its server starts.

    Raises Unsafe for an archive that is refused in there, CardstockError where the cache cannot be written.
    """
    digest = kept.record.key.digest
    ran = engine.run(
        image,
        ["-I", "-B", f"{_HERE}/archive.py", f"{_HERE}/{ARCHIVE}", CACHE, digest],
        entrypoint=(PYTHON,),
        mounts=(Mount(cache, CACHE, read_only=False),),
        files={f"{_HERE}/archive.py": Path(inside.__file__), f"{_HERE}/{ARCHIVE}": kept.archive},
        timeout=_SECONDS,
        check=False,
    )
    told = _told(ran.out)
    if ran.code == inside.REFUSED:
        raise Unsafe("the compiled code was refused", cause=str(told.get("why")), do="nothing of it was used")
    if ran.code or told.get("state") not in ("filled", "there"):
        raise CardstockError(
            f"the compiled code could not be put into {cache}",
            cause=str(told.get("why") or (ran.err or ran.out).strip()[-300:] or f"exit code {ran.code}"),
            do="see that the image's user (10001) may write there; the server starts without",
        )
    if told["state"] == "there":
        return Filled(True)
    return Filled(False, int(told["files"]), int(told["units"]), int(told["kept"]))


def _told(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def keep(engine: Engine, container: str, key: CompiledKey, store: CompiledStore, **said: object) -> Kept:
    """Take what the server of a container has compiled, pack it, and keep it on this machine by its key.

    The container may have ended. ``said`` are `id`, `variant`, `called`, `driver` and `seconds` of the record. Raises
    CheckFailed where it has compiled nothing.
    """
    with store.work() as folder:
        files = folder.parent / "files"
        files.mkdir()
        taken = 0
        for name in _FOLDERS:
            with engine.containers.archive(container, f"{CACHE}/{name}") as chunks:
                if chunks is not None:
                    taken += take(chunks, name.rpartition("/")[0], files)
        if not taken:
            raise CheckFailed(
                "there is nothing to keep: the server has compiled nothing",
                cause="its image computes without a compiler (CARDSTOCK_JIT=none), or its cache is elsewhere",
                do="./inv serve it as it is",
            )
        count, unpacked = pack(files, folder / ARCHIVE)
        record = make_record(
            key,
            sha256=digest_of_file(folder / ARCHIVE).removeprefix("sha256:"),
            size=(folder / ARCHIVE).stat().st_size,
            files=count,
            unpacked=unpacked,
            made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **said,
        )
        (folder / FILE).write_text(record.to_json(), encoding="utf-8")
        return store.put(key, folder, MADE_HERE)
