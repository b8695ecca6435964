"""Compiled code in a registry: by digest first, signed, its tag last; verified before anything of it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from images.catalogue import SigningKeys
from images.compiled import remote
from images.compiled.record import ARCHIVE, FILE
from images.compiled.store import CompiledStore, Kept
from images.core.errors import RegistryFailure, Unsafe
from images.registry import ArtifactPart, Repository, artifact
from tests.helpers.compiled_code import KEY, FakeCosign, filed, other
from tests.helpers.registries import FakeRegistry, registry


class Place:
    """A registry on loopback, a store that publishes and one that fetches."""

    def __init__(self, host: str, shelf: FakeRegistry, tmp_path: Path) -> None:
        self.shelf = shelf
        self.repository = Repository(f"{host}/team/qwen", sleep=lambda _: None)
        self.cosign = FakeCosign(shelf)
        (tmp_path / "cosign.pub").write_text("key")
        self.keys = SigningKeys(cast("Any", self.cosign), Path("cosign.key"), tmp_path / "cosign.pub")
        self.mine, self.theirs = CompiledStore(tmp_path / "mine"), CompiledStore(tmp_path / "theirs")

    def push(self, signed: bool = True, **changes: Any) -> Kept:
        kept = filed(self.mine, other(**changes))
        remote.push(self.repository, kept, self.keys if signed else None)
        return kept

    def fetch(self, keys: SigningKeys | None, **how: Any) -> Kept | None:
        return remote.fetch(self.repository, KEY, self.theirs, keys, **how)

    def nothing_stored(self) -> bool:
        return self.theirs.entries() == ()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with registry() as (host, shelf):
        yield Place(host, shelf, tmp_path)


def test_it_is_signed_before_its_tag_is_there(place: Place) -> None:
    place.push()
    assert place.cosign.tags == [[]]
    assert KEY.tag in place.shelf.manifests


def test_what_is_pushed_is_fetched_and_verified(place: Place) -> None:
    kept = place.push()
    found = place.fetch(place.keys)
    assert found is not None and found.record == kept.record
    assert found.archive.read_bytes() == kept.archive.read_bytes()
    assert found.origin.trusted and found.origin.signer == "key sha256:2c70e12b7a06"
    assert found.origin.source.startswith(f"{place.repository.name}@sha256:")
    assert place.theirs.get(KEY) == found


def test_another_key_has_another_tag(place: Place) -> None:
    place.push(card="NVIDIA L4")
    assert place.fetch(place.keys) is None
    assert place.nothing_stored()


def test_what_nobody_signed_is_refused(place: Place) -> None:
    place.push(signed=False)
    with pytest.raises(Unsafe, match="not signed by this signer"):
        place.fetch(place.keys)
    assert place.nothing_stored()


def test_without_a_signer_it_is_not_used_unless_one_says_so(place: Place) -> None:
    place.push()
    with pytest.raises(remote.NotTrusted, match=r"(?s)is not used.*it is code.*--verify-key"):
        place.fetch(None)
    assert place.nothing_stored()
    found = place.fetch(None, unsigned=True)
    assert found is not None and not found.origin.trusted


def test_the_signature_is_asked_for_before_the_files_are(place: Place) -> None:
    place.push(signed=False)
    before = len(place.shelf.asked)
    with pytest.raises(Unsafe):
        place.fetch(place.keys)
    assert not [asked for asked in place.shelf.asked[before:] if "/blobs/" in asked]


def test_the_code_of_another_key_under_this_tag_is_refused(place: Place) -> None:
    kept = place.push(card="NVIDIA L4")
    place.shelf.manifests[KEY.tag] = place.shelf.manifests[kept.record.key.tag]
    with pytest.raises(Unsafe, match=r"(?s)of another key.*card: NVIDIA L4, not NVIDIA H200"):
        place.fetch(place.keys)
    assert place.nothing_stored()


def test_other_bytes_than_the_digest_are_refused(place: Place) -> None:
    kept = place.push()
    place.shelf.blobs[f"sha256:{kept.record.sha256}"] = b"x" * kept.record.size
    with pytest.raises(Unsafe, match="not what its digest says"):
        place.fetch(place.keys)
    assert place.nothing_stored()


def test_an_archive_that_is_not_its_records_is_refused(place: Place, tmp_path: Path) -> None:
    """Signed as a whole, and wrong all the same."""
    kept = filed(place.mine)
    archive = tmp_path / ARCHIVE
    archive.write_bytes(b"x" * kept.record.size)
    parts = [ArtifactPart(kept.record_file, "application/json"), ArtifactPart(archive, "application/gzip")]
    digest = artifact.push(place.repository, KEY.tag, remote.KIND, parts, {})
    place.cosign.signed.add(digest)
    with pytest.raises(Unsafe, match=r"(?s)is damaged.*SHA-256 is another"):
        place.fetch(place.keys)
    assert place.nothing_stored()


@pytest.mark.parametrize("names", [[FILE], [FILE, ARCHIVE, "more"]])
def test_other_files_are_refused(place: Place, tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    parts = [ArtifactPart(tmp_path / name, "text/plain") for name in names]
    artifact.push(place.repository, KEY.tag, remote.KIND, parts, {})
    with pytest.raises(Unsafe, match="not what its tag says"):
        place.fetch(None, unsigned=True)


def test_a_registry_that_does_not_answer_is_told(place: Place) -> None:
    place.push()
    place.shelf.on, place.shelf.faults = "/manifests/", [500] * 20
    with pytest.raises(RegistryFailure):
        place.fetch(place.keys)
    assert place.nothing_stored()


def test_the_nearest_other_is_told(place: Place) -> None:
    place.push(card="NVIDIA L4", capability="8.9", flags=())
    place.push(flags=(("--dtype", "half"), ("--max-model-len", "4096")))
    place.push(image="sha256:" + "c" * 64)
    said = remote.nearest(place.repository, KEY)
    assert said == ["flags: --max-model-len 4096, not --max-model-len 8192"]
    assert remote.nearest(place.repository, other(image="sha256:" + "d" * 64)) == []


def test_a_nearest_that_cannot_be_read_is_none(place: Place) -> None:
    place.push(card="NVIDIA L4")
    place.shelf.on, place.shelf.faults = "/blobs/", ["lie"] * 20
    assert remote.nearest(place.repository, KEY) == []


def test_all_of_an_image_that_fit_are_fetched(place: Place) -> None:
    place.push()
    place.push(flags=())
    place.push(card="NVIDIA L4")
    place.push(image="sha256:" + "c" * 64)
    place.push(place="Qwen/X", signed=False)
    said: list[str] = []
    found = remote.fetch_all(
        place.repository, KEY.image, place.theirs, place.keys, lambda key: key.card == KEY.card, said.append
    )
    assert {one.record.key for one in found} == {KEY, other(flags=())}
    assert len(said) == 1 and "not signed" in said[0]
    again = remote.fetch_all(place.repository, KEY.image, place.theirs, place.keys, lambda _: True, said.append)
    assert len(again) == 3


def test_its_subject_is_the_image_where_the_repository_has_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    kept = filed(place.mine)
    remote.push(place.repository, kept, None, said.append)
    assert "subject" not in json.loads(place.shelf.manifests[KEY.tag][1])
    assert said == [
        f"{place.repository.name} has no image sha256:eeeeeeeeeeee: the compiled code is kept there by its tag alone"
    ]
    digest = place.repository.put_manifest(b'{"an": "image"}', "x")
    catalogue = cast("Any", type("C", (), {"images": (type("I", (), {"config": kept.record.id, "digest": digest}),)}))
    monkeypatch.setattr(remote, "fetch_catalogue", lambda _: (catalogue, ""))
    remote.push(place.repository, kept, None, said.append)
    subject = json.loads(place.shelf.manifests[KEY.tag][1])["subject"]
    assert (subject["digest"], subject["size"]) == (digest, 15)
    assert len(said) == 1
