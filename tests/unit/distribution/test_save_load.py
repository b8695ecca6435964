"""Saving from one engine and loading into another, both in memory: resuming, layers left out, every kind of damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images.core import hold, lock_path, process
from images.core.errors import CardstockError, CheckFailed, EngineUnreachable, RegistryFailure, Unsafe, UsageError
from images.distribution import disk_space
from images.distribution import load as loading
from images.distribution import save as saving
from images.distribution.load import LOADING, drop_left, list_layers, load
from images.distribution.pieces import Piece, Stream, write_pieces
from images.distribution.push import pack_zstd
from images.distribution.save import ToSave, make_wish, save
from images.distribution.saved import SAVED_FILE, SUMS, Saved, SavedImage, SavedLayer, members, read_saved, tar_parts
from images.registry import digest_of
from images.render.labels import VARIANT
from tests.helpers.classic_engine import ClassicEngine
from tests.helpers.nonempty import nonempty
from tests.helpers.small_images import archive, configuration, diff_id, layer

NAME = "team/x"
BASE = [layer("base", 700_000), layer("stack", 900_000)]
LAYERS = {"a": [*BASE, layer("a", 800_000)], "b": [*BASE, layer("b", 1000), layer("top", 10)]}
IDS = {tag: diff_id(configuration(layers, {VARIANT: tag})) for tag, layers in LAYERS.items()}
SPLIT = 10**6

pytestmark = pytest.mark.skipif(shutil.which("zstd") is None, reason="the program zstd is not here: not run")


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "state"))


@pytest.fixture
def here() -> ClassicEngine:
    return ClassicEngine(*(archive(layers, {VARIANT: tag}, f"{NAME}:{tag}") for tag, layers in LAYERS.items()))


def asked(*tags: str) -> list[ToSave]:
    return [ToSave(tag, f"{NAME}:{tag}", (f"{NAME}:{tag}",), (), "canary: passed") for tag in tags]


def saved(engine: ClassicEngine, folder: Path, *tags: str, have: Any = None, say: Any = lambda _: None) -> Saved:
    return save(engine.as_engine(), make_wish(engine.as_engine(), asked(*tags), SPLIT, have), folder, say)


def loaded(engine: ClassicEngine, folder: Path, say: Any = lambda _: None) -> list[int]:
    return [one.given for one in load(engine.as_engine(), folder, read_saved(folder), NAME, say)]


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("piece-*")}


def test_images_go_over_layer_by_layer_and_each_layer_once(here: ClassicEngine, tmp_path: Path) -> None:
    written = saved(here, tmp_path, "a", "b")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "state") == sorted(
        [SAVED_FILE, SUMS, *(piece.name for piece in written.pieces)]
    )
    assert len(written.pieces) == 3
    there = ClassicEngine()
    assert loaded(there, tmp_path) == [3, 2]
    assert {tag: there.names[f"{NAME}:{tag}"] for tag in LAYERS} == IDS
    assert set(there.configurations) == set(IDS.values())  # what held layers meanwhile is gone
    blobs = [name for names in there.given for name in names]
    packed = [name for name in blobs if name[13:] in {one.digest[7:] for one in written.layers.values()}]
    assert len(packed) == len(set(packed)) == 5
    there.given.clear()
    assert loaded(there, tmp_path) == [0, 0]
    assert there.given == []


def test_a_name_that_was_taken_leads_to_it_again(here: ClassicEngine, tmp_path: Path) -> None:
    saved(here, tmp_path, "a")
    there = ClassicEngine(archive([layer("other", 10)], {VARIANT: "other"}, f"{NAME}:a"))
    loaded(there, tmp_path)
    assert there.names[f"{NAME}:a"] == IDS["a"]


def test_a_load_that_was_killed_goes_on_at_its_layer(here: ClassicEngine, tmp_path: Path) -> None:
    saved(here, tmp_path, "a", "b")
    there = ClassicEngine()
    there.loads_left = 2
    with pytest.raises(KeyboardInterrupt):
        loaded(there, tmp_path)
    assert len(there.images(LOADING)) == 2
    assert there.images(VARIANT) == ()
    there.loads_left = 100
    assert loaded(there, tmp_path) == [1, 2]
    assert there.images(LOADING) == ()


def test_what_a_load_left_is_dropped_on_request(here: ClassicEngine, tmp_path: Path) -> None:
    saved(here, tmp_path, "a")
    there = ClassicEngine()
    there.loads_left = 1
    with pytest.raises(KeyboardInterrupt):
        loaded(there, tmp_path)
    assert list_layers(there.as_engine()).chains == ((diff_id(BASE[0]),),)
    assert drop_left(there.as_engine()) == 1
    assert there.chains == {}
    with hold(lock_path("load", there.endpoint), "x"):
        said: list[str] = []
        assert drop_left(there.as_engine(), said.append) == 0
    assert "left as it is" in said[0]


def test_a_save_that_was_killed_goes_on(here: ClassicEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = saved(here, tmp_path / "whole", "a", "b")
    folder = tmp_path / "killed"
    real, packed = pack_zstd, 0

    def pack(path: Path, out: Path, level: int) -> None:
        nonlocal packed
        if packed == 2:
            out.write_bytes(b"half of it")
            raise KeyboardInterrupt
        packed += 1
        real(path, out, level)

    monkeypatch.setattr(saving, "pack_zstd", pack)
    with pytest.raises(KeyboardInterrupt):
        saved(here, folder, "a", "b")
    packed = -10
    cut = write_pieces

    def write(stream: Stream, folder: Path, split: int, say: Any) -> tuple[Piece, ...]:
        def told(line: str) -> None:
            if line.startswith("piece-0002"):
                raise KeyboardInterrupt

        return cut(stream, folder, split, told)

    monkeypatch.setattr(saving, "write_pieces", write)
    with pytest.raises(KeyboardInterrupt):
        saved(here, folder, "a", "b")
    assert packed == -10 + 3  # two were kept
    before, saves = stamps(folder), here.saves
    assert sorted(before) == ["piece-0001.part", "piece-0002.part"]
    assert not (folder / SAVED_FILE).exists()
    monkeypatch.setattr(saving, "write_pieces", cut)
    assert saved(here, folder, "a", "b") == whole
    assert (packed, here.saves) == (-10 + 3, saves)  # the engine was not asked again
    assert {name: stamp for name, stamp in stamps(folder).items() if name in before} == before
    assert not (folder / ".save").exists()


def test_a_packed_layer_that_was_damaged_meanwhile_is_packed_again(
    here: ClassicEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(saving, "write_pieces", stop)
        with pytest.raises(KeyboardInterrupt):
            saved(here, tmp_path, "a")
    one, two, _ = sorted((tmp_path / ".save").glob("*.zst"))
    one.write_bytes(one.read_bytes()[:-1] + b"x")
    two.unlink()
    saved(here, tmp_path, "a")
    assert loaded(ClassicEngine(), tmp_path) == [3]


def test_pieces_that_were_lost_or_damaged_where_it_was_saved_are_written_again(
    here: ClassicEngine, tmp_path: Path
) -> None:
    written = saved(here, tmp_path, "a", "b")
    before = stamps(tmp_path)
    (tmp_path / "piece-0001.part").unlink()
    (tmp_path / "piece-0002.part").write_bytes(b"x")
    (tmp_path / SUMS).unlink()
    said: list[str] = []
    assert saved(here, tmp_path, "a", "b", say=said.append) == written
    assert said[0] == "to be written again: piece-0001.part (missing), piece-0002.part (1 bytes instead of 1000000)"
    assert stamps(tmp_path)["piece-0003.part"] == before["piece-0003.part"]
    assert len((tmp_path / SUMS).read_text().splitlines()) == 4
    assert loaded(ClassicEngine(), tmp_path) == [3, 2]
    saves = here.saves
    assert saved(here, tmp_path, "a", "b", say=said.append) == written
    assert here.saves == saves
    assert said[-1] == "3 pieces are whole already"


def test_a_folder_with_something_else_is_left_alone(here: ClassicEngine, tmp_path: Path) -> None:
    saved(here, tmp_path, "a")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="holds something else that was saved") as caught:
        saved(here, tmp_path, "b")
    assert "a, in pieces of 1000000 bytes" in caught.value.cause
    with pytest.raises(UsageError, match="something else"):
        saved(here, tmp_path, "a", have=list_layers(here.as_engine()))
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_layers_that_the_other_side_has_are_not_sent(here: ClassicEngine, tmp_path: Path) -> None:
    there = ClassicEngine(archive(LAYERS["a"], {VARIANT: "a"}, f"{NAME}:a"))
    have = list_layers(there.as_engine())
    assert have.chains == (tuple(map(diff_id, LAYERS["a"])),)
    written = saved(here, tmp_path, "b", have=have)
    assert written.size < 20_000
    assert [one.sent for one in written.layers.values()] == [False, False, True, True]
    assert loaded(there, tmp_path) == [2]
    assert there.names[f"{NAME}:b"] == IDS["b"]
    # as docker load takes the joined pieces
    there.untag(f"{NAME}:b")
    there.load(iter([joined(tmp_path)]))
    assert there.names[f"{NAME}:b"] == IDS["b"]
    # a machine without them says which are lacking
    other = ClassicEngine(archive(BASE[:1], {VARIANT: "base"}, f"{NAME}:base"))
    with pytest.raises(CardstockError, match="b: 1 layers were left out that this engine has not") as caught:
        loaded(other, tmp_path)
    assert diff_id(BASE[1]) in caught.value.cause
    assert other.given == []
    # all of an image may be there already but its configuration
    same = saved(here, tmp_path / "same", "a", have=list_layers(here.as_engine()))
    assert not any(one.sent for one in same.layers.values())
    there.untag(f"{NAME}:a")
    there.load(iter([archive(LAYERS["a"], {VARIANT: "other"}, f"{NAME}:other")]))
    assert loaded(there, tmp_path / "same") == [0]
    assert there.names[f"{NAME}:a"] == IDS["a"]


def test_a_layer_that_one_image_needs_above_another_base_is_sent(here: ClassicEngine, tmp_path: Path) -> None:
    """An engine knows a layer by all that is below it: the same layer above another base is another to it."""
    moved = [layer("new base", 100), *BASE]
    here.load(iter([archive(moved, {VARIANT: "moved"}, f"{NAME}:moved")]))
    there = ClassicEngine(archive(LAYERS["a"], {VARIANT: "a"}, f"{NAME}:a"))
    written = saved(here, tmp_path, "a", "moved", have=list_layers(there.as_engine()))
    assert written.layers[diff_id(BASE[0])].sent
    assert not written.layers[diff_id(LAYERS["a"][2])].sent
    assert loaded(there, tmp_path) == [0, 3]


def joined(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("piece-*.part")))


def test_the_joined_pieces_are_dockers_archive(here: ClassicEngine, tmp_path: Path) -> None:
    saved(here, tmp_path, "a", "b")
    there = ClassicEngine()
    there.load(iter([joined(tmp_path)]))
    assert {tag: there.names[f"{NAME}:{tag}"] for tag in LAYERS} == IDS


def test_an_engine_that_keeps_layers_packed_gets_the_whole_at_once(here: ClassicEngine, tmp_path: Path) -> None:
    saved(here, tmp_path, "a", "b")
    there = ClassicEngine(containerd=True)
    assert list_layers(there.as_engine()).chains == ()
    assert loaded(there, tmp_path) == [3, 4]
    assert len(there.given) == 1
    assert loaded(there, tmp_path) == [0, 0]
    assert len(there.given) == 1
    with pytest.raises(CardstockError, match="does not come out of the engine whole"):
        saved(there, tmp_path / "again", "a")


def test_missing_and_damaged_pieces_are_named(here: ClassicEngine, tmp_path: Path) -> None:
    saved(here, tmp_path, "a", "b")
    there = ClassicEngine()
    first, second, third = sorted(tmp_path.glob("piece-*.part"))
    good = first.read_bytes()
    third.rename(tmp_path / "kept")
    with pytest.raises(CheckFailed, match="1 of 3 pieces are missing: nothing was loaded") as missing:
        loaded(there, tmp_path)
    assert missing.value.do == "bring them: piece-0003.part; then run the same again"
    first.write_bytes(good[:77] + bytes([good[77] ^ 1]) + good[78:])
    with pytest.raises(Unsafe, match=r"1 of 3 pieces are not what saved\.json says: nothing was loaded") as damaged:
        loaded(there, tmp_path)
    assert damaged.value.exit_code == 7
    assert damaged.value.cause.startswith("piece-0001.part: its SHA-256 is ")
    assert damaged.value.cause.endswith("; missing: piece-0003.part")
    assert damaged.value.do == "bring again: piece-0001.part piece-0003.part; then run the same again"
    assert there.given == []
    first.write_bytes(good)
    (tmp_path / "kept").rename(third)
    assert second.is_file()
    assert loaded(there, tmp_path) == [3, 2]


def test_of_many_pieces_the_first_are_named(tmp_path: Path) -> None:
    assert loading._shortened([str(n) for n in range(23)], " ").endswith("18 19 and 3 more")


# Pieces and an index that fit together, made by somebody else


def forge(
    folder: Path, written: Saved, blobs: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda _: None
) -> None:
    """Write pieces of these blobs under this index, changed: every piece has its digest."""
    told = json.loads(written.to_json())
    change(told)
    images = [SavedImage.model_validate_json(json.dumps(one)) for one in told["images"]]
    layers = {diff: SavedLayer.model_validate_json(json.dumps(one)) for diff, one in told["layers"].items()}
    for path in folder.glob("piece-*"):
        path.unlink()
    pieces = write_pieces(Stream(tar_parts(members(images, layers), dict(blobs))), folder, SPLIT)
    told["pieces"] = [vars(piece) for piece in pieces]
    (folder / SAVED_FILE).write_text(json.dumps(told))


def parts(written: Saved, folder: Path) -> dict[str, bytes]:
    """The configurations and layers that were saved."""
    whole, at, out = joined(folder), 0, {}
    for member in members(written.images, written.layers):
        if member.content is None:
            out[member.digest] = whole[at + 512 : at + 512 + member.size]
        at += member.room
    return out


def refused(there: ClassicEngine, folder: Path) -> str:
    with pytest.raises(Unsafe) as caught:
        loaded(there, folder)
    assert caught.value.exit_code == 7
    assert there.given == []
    return f"{caught.value.what}; {caught.value.cause}"


def test_pieces_of_something_else_are_refused_before_the_engine_gets_any(here: ClassicEngine, tmp_path: Path) -> None:
    written = saved(here, tmp_path, "a")
    blobs = parts(written, tmp_path)
    there = ClassicEngine()
    forge(tmp_path, written, blobs)
    loaded(ClassicEngine(), tmp_path)  # the forger's tools work: unchanged, it is taken
    own = written.layers[diff_id(LAYERS["a"][2])]
    evil = b"x" * own.size
    forge(tmp_path, written, {**blobs, own.digest: evil})
    assert own.digest[7:] in refused(there, tmp_path)
    # a layer under its own digest, that is another than the configuration says
    other = packed(layer("evil", 800_000))

    def swap(told: dict[str, Any]) -> None:
        told["layers"][diff_id(LAYERS["a"][2])] |= {"digest": digest_of(other), "size": len(other)}

    forge(tmp_path, written, {**blobs, digest_of(other): other}, swap)
    assert "a layer is not what the image's configuration says" in refused(there, tmp_path)
    # a configuration under its own digest, of other layers
    config = configuration([*BASE, layer("evil", 1)], {VARIANT: "a"})

    def other_config(told: dict[str, Any]) -> None:
        told["images"][0] |= {"id": digest_of(config), "configuration": len(config)}

    forge(tmp_path, written, {**blobs, digest_of(config): config}, other_config)
    assert "is made of other layers than saved.json says" in refused(there, tmp_path)
    for nonsense in nonempty([b"[]", b"{}", b'{"rootfs": {"diff_ids": 1}}', b"\xff\xff", b"[" * 5000]):
        config = nonsense
        forge(tmp_path, written, {**blobs, digest_of(config): config}, other_config)
        assert "has no configuration as images have it" in refused(there, tmp_path)


def test_a_layer_that_unpacks_without_end_is_stopped(here: ClassicEngine, tmp_path: Path) -> None:
    written = saved(here, tmp_path, "a")
    own = diff_id(LAYERS["a"][2])
    bomb = packed(bytes(200_000_000))

    def swap(told: dict[str, Any]) -> None:
        told["layers"][own] |= {"digest": digest_of(bomb), "size": len(bomb)}

    forge(tmp_path, written, {**parts(written, tmp_path), digest_of(bomb): bomb}, swap)
    assert "it has more than the 808960 bytes" in refused(ClassicEngine(), tmp_path)
    bomb = b"no zstd at all"
    forge(tmp_path, written, {**parts(written, tmp_path), digest_of(bomb): bomb}, swap)
    assert "zstd says" in refused(ClassicEngine(), tmp_path)


def test_bytes_between_the_files_are_held_against_the_index_too(here: ClassicEngine, tmp_path: Path) -> None:
    written = saved(here, tmp_path, "a")
    whole, there = joined(tmp_path), ClassicEngine()
    found = members(written.images, written.layers)
    places = {
        "oci-layout": 3,  # a header
        "index.json": found[0].room + 512,  # a content that follows from the index
        "manifest.json": sum(one.room for one in found[:2]) + 512 + found[2].size,  # what fills a block
        "its end": len(whole) - 1,
    }
    for name, place in nonempty(places.items()):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        pieces = write_pieces(Stream([changed]), tmp_path, SPLIT)
        told = json.loads(written.to_json())
        told["pieces"] = [vars(piece) for piece in pieces]
        (tmp_path / SAVED_FILE).write_text(json.dumps(told))
        said = refused(there, tmp_path)
        assert said.startswith("the joined pieces are not the archive that saved.json describes")
        assert name in said


def test_names_of_other_programs_images_are_not_taken(here: ClassicEngine, tmp_path: Path) -> None:
    written = saved(here, tmp_path, "a")
    for name in nonempty(["debian:latest", "team/x/y:a", "team/xx:a"]):

        def rename(told: dict[str, Any], name: str = name) -> None:
            told["images"][0]["tags"] = [name]

        forge(tmp_path, written, parts(written, tmp_path), rename)
        assert f"names an image that is none of team/x: {name}" in refused(ClassicEngine(), tmp_path)
        forge(tmp_path, written, parts(read_saved(tmp_path), tmp_path))


def test_without_zstd_the_engine_alone_looks_into_layers(
    here: ClassicEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = saved(here, tmp_path, "a")
    other = packed(layer("evil", 800_000))

    def swap(told: dict[str, Any]) -> None:
        told["layers"][diff_id(LAYERS["a"][2])] |= {"digest": digest_of(other), "size": len(other)}

    forge(tmp_path, written, {**parts(written, tmp_path), digest_of(other): other}, swap)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    said: list[str] = []
    there = ClassicEngine()
    with pytest.raises(Unsafe, match="a: the engine refuses a layer"):
        loaded(there, tmp_path, said.append)
    assert "the program zstd is not here: the engine alone holds unpacked layers against the image" in said
    assert there.images(VARIANT) == ()
    with pytest.raises(UsageError, match="need the program zstd"):
        saved(here, tmp_path / "other", "b")


def packed(content: bytes) -> bytes:
    out: list[bytes] = []
    process.pump(["zstd", "-qc"], [content], out.append)
    return b"".join(out)


# Engines and disks that do not play along


def test_a_small_disk_is_told_before(here: ClassicEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(here, tmp_path, "a")
    there = ClassicEngine(free=3_000_000)
    with pytest.raises(CardstockError, match=r"the disk is too small for what is loaded: 3\.\d+ MB needed, 3.00 MB"):
        loaded(there, tmp_path)
    assert there.given == []
    assert loaded(ClassicEngine(free=3_400_000), tmp_path) == [3]
    monkeypatch.setattr(disk_space, "disk_of", lambda _: disk_space.Disk("/x", 1, 5000))
    monkeypatch.setattr(disk_space, "check", lambda *_: None)
    with pytest.raises(CardstockError, match=r"the disk is too small for the pieces: 3\.4\d MB needed, 5.00 kB free"):
        saved(here, tmp_path / "other", "a")


def test_what_the_engine_says_is_told_as_a_load(
    here: ClassicEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(here, tmp_path, "a")
    there = ClassicEngine()

    def refuse(_: object) -> None:
        raise RegistryFailure("x", cause="the engine says: open /x: no such file or directory")

    monkeypatch.setattr(there, "load", refuse)
    with pytest.raises(CardstockError, match="a could not be loaded") as caught:
        loaded(there, tmp_path)
    assert caught.value.exit_code == 1
    monkeypatch.setattr(there, "load", lambda archive: [None for _ in archive])
    with pytest.raises(Unsafe, match="the engine made another image"):
        loaded(there, tmp_path)
    there.docker_version = "20.10.24"
    with pytest.raises(EngineUnreachable, match="cannot unpack its layers"):
        loaded(there, tmp_path)


def test_an_image_that_does_not_come_out_whole_is_told(
    here: ClassicEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CardstockError, match="has no image team/x:none any more"):
        saved(here, tmp_path, "none")
    monkeypatch.setattr(saving, "saved", lambda *_: iter(()))
    with pytest.raises(CardstockError, match="does not come out of the engine whole"):
        saved(here, tmp_path, "a")
    assert not list(tmp_path.glob("piece-*"))
