"""A server's cache, through the engine: what is compiled code in it is kept, and nothing else."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from images.compiled.cache import keep
from images.compiled.inside.archive import members
from images.compiled.store import CompiledStore
from images.core.errors import CheckFailed
from images.docker.engine import Engine
from tests.helpers.compiled_code import FILES, KEY

SAID = {"id": "sha256:" + "e" * 64, "variant": "v", "called": "tiny", "driver": "", "seconds": 1.5}


class CacheOnly:
    """An engine whose one container has a cache of these files."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files, self.asked = files, list[str]()

    @property
    def containers(self) -> Any:
        return self

    @contextmanager
    def archive(self, name: str, path: str) -> Iterator[Iterator[bytes] | None]:
        """As the engine gives a folder: names begin with its last part."""
        assert name == "a-container"
        self.asked.append(path)
        below = path.removeprefix("/cache/")
        found = {file: content for file, content in self.files.items() if file.startswith(f"{below}/")}
        if not found:
            yield None
            return
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for file, content in found.items():
                entry = tarfile.TarInfo(file[len(below.rpartition("/")[0]) :].lstrip("/"))
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        yield iter([packed.getvalue()])


def kept_of(files: Mapping[str, bytes], tmp_path: Path) -> tuple[CacheOnly, CompiledStore]:
    engine, store = CacheOnly(files), CompiledStore(tmp_path / "store")
    keep(cast("Engine", engine), "a-container", KEY, store, **SAID)
    return engine, store


def test_compiled_code_is_kept_by_its_key(tmp_path: Path) -> None:
    others = {"huggingface/hub/weights": b"w", "vllm/modelinfos/x.json": b"{}", "inductor/locks/x.lock": b""}
    engine, store = kept_of({**FILES, **others}, tmp_path)
    kept = store.get(KEY)
    assert kept is not None and kept.origin.trusted
    assert (kept.record.files, kept.record.variant, kept.record.seconds) == (4, "v", 1.5)
    assert [entry.name for entry, _ in members(kept.archive)] == sorted(FILES)
    # The weights are not even asked for.
    assert sorted(engine.asked) == [
        "/cache/cuda", "/cache/flashinfer", "/cache/inductor", "/cache/triton", "/cache/vllm/deep_gemm",
        "/cache/vllm/torch_compile_cache",
    ]  # fmt: skip


def test_the_same_cache_gives_the_same_archive(tmp_path: Path) -> None:
    _, one = kept_of(FILES, tmp_path / "one")
    _, two = kept_of(dict(reversed(FILES.items())), tmp_path / "two")
    assert one.entries()[0].archive.read_bytes() == two.entries()[0].archive.read_bytes()


@pytest.mark.parametrize("files", [{}, {"huggingface/hub/weights": b"w"}, {"inductor/locks/x.lock": b""}])
def test_where_nothing_was_compiled_nothing_is_kept(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    with pytest.raises(CheckFailed, match="the server has compiled nothing"):
        kept_of(files, tmp_path)
    assert not CompiledStore(tmp_path / "store").entries()
