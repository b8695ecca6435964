"""Registries: what comes back has its digest or does not come back; passing faults pass, lasting ones are told."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.core.errors import RegistryFailure, Unsafe
from images.registry import artifact, client
from images.registry.artifact import ArtifactPart
from images.registry.client import Repository
from images.registry.descriptor import Blob, digest_of
from images.registry.retry import ATTEMPTS
from tests.helpers.registries import Asked, FakeRegistry, Fault, Reply, registry

KIND = "application/vnd.cardstock.test.v1"
DATA = bytes(range(256)) * 40


class Place:
    """A repository of the registry in memory; waits are written down instead of waited."""

    def __init__(self, host: str, shelf: FakeRegistry) -> None:
        self.host, self.shelf = host, shelf
        self.waits: list[float] = []
        self.said: list[str] = []
        self.repository = Repository(f"{host}/team/wheels", sleep=self.waits.append, say=self.said.append)

    def blob(self, data: bytes = DATA) -> Blob:
        digest = digest_of(data)
        self.shelf.blobs[digest] = data
        return Blob("application/zip", digest, len(data))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not be asked for this machine itself
    with registry() as (host, shelf):
        yield Place(host, shelf)


@pytest.fixture
def files(tmp_path: Path) -> list[ArtifactPart]:
    (tmp_path / "kernel.json").write_text('{"a": 1}')
    (tmp_path / "x-1.whl").write_bytes(DATA)
    return [
        ArtifactPart(tmp_path / "kernel.json", "application/json"),
        ArtifactPart(tmp_path / "x-1.whl", "application/zip"),
    ]


def test_what_was_pushed_comes_back(place: Place, files: list[ArtifactPart], tmp_path: Path) -> None:
    digest = artifact.push(place.repository, "key", KIND, files, {"b": "2", "a": "1"})
    found = artifact.look(place.repository, "key", KIND)
    assert found is not None
    assert (found.digest, found.notes, list(found.files)) == (digest, {"a": "1", "b": "2"}, ["kernel.json", "x-1.whl"])
    (tmp_path / "out").mkdir()
    artifact.fetch(place.repository, found, tmp_path / "out")
    assert (tmp_path / "out" / "x-1.whl").read_bytes() == DATA
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["kernel.json", "x-1.whl"]


def test_the_manifest_is_readable_by_registries_of_before_oci_1_1(place: Place, files: list[ArtifactPart]) -> None:
    artifact.push(place.repository, "key", KIND, files, {})
    content = json.loads(place.shelf.manifests["key"][1])
    assert content["artifactType"] == content["config"]["mediaType"] == KIND
    assert content["config"]["digest"] == content["layers"][0]["digest"]
    assert place.shelf.manifests["key"][0] == content["mediaType"]


def test_a_second_push_sends_no_bytes_again(place: Place, files: list[ArtifactPart]) -> None:
    artifact.push(place.repository, "key", KIND, files, {})
    place.shelf.asked.clear()
    artifact.push(place.repository, "other", KIND, files, {})
    assert not [line for line in place.shelf.asked if "uploads" in line]


def test_what_is_not_there_is_none(place: Place) -> None:
    assert place.repository.manifest("nothing") is None
    assert artifact.look(place.repository, "nothing", KIND) is None
    assert place.repository.tags() == ()
    assert place.waits == []


def test_all_pages_of_tags(place: Place, files: list[ArtifactPart]) -> None:
    for tag in ("a", "b", "c", "d", "e"):
        artifact.push(place.repository, tag, KIND, files, {})
    assert place.repository.tags() == ("a", "b", "c", "d", "e")


@pytest.mark.parametrize("fault", [500, 502, 503, 429, "reset", "cut", "short"])
def test_a_fault_that_passes_costs_a_wait(place: Place, tmp_path: Path, fault: Fault) -> None:
    blob = place.blob()
    place.shelf.on, place.shelf.faults = "/blobs/", [fault]
    place.repository.download(blob, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert place.waits == [0.5]
    assert "again in 0.5 s" in place.said[0]


def test_a_download_goes_on_where_it_broke_off(place: Place, tmp_path: Path) -> None:
    blob = place.blob()
    place.shelf.on, place.shelf.faults = "/blobs/", ["short", "reset"]
    place.repository.download(blob, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert place.waits == [0.5, 1.0]


def test_a_rest_that_the_registry_does_not_have_begins_anew(place: Place, tmp_path: Path) -> None:
    blob = place.blob()
    (tmp_path / ".x.part").write_bytes(b"another blob " * len(DATA))
    place.repository.download(blob, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert "begins anew" in place.said[0]


def test_it_waits_as_long_as_the_registry_asks(place: Place, tmp_path: Path) -> None:
    place.shelf.on, place.shelf.faults, place.shelf.after = "/blobs/", [429], "7"
    place.repository.download(place.blob(), tmp_path / "x")
    assert place.waits == [7.0]


def test_a_fault_that_lasts_is_told_and_leaves_nothing(place: Place, tmp_path: Path) -> None:
    place.shelf.on, place.shelf.faults = "/blobs/", [503] * 20
    with pytest.raises(RegistryFailure, match="does not give") as caught:
        place.repository.download(place.blob(), tmp_path / "x")
    assert caught.value.exit_code == 6
    assert "503" in caught.value.cause
    assert len(place.waits) == ATTEMPTS - 1
    assert list(tmp_path.iterdir()) == []


def test_other_bytes_are_refused(place: Place, tmp_path: Path) -> None:
    place.shelf.on, place.shelf.faults = "/blobs/", ["lie"]
    with pytest.raises(Unsafe, match="a blob is not what its digest says") as caught:
        place.repository.download(place.blob(), tmp_path / "x")
    assert caught.value.exit_code == 7
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_said_are_refused(place: Place, tmp_path: Path) -> None:
    blob = place.blob()
    with pytest.raises(Unsafe, match="a blob"):
        place.repository.download(Blob(blob.media_type, blob.digest, 100), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_with_another_digest_is_refused(place: Place, files: list[ArtifactPart]) -> None:
    digest = artifact.push(place.repository, "key", KIND, files, {})
    place.shelf.manifests[digest] = ("application/json", b'{"schemaVersion": 2}')
    with pytest.raises(Unsafe, match="is not what its digest says"):
        place.repository.manifest(digest)


def test_a_tag_that_another_takes_at_once_is_noticed(place: Place, files: list[ArtifactPart]) -> None:
    place.shelf.on, place.shelf.faults = "GET /v2/team/wheels/manifests", ["lie"]
    with pytest.raises((Unsafe, RegistryFailure)):
        artifact.push(place.repository, "key", KIND, files, {})


@pytest.mark.parametrize("fault", [500, 429, "reset"])
@pytest.mark.parametrize("on", ["POST ", "PUT /v2/team/wheels/blobs", "PUT /v2/team/wheels/manifests"])
def test_a_push_outlives_faults(place: Place, files: list[ArtifactPart], fault: Fault, on: str) -> None:
    place.shelf.on, place.shelf.faults = on, [fault, fault]
    artifact.push(place.repository, "key", KIND, files, {})
    assert artifact.look(place.repository, "key", KIND) is not None
    assert place.shelf.faults == []


def test_an_upload_that_a_restarted_registry_forgot_begins_anew(place: Place, files: list[ArtifactPart]) -> None:
    place.shelf.on, place.shelf.faults = "PUT /v2/team/wheels/blobs", [404]
    artifact.push(place.repository, "key", KIND, files, {})
    assert artifact.look(place.repository, "key", KIND) is not None
    assert place.waits == [0.5]


def test_a_tag_moves_only_when_all_blobs_are_there(place: Place, files: list[ArtifactPart]) -> None:
    first = artifact.push(place.repository, "key", KIND, files, {})
    files[1].path.write_bytes(b"new" + DATA)
    place.shelf.on, place.shelf.faults = "PUT /v2/team/wheels/blobs", [500] * ATTEMPTS
    with pytest.raises(RegistryFailure):
        artifact.push(place.repository, "key", KIND, files, {})
    found = place.repository.manifest("key")
    assert found is not None and found.digest == first


def test_nobody_there_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{free.getsockname()[1]}/wheels"
    with pytest.raises(RegistryFailure, match="the registry does not give") as caught:
        Repository(name, sleep=lambda _: None).manifest("key")
    assert "refused" in caught.value.cause


@pytest.mark.parametrize(
    "change",
    [
        {"artifactType": "application/other"},
        {
            "layers": [
                {
                    "mediaType": "x",
                    "digest": "sha256:" + "0" * 64,
                    "size": 1,
                    "annotations": {"org.opencontainers.image.title": "../x"},
                }
            ]
        },
        {"layers": [{"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1}]},
        {
            "layers": [
                {"mediaType": "x", "digest": "md5:0", "size": 1, "annotations": {"org.opencontainers.image.title": "x"}}
            ]
        },
        {"layers": None},
        {"config": []},
    ],
    ids=["kind", "path", "no name", "digest", "no layers", "no config"],
)
def test_a_foreign_manifest_is_refused(place: Place, files: list[ArtifactPart], change: dict[str, object]) -> None:
    artifact.push(place.repository, "key", KIND, files, {})
    content = json.loads(place.shelf.manifests["key"][1]) | change
    if "config" in change:
        del content["artifactType"]
    place.shelf.manifests["key"] = (place.shelf.manifests["key"][0], json.dumps(content).encode())
    with pytest.raises(Unsafe):
        artifact.look(place.repository, "key", KIND)


@pytest.mark.parametrize("raw", [b"<html>", b"[]", b"[" * 100_000], ids=["html", "list", "deep"])
def test_what_is_no_manifest_at_all(place: Place, raw: bytes) -> None:
    place.shelf.manifests["key"] = ("text/html", raw)
    with pytest.raises(RegistryFailure, match="no manifest"):
        place.repository.manifest("key")


def test_a_manifest_without_measure_is_not_read(place: Place) -> None:
    place.shelf.manifests["key"] = ("application/json", b" " * (5 << 20))
    with pytest.raises(RegistryFailure, match="longer than 4194304 bytes"):
        place.repository.manifest("key")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"tags": {"a": 1}}', b'{"tags": [1]}'])
def test_what_is_no_list_of_tags(place: Place, body: bytes) -> None:
    place.shelf.tags = body
    with pytest.raises(RegistryFailure, match="no list of tags"):
        place.repository.tags()


def test_no_tags_as_null(place: Place) -> None:
    place.shelf.tags = b'{"name": "team/wheels", "tags": null}'
    assert place.repository.tags() == ()


def test_tags_without_end_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGES_MAX", 3)
    for number in range(20):
        place.shelf.manifests[f"tag-{number}"] = ("application/json", b"{}")
    with pytest.raises(RegistryFailure, match="no end") as caught:
        place.repository.tags()
    assert "6 tags on 3 pages" in caught.value.cause


# -- lists of tags


def pages(place: Place, *links: str, tags: str = '["a"]') -> None:
    """Pages of tags, each with its Link; the last one is given again and again."""
    left = list(links)

    def rule(asked: Asked) -> Reply | None:
        if "/tags/list" not in asked.path:
            return None
        link = left.pop(0) if len(left) > 1 else left[0]
        headers = (("Link", link),) if link else ()
        return Reply(200, f'{{"tags": {tags}}}'.encode(), headers)

    place.shelf.rules.append(rule)


@pytest.mark.parametrize(
    "link, asked",
    [
        ('</v2/team/wheels/tags/list?last=b&n=2>; rel="next"', "last=b&n=2"),
        ('</v2/team/wheels/tags/list?next_page=gAAA%3D%3D&n=50>; rel="next"', "next_page=gAAA%3D%3D&n=50"),
        ("<http://registry.internal/v2/team/wheels/tags/list?n=2&last=b>; rel=next", "n=2&last=b"),
        ('<?last=b>; rel="next"', "last=b"),
    ],
    ids=["by the specification", "Quay of before 2024", "an address of behind a proxy", "a query alone"],
)
def test_the_next_page_is_asked_for_as_the_registry_names_it(place: Place, link: str, asked: str) -> None:
    pages(place, link, "")
    assert place.repository.tags() == ("a",)
    assert place.shelf.asked == [f"GET /v2/team/wheels/tags/list?{query}" for query in ("n=1000", asked)]


@pytest.mark.parametrize("links", [("<?last=a>; rel=next",), ("<?last=a>; rel=next", "<?last=b>; rel=next")])
def test_pages_that_come_round_again_are_told(place: Place, links: tuple[str, ...]) -> None:
    pages(place, *links)
    with pytest.raises(RegistryFailure, match="the list of tags has no end") as caught:
        place.repository.tags()
    assert caught.value.exit_code == 6
    assert len(place.shelf.asked) <= 3


def test_pages_without_end_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGES_MAX", 20)
    pages(place, *(f"<?last={number}>; rel=next" for number in range(100)))
    with pytest.raises(RegistryFailure, match="the list of tags has no end"):
        place.repository.tags()
    assert len(place.shelf.asked) == 20


def test_tags_without_measure_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_TAGS_IN_ALL", 5)
    pages(place, *(f"<?last={number}>; rel=next" for number in range(100)), tags=json.dumps(list("abcdef")))
    with pytest.raises(RegistryFailure, match="the list of tags has no end"):
        place.repository.tags()
    assert len(place.shelf.asked) == 1


# -- downloads that go on


def test_a_beginning_of_another_blob_is_thrown_away(place: Place, tmp_path: Path) -> None:
    blob = place.blob()
    (tmp_path / ".x.part").write_bytes(b"another" * 100)
    place.repository.download(blob, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert "was put together wrongly; it begins anew" in place.said[0]


def test_a_whole_part_of_another_blob_is_thrown_away(place: Place, tmp_path: Path) -> None:
    blob = place.blob()
    (tmp_path / ".x.part").write_bytes(b"x" * len(DATA))
    place.repository.download(blob, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_registry_that_lies_twice_is_refused(place: Place, tmp_path: Path) -> None:
    blob = place.blob()
    place.shelf.blobs[blob.digest] = bytes(byte ^ 1 for byte in DATA)
    (tmp_path / ".x.part").write_bytes(DATA[:100])
    with pytest.raises(Unsafe, match="a blob is not what its digest says"):
        place.repository.download(blob, tmp_path / "x", keep=True)
    assert list(tmp_path.iterdir()) == []
    assert len([line for line in place.shelf.asked if "/blobs/" in line]) == 2


def test_an_empty_blob(place: Place, tmp_path: Path) -> None:
    place.repository.download(place.blob(b""), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b""
