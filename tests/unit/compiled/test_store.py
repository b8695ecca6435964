"""Compiled code on this machine: kept whole, checked whenever it is used, with where it is from."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from images.compiled.record import ARCHIVE, FILE, make_record, parse_record, read_record
from images.compiled.store import (
    MADE_HERE,
    ORIGIN,
    CompiledStore,
    Origin,
    read_file_into,
    signer_text,
    write_file,
)
from images.core.errors import Unsafe, UsageError
from images.registry import Identity
from tests.helpers.compiled_code import KEY, filed, other, write_record
from tests.helpers.nonempty import nonempty


@pytest.fixture
def store(tmp_path: Path) -> CompiledStore:
    return CompiledStore(tmp_path / "compiled")


def test_what_is_put_is_found_by_its_key_alone(store: CompiledStore) -> None:
    kept = filed(store)
    found = store.get(KEY)
    assert found == kept
    assert (kept.record.key, kept.origin, kept.origin.trusted) == (KEY, MADE_HERE, True)
    assert store.get(other(card="NVIDIA L4")) is None
    assert store.entries() == (kept,)
    assert [path.name for path in store.root.iterdir() if path.name != ".work"] == [KEY.digest]


def test_the_newer_takes_the_place_of_the_older(store: CompiledStore) -> None:
    filed(store)
    kept = filed(store, files={"triton/ABC/kernel.cubin": b"newer"})
    assert store.get(KEY) == kept
    assert kept.record.files == 1


def test_the_code_of_another_key_is_not_put(store: CompiledStore) -> None:
    kept = filed(store, other(card="NVIDIA L4"))
    with store.work() as folder:
        for name in (FILE, ARCHIVE):
            (folder / name).write_bytes((kept.folder / name).read_bytes())
        with pytest.raises(Unsafe, match=r"(?s)another key.*card: NVIDIA L4, not NVIDIA H200"):
            store.put(KEY, folder, MADE_HERE)
    assert store.get(KEY) is None


DAMAGES: dict[str, Callable[[Path], object]] = {
    "archive changed": lambda folder: (folder / ARCHIVE).write_bytes(b"x" * (folder / ARCHIVE).stat().st_size),
    "archive cut": lambda folder: (folder / ARCHIVE).write_bytes((folder / ARCHIVE).read_bytes()[:-3]),
    "archive gone": lambda folder: (folder / ARCHIVE).unlink(),
    "record broken": lambda folder: (folder / FILE).write_text("{"),
    "record gone": lambda folder: (folder / FILE).unlink(),
    "origin gone": lambda folder: (folder / ORIGIN).unlink(),
    "origin odd": lambda folder: (folder / ORIGIN).write_text('{"source": "x", "signer": "\\u001b"}'),
    "another's": lambda folder: write_record(folder, other(card="NVIDIA L4")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_said_and_removed(store: CompiledStore, damage: str) -> None:
    kept, said = filed(store), list[str]()
    DAMAGES[damage](kept.folder)
    assert store.get(KEY, said.append) is None
    assert len(said) == 1 and said[0].startswith(f"removed from {store.root}: ")
    assert not kept.folder.exists()


def test_who_may_be_trusted() -> None:
    assert Origin().trusted
    assert Origin("registry.example.com/q@sha256:1", "key sha256:2").trusted
    assert not Origin("registry.example.com/q@sha256:1").trusted


def test_a_signer_in_words(tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text("key")
    assert signer_text(tmp_path / "cosign.pub") == "key sha256:2c70e12b7a06"
    assert signer_text(Identity("^https://ci/.*")) == "identity ^https://ci/.*"


def test_as_one_file_for_another_machine(store: CompiledStore, tmp_path: Path) -> None:
    kept = filed(store)
    write_file(kept, tmp_path / "one.tar")
    write_file(kept, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    there = CompiledStore(tmp_path / "there")
    with there.work() as folder:
        assert read_file_into(tmp_path / "one.tar", folder) == kept.record
        assert there.put(KEY, folder, Origin("one.tar")).record == kept.record


@pytest.mark.parametrize("names", [[], [FILE], ["../x"], [FILE, FILE], [FILE, ARCHIVE, "more"], ["/etc/passwd"]])
def test_another_file_is_refused(tmp_path: Path, names: list[str]) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    (tmp_path / "into").mkdir()
    with pytest.raises(UsageError, match=r"no file of \./inv warm --out"):
        read_file_into(tmp_path / "one.tar", tmp_path / "into")
    assert not (tmp_path / "x").exists()
    (tmp_path / "no.tar").write_text("no tar")
    with pytest.raises(UsageError, match="cannot be read"):
        read_file_into(tmp_path / "no.tar", tmp_path / "into")


def test_a_record_says_what_it_may_and_no_more(store: CompiledStore) -> None:
    kept = filed(store)
    assert read_record(kept.folder) == parse_record(kept.record.to_json(), "x") == kept.record
    said = json.loads(kept.record.to_json())
    bad = (
        {**said, "more": 1},
        {**said, "size": -1},
        {**said, "sha256": "x"},
        {**said, "variant": "a\x1b[0m"},
        {**said, "key": {**said["key"], "image": "latest"}},
        {**said, "key": {**said["key"], "flags": {"--x": 1}}},
        {**said, "key": {**said["key"], "capability": "9.0; rm"}},
    )
    for one in nonempty(bad):
        with pytest.raises(Unsafe, match="not what such a record is"):
            parse_record(json.dumps(one), "x")
    with pytest.raises(UsageError, match="newer version"):
        parse_record(json.dumps({**said, "schema": 2}), "x")
    with pytest.raises(Unsafe):
        make_record(KEY, variant="x")
