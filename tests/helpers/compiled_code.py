"""Compiled code for tests: a key, a cache's files, an archive of them, an entry of a store."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from images.compiled.key import CompiledKey
from images.compiled.pack import pack
from images.compiled.record import ARCHIVE, FILE, make_record
from images.compiled.store import MADE_HERE, CompiledStore, Kept, Origin
from images.core.errors import Unsafe
from images.registry import digest_of_file
from tests.helpers.registries import FakeRegistry

KEY = CompiledKey(
    image="sha256:" + "a" * 64,
    capability="9.0",
    card="NVIDIA H200",
    model="b" * 64,
    place="/models",
    flags=(("--dtype", "half"), ("--max-model-len", "8192")),
    env=(("VLLM_USE_V1", "1"),),
)
FILES = {
    "triton/ABC/kernel.cubin": b"cubin",
    "triton/ABC/kernel.json": b"{}",
    "vllm/torch_compile_cache/0123456789/rank_0_0/backbone/vllm_compile_cache.py": b"{}\n",
    "inductor/fx/graph": b"graph",
}


def other(**changes: Any) -> CompiledKey:
    """The key with other facts."""
    return replace(KEY, **changes)


def laid(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder


def archive_of(into: Path, entries: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """An archive of these very entries, whatever they are."""
    with gzip.open(into, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for entry, content in entries:
            if entry.isreg():
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return into


def filed(
    store: CompiledStore, key: CompiledKey = KEY, files: Mapping[str, bytes] = FILES, origin: Origin = MADE_HERE
) -> Kept:
    """Compiled code in a store."""
    with store.work() as folder:
        below = laid(folder.parent / "files", files)
        count, unpacked = pack(below, folder / ARCHIVE)
        write_record(folder, key, files=count, unpacked=unpacked)
        return store.put(key, folder, origin)


def write_record(folder: Path, key: CompiledKey, **said: Any) -> None:
    """A record of the archive in a folder; ``said`` wins over what is true."""
    archive = folder / ARCHIVE
    true: dict[str, Any] = {
        "sha256": digest_of_file(archive).removeprefix("sha256:"), "size": archive.stat().st_size, "files": 1,
        "unpacked": 1, "id": "sha256:" + "e" * 64,
        "variant": "cu130-vllm0.33.0-flash-attn-sm90", "called": "3b-awq", "driver": "580.159.04",
        "seconds": 70.9, "made": "2026-11-28T07:00:00Z",
    }  # fmt: skip
    (folder / FILE).write_text(make_record(key, **{**true, **said}).to_json(), encoding="utf-8")


class FakeCosign:
    """Signs and verifies by name; ``tags`` is what the registry had when something was signed."""

    def __init__(self, shelf: FakeRegistry) -> None:
        self.shelf, self.signed, self.tags, self.asked = shelf, set[str](), list[list[str]](), list[str]()

    def sign(self, repository: str, digest: str, key: Path | None) -> None:
        self.signed.add(digest)
        self.tags.append([name for name in self.shelf.manifests if name.startswith("compiled-")])

    def verify(self, repository: str, digest: str, signer: Path) -> None:
        self.asked.append(digest)
        if digest not in self.signed:
            raise Unsafe(f"{repository}@{digest} is not signed by this signer", cause="no signatures found")
