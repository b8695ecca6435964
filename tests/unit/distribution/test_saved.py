"""The index of saved images and the tar that follows from it: what is read is checked, a forged one is refused."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images.core.errors import Unsafe, UsageError
from images.distribution.have import common, read_have
from images.distribution.pieces import piece_name, sizes_of_pieces
from images.distribution.saved import (
    SAVED_FILE,
    Member,
    SavedImage,
    SavedLayer,
    blob_name,
    manifest_digest,
    members,
    offsets,
    read_saved,
    sums,
    tar_parts,
)
from images.registry import digest_of

DIFFS = tuple(digest_of(text) for text in (b"base", b"stack", b"own"))
PACKED = [b"packed " + text for text in (b"base", b"stack", b"own")]
CONFIG = json.dumps({"rootfs": {"diff_ids": DIFFS}}).encode()
LAYERS = {
    diff: SavedLayer(digest=digest_of(raw), size=len(raw), unpacked=1000, sent=True)
    for diff, raw in zip(DIFFS, PACKED, strict=True)
}
IMAGE = SavedImage(
    variant="cu1-x-sm90",
    id=digest_of(CONFIG),
    configuration=len(CONFIG),
    tags=("team/x:cu1-x-sm90", "team/x:cu1-x-sm90-0123"),
    archs=("9.0",),
    evidence="audit: passed",
    layers=DIFFS,
)
BLOBS: dict[str, Path | bytes] = {digest_of(raw): raw for raw in (CONFIG, *PACKED)}


def tar() -> bytes:
    parts = [part for part in tar_parts(members([IMAGE], LAYERS), BLOBS) if isinstance(part, bytes)]
    return b"".join(parts)


def index(size: int | None = None) -> dict[str, Any]:
    """A good one; its one piece is the tar of above."""
    sizes = sizes_of_pieces(size or len(tar()), 10**6)
    pieces = [{"name": piece_name(n), "size": one, "sha256": "0" * 64} for n, one in enumerate(sizes, 1)]
    return {
        "schema": 1,
        "images": [json.loads(IMAGE.model_dump_json())],
        "layers": {diff: json.loads(layer.model_dump_json()) for diff, layer in LAYERS.items()},
        "split": 10**6,
        "pieces": pieces,
    }


def test_the_tar_is_an_oci_layout_and_dockers_archive() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar())) as opened:
        found = {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]
    assert json.loads(found.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    listed = json.loads(found.pop("index.json"))
    (docker,) = json.loads(found.pop("manifest.json"))
    assert {name: digest_of(raw) for name, raw in found.items()} == {name: "sha256:" + name[-64:] for name in found}
    first, second = listed["manifests"]
    assert first["digest"] == second["digest"] == manifest_digest(IMAGE, LAYERS)
    assert second["annotations"] == {
        "io.containerd.image.name": "docker.io/team/x:cu1-x-sm90-0123",
        "org.opencontainers.image.ref.name": "cu1-x-sm90-0123",
    }
    raw = found[blob_name(first["digest"])]
    assert len(raw) == first["size"]
    manifest = json.loads(raw)
    assert manifest["config"]["digest"] == IMAGE.id
    kinds = {layer["mediaType"] for layer in manifest["layers"]}
    assert kinds == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    blobs = [blob_name(layer["digest"]) for layer in manifest["layers"]]
    assert docker == {"Config": blob_name(IMAGE.id), "RepoTags": list(IMAGE.tags), "Layers": blobs}
    assert [found[name] for name in blobs] == PACKED


def test_a_layer_that_is_not_sent_is_named_unpacked() -> None:
    left = SavedLayer(digest=DIFFS[0], size=1000, unpacked=1000, sent=False)
    found = members([IMAGE], {**LAYERS, DIFFS[0]: left})
    assert [member.digest for member in found if member.content is None] == [
        IMAGE.id,
        *(LAYERS[diff].digest for diff in DIFFS[1:]),
    ]
    manifest = json.loads(next(one.content for one in found if one.content and b'"config"' in one.content) or b"")
    assert manifest["layers"][0] == {
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": DIFFS[0],
        "size": 1000,
    }


def test_a_file_of_any_size_has_one_header() -> None:
    large = Member("x", 20 << 30, None, DIFFS[0])
    assert len(large.header) == 512
    assert tarfile.TarInfo.frombuf(large.header, "ascii", "strict").size == 20 << 30
    assert large.room == 512 + (20 << 30)
    assert offsets([Member("a", 1, b"a"), large]) == [512, 1536]


def test_a_good_index_is_read_and_written_alike(tmp_path: Path) -> None:
    (tmp_path / SAVED_FILE).write_text(json.dumps(index()))
    found = read_saved(tmp_path)
    assert found.images == (IMAGE,)
    assert found.size == len(tar())
    (tmp_path / SAVED_FILE).write_text(found.to_json())
    assert read_saved(tmp_path) == found
    listed = sums(found.plain_pieces(), found.to_json().encode()).splitlines()
    assert listed == [f"{digest_of(found.to_json().encode())[7:]}  saved.json", f"{'0' * 64}  piece-0001.part"]


def set_to(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(told: Any) -> None:
        for step in path[:-1]:
            told = told[step]
        told[path[-1]] = value

    return change


FORGED = {
    "a name with a folder": set_to("pieces", 0, "name", value="../piece-0001.part"),
    "a name from the root": set_to("pieces", 0, "name", value="/etc/passwd"),
    "another file's name": set_to("pieces", 0, "name", value="saved.json"),
    "a piece too large": set_to("pieces", 0, "size", value=1 << 60),
    "a piece of another size": set_to("pieces", 0, "size", value=77),
    "a size that is text": set_to("pieces", 0, "size", value="77"),
    "no digest": set_to("pieces", 0, "sha256", value="x" * 64),
    "no pieces": set_to("pieces", value=[]),
    "pieces without end": set_to("pieces", value=[{"name": "a", "size": 1, "sha256": "0" * 64}] * 10000),
    "a split of nothing": set_to("split", value=1),
    "no images": set_to("images", value=[]),
    "an image twice": lambda told: told["images"].append(told["images"][0]),
    "a name that a shell reads": set_to("images", 0, "tags", 0, value="x:$(reboot)"),
    "a name with a newline": set_to("images", 0, "tags", 0, value="team/x:a\n"),
    "a variant that ends a line": set_to("images", 0, "variant", value="a;b"),
    "evidence with control characters": set_to("images", 0, "evidence", value="\x1b[2J"),
    "a configuration too large": set_to("images", 0, "configuration", value=5 << 20),
    "a layer that is not there": set_to("images", 0, "layers", 0, value=digest_of(b"other")),
    "a layer of no image": lambda told: told["layers"].update({digest_of(b"y"): told["layers"][DIFFS[0]]}),
    "layers without end": set_to("images", 0, "layers", value=[DIFFS[0]] * 129),
    "a layer left out with another's digest": set_to("layers", DIFFS[0], "sent", value=False),
    "a layer larger than it was": set_to("layers", DIFFS[0], "size", value=10**9),
    "a layer below nothing": set_to("layers", DIFFS[0], "size", value=-1),
    "a field that is unknown": set_to("extra", value=1),
    "no schema of ours": set_to("schema", value=0),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_index_is_refused(what: str, tmp_path: Path) -> None:
    told = copy.deepcopy(index())
    FORGED[what](told)
    (tmp_path / SAVED_FILE).write_text(json.dumps(told))
    with pytest.raises(Unsafe, match="cannot be trusted") as caught:
        read_saved(tmp_path)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b'"x"', b"null"])
def test_what_is_no_index_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / SAVED_FILE).write_bytes(raw)
    with pytest.raises(Unsafe, match="cannot be trusted"):
        read_saved(tmp_path)


def test_an_index_that_is_not_there_or_newer_or_without_end_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file") as caught:
        read_saved(tmp_path)
    assert "./inv save" in caught.value.do
    (tmp_path / SAVED_FILE).write_text('{"schema": 2, "other": 1}')
    with pytest.raises(UsageError, match="form 2, this checkout reads form 1"):
        read_saved(tmp_path)
    (tmp_path / SAVED_FILE).write_bytes(b" " * (5 << 20))
    with pytest.raises(UsageError, match="too large"):
        read_saved(tmp_path)


# What the other side has


def test_common_layers_are_counted_from_the_base_on() -> None:
    assert common([], "abc") == 0
    assert common(["abx", "a", "xbc"], "abc") == 2
    assert common(["abcd"], "abc") == 3
    assert common(["bc"], "abc") == 0


def test_what_another_machine_has_is_read_of_three_kinds_of_files(tmp_path: Path) -> None:
    listed = {"schema": 1, "engine": "26.1.5", "chains": [list(DIFFS)]}
    inspected = [
        {"Id": "sha256:0", "RootFS": {"Type": "layers", "Layers": list(DIFFS)}, "Config": {"Env": ["A=b"]}},
        {"Id": "sha256:1", "RootFS": {"Type": "layers"}},
    ]
    chains = []
    for content in (listed, inspected, index()):
        (tmp_path / "have").write_text(json.dumps(content))
        chains.append(read_have(tmp_path / "have").chains)
    assert chains == [(DIFFS,)] * 3


@pytest.mark.parametrize(
    "content",
    [
        {"schema": 2, "engine": "", "chains": []},
        {"schema": 1, "engine": "", "chains": [["sha256:0"]]},
        {"schema": 1, "engine": "", "chains": [[DIFFS[0]] * 129]},
        {"schema": 1, "engine": "", "chains": [[DIFFS[0]]] * 1001},
        {"schema": 1, "engine": "", "chains": [], "more": 1},
        [{"RootFS": {"Layers": ["x"]}}],
        [{"RootFS": {"Layers": DIFFS[0]}}],
        [1],
        {"pieces": 1},
        "x",
    ],
)
def test_what_is_no_list_of_layers_is_refused(content: object, tmp_path: Path) -> None:
    (tmp_path / "have").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="is no list of layers") as caught:
        read_have(tmp_path / "have")
    assert "docker image inspect" in caught.value.do
