"""Keys, records and the local store: equal facts share a wheel, other ones do not, and damage is noticed on use."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images.core.errors import CardstockError, CheckFailed, Unsafe
from images.kernels.key import cxx11_abi, key_of, key_of_record, source_hash
from images.kernels.record import parse_record, read_record
from images.kernels.store import Store, check_build, default_store
from tests.helpers.wheels import SOURCE, build, kernel, key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "wheels")


def stored(store: Store, *archs: str, fill: int = 1) -> Path:
    with store.work() as folder:
        return store.put(key(*archs), build(folder, *archs, fill=fill)).folder


# -- keys


def test_a_key_is_the_same_whatever_lock_and_order_it_comes_from() -> None:
    other = replace(kernel("7.5"), lock="another", env=tuple(reversed(kernel("7.5").env)))
    assert key_of(other, SOURCE).digest == key("7.5").digest
    assert len(key("7.5").digest) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"package": "flash-attn"},
        {"version": "0.0.30"},
        {"torch": "2.5.1"},
        {"cuda": "12.6"},
        {"python": "3.12"},
        {"env": (("TORCH_CUDA_ARCH_LIST", "7.5"),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_fact_makes_another_key(change: dict[str, object]) -> None:
    assert key_of(replace(kernel("7.5"), **change), SOURCE).digest != key("7.5").digest  # type: ignore[arg-type]


def test_source_archs_and_abi_make_another_key() -> None:
    mine = key("7.5")
    others = [key("7.5", source="cd" * 32), key("7.0", "7.5"), replace(mine, cxx11_abi=True)]
    assert len({mine.digest, *(other.digest for other in others)}) == 4


def test_the_local_part_of_torch_says_nothing_that_cuda_does_not() -> None:
    assert key_of(kernel(torch="2.6.0+cu124"), SOURCE) == key_of(kernel(torch="2.6.0"), SOURCE)


@pytest.mark.parametrize(
    "torch, cuda, new",
    [
        ("2.4.1", "12.1", False),
        ("2.5.1+cu121", "12.1", False),
        ("2.6.0", "12.4", False),
        ("2.6.0", "12.6", True),
        ("2.7.0", "12.6", True),
        ("2.11.0", "13.0", True),
    ],
)
def test_the_abi_of_torchs_wheels(torch: str, cuda: str, new: bool) -> None:
    assert cxx11_abi(torch, cuda) == new


def test_the_source_is_the_one_a_lock_names_or_the_only_one() -> None:
    one, two = "1" * 64, "2" * 64
    lines = f"xformers==1 \\\n    --hash=sha256:{one} \\\n    --hash=sha256:{two}\n"
    assert source_hash(f"# source: sha256:{two}\n{lines}") == two
    assert source_hash(lines) is None
    assert source_hash(f"flash-attn==1 \\\n    --hash=sha256:{one}\n") == one


def test_a_record_amounts_to_the_key_it_was_built_for(tmp_path: Path) -> None:
    assert key_of_record(read_record(build(tmp_path / "x", "7.0", "7.5"))) == key("7.0", "7.5")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "package": 3}'])
def test_what_is_no_record(text: str) -> None:
    with pytest.raises(CheckFailed, match="is no record"):
        parse_record(text, "here")


def test_a_wheels_name_is_no_path(tmp_path: Path) -> None:
    folder = build(tmp_path / "x", wheel="../../x.whl")
    with pytest.raises(CheckFailed, match="is no record"):
        read_record(folder)


# -- what is taken in


@pytest.mark.parametrize(
    "lie, told",
    [
        ({"torch": "2.5.1+cu124"}, "torch is 2.5.1, not 2.6.0"),
        ({"cuda": "12.1"}, "cuda is 12.1, not 12.4"),
        ({"cxx11_abi": True}, "cxx11_abi is True, not False"),
        ({"source_sha256": "0" * 64}, "source_sha256"),
        ({"python": "3.12.1"}, "python is 3.12"),
        ({"env": {}}, "env"),
        ({"archs": ["7.0"]}, "archs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_of_another_key_is_refused(tmp_path: Path, lie: dict[str, Any], told: str) -> None:
    with pytest.raises(Unsafe, match="not the one that was asked for") as caught:
        check_build(key(), build(tmp_path / "x", **lie))
    assert told in caught.value.cause
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("numbers", [(80,), (75, 80), (70,)])
def test_device_code_of_other_cards_is_refused_whatever_the_record_says(
    tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    with pytest.raises(CheckFailed, match=r"is not for 7\.5 alone") as caught:
        check_build(key(), build(tmp_path / "x", numbers=numbers))
    assert "xformers/_C.so holds" in caught.value.cause


def test_a_kernel_that_lacks_a_card_is_refused_though_the_library_names_it(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"is not for 7\.0 7\.5 alone") as caught:
        check_build(key("7.0", "7.5"), build(tmp_path / "x", "7.0", "7.5", partly=True))
    assert "7.5 in 1 of 2" in caught.value.cause


def test_a_library_that_the_record_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="is not for"):
        check_build(key(), build(tmp_path / "x", audit={}))


def test_a_file_beside_is_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "x")
    (folder / "sitecustomize.py").write_text("")
    with pytest.raises(CheckFailed, match=r"sitecustomize\.py"):
        check_build(key(), folder)


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "x")
    wheel = folder / read_record(folder).wheel
    wheel.write_bytes(b"x" * wheel.stat().st_size)
    with pytest.raises(Unsafe, match="it was changed"):
        check_build(key(), folder)


# -- the store


def test_what_was_put_is_found_and_nothing_else_is_left(store: Store) -> None:
    assert store.get(key()) is None
    stored(store)
    found = store.get(key())
    assert found is not None
    assert (found.digest, found.wheel.parent) == (key().digest, store.root / key().digest)
    assert store.get(key("7.0")) is None
    assert [one.digest for one in store.entries()] == [key().digest]
    assert list((store.root / ".work").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone", "record", "record of another", "no record"])
def test_damage_is_noticed_said_and_out_of_the_way(store: Store, tmp_path: Path, damage: str) -> None:
    folder = stored(store)
    wheel = next(folder.glob("*.whl"))
    if damage == "truncated":
        os.truncate(wheel, wheel.stat().st_size - 1)
    elif damage == "changed":
        wheel.write_bytes(wheel.read_bytes()[:-1] + b"\1")
    elif damage == "gone":
        wheel.unlink()
    elif damage == "record":
        (folder / "kernel.json").write_text("{")
    elif damage == "no record":
        (folder / "kernel.json").unlink()
    else:
        shutil.rmtree(folder)
        shutil.copytree(build(tmp_path / "other", "7.0"), folder)
    said: list[str] = []
    assert store.get(key(), said.append) is None
    assert len(said) == 1 and "damaged" in said[0]
    assert not folder.exists()
    stored(store)
    assert store.get(key()) is not None


def test_a_bad_build_leaves_the_store_as_it_was(store: Store) -> None:
    with store.work() as folder, pytest.raises(CardstockError):
        store.put(key(), build(folder, numbers=(80,)))
    assert store.entries() == ()
    assert not (store.root / key().digest).exists()


def test_a_second_put_replaces_the_first(store: Store) -> None:
    stored(store, fill=1)
    first = store.get(key())
    stored(store, fill=2)
    second = store.get(key())
    assert first is not None and second is not None
    assert first.record.sha256 != second.record.sha256


def test_the_store_lies_outside_of_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path))
    assert default_store().root == tmp_path / "wheels"


def _make(root: Path, barrier: object, made: Path) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    store = Store(root)
    for _ in range(20):
        with store.locked(key()):
            if store.get(key()) is None:
                with made.open("a") as log:
                    log.write("made\n")
                with store.work() as folder:
                    store.put(key(), build(folder))


def test_of_several_processes_one_makes_it(store: Store, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    barrier = spawn.Barrier(4)
    workers = [spawn.Process(target=_make, args=(store.root, barrier, tmp_path / "log")) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "log").read_text() == "made\n"


def _put_and_get(root: Path, barrier: object, fill: int) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    store = Store(root)
    for _ in range(20):
        with store.work() as folder:
            store.put(key(), build(folder, fill=fill))


def test_one_who_only_reads_meets_a_whole_entry_or_none(store: Store) -> None:
    stored(store)
    spawn = multiprocessing.get_context("fork")
    barrier = spawn.Barrier(2)
    writer = spawn.Process(target=_put_and_get, args=(store.root, barrier, 2))
    writer.start()
    barrier.wait()
    read = 0
    while writer.is_alive() or not read:
        for entry in store.entries():
            assert entry.digest == key().digest
            read += 1
    writer.join()
    assert writer.exitcode == 0
    found = store.get(key())
    assert found is not None and json.loads((found.folder / "kernel.json").read_text())["sha256"] == found.record.sha256
