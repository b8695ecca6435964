"""From an engine's saved image to a registry by digest: packed the same, sent once, nothing half-known kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from images.core.errors import CardstockError, RegistryFailure, Unsafe
from images.distribution import push as pushing
from images.distribution.push import Packed, push
from images.docker.facts import ImageFacts
from images.registry import Repository, digest_of
from images.registry.oci_image import read_image
from images.registry.retry import ATTEMPTS
from tests.helpers.registries import FakeRegistry, registry

LAYERS = (b"the base " * 4000, b"what is its own " * 300)
LABELS = {"dev.cardstock.variant": "x"}


class Saved:
    """An image as an engine saves it."""

    def __init__(self, layers: tuple[bytes, ...] = LAYERS) -> None:
        self.layers, self.times = layers, 0
        diff_ids = [digest_of(layer) for layer in layers]
        self.config = json.dumps({"config": {"Labels": LABELS}, "rootfs": {"diff_ids": diff_ids}}).encode()
        self.facts = ImageFacts(digest_of(self.config), (), (), LABELS, {}, "", (), (), 1, "", "amd64", tuple(diff_ids))

    @contextmanager
    def save(self) -> Iterator[Iterator[bytes]]:
        self.times += 1
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for content in (b'{"layers": "named elsewhere"}', *self.layers, self.config):
                entry = tarfile.TarInfo(f"blobs/sha256/{hashlib.sha256(content).hexdigest()}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        yield iter([packed.getvalue()[at : at + 1000] for at in range(0, len(packed.getvalue()), 1000)])


class Place:
    def __init__(self, host: str, shelf: FakeRegistry, folder: Path) -> None:
        self.shelf = shelf
        self.repository = Repository(f"{host}/team/images", sleep=lambda _: None)
        self.packed = Packed(folder)

    def push(self, image: Saved) -> pushing.Pushed:
        return push(image.facts, image.save, self.repository, "gzip", self.packed)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    with registry() as (host, shelf):
        yield Place(host, shelf, tmp_path / "packed")


def test_an_image_is_pushed_by_digest_and_no_tag_is_written(place: Place) -> None:
    image = Saved()
    pushed = place.push(image)
    assert place.repository.tags() == ()
    found = read_image(place.repository, pushed.digest)
    assert found is not None
    assert (found.config, found.labels, found.diff_ids) == (image.facts.id, LABELS, image.facts.layers)
    assert [layer.digest for layer in found.layers] == [layer.digest for layer in pushed.layers]
    unpacked = [zlib.decompress(place.shelf.blobs[layer.digest], 31) for layer in pushed.layers]
    assert tuple(unpacked) == LAYERS
    assert [layer.unpacked for layer in pushed.layers] == [len(layer) for layer in LAYERS]


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (9 << 20) + 5])
def test_layers_of_any_size_come_back(place: Place, size: int) -> None:
    layer = bytes(range(251)) * (size // 251) + bytes(size % 251)
    pushed = place.push(Saved((layer,)))
    packed = place.shelf.blobs[pushed.layers[0].digest]
    assert gzip.decompress(packed) == layer
    assert packed[4:8] == b"\0" * 4  # no time


def test_the_same_image_has_the_same_digest_and_is_not_saved_again(place: Place, tmp_path: Path) -> None:
    image = Saved()
    first = place.push(image)
    place.shelf.asked.clear()
    assert place.push(image) == first
    assert image.times == 1
    assert not [line for line in place.shelf.asked if "uploads" in line]
    place.packed = Packed(tmp_path / "of another machine")
    assert place.push(image) == first


def test_a_layer_that_another_image_has_is_not_sent_again(place: Place) -> None:
    place.push(Saved())
    place.shelf.asked.clear()
    second = place.push(Saved((LAYERS[0], b"another")))
    assert len([line for line in place.shelf.asked if line.startswith("PUT") and "uploads" in line]) == 2
    assert len(second.layers) == 2


def test_a_registry_that_lost_a_layer_gets_it_again(place: Place) -> None:
    image = Saved()
    pushed = place.push(image)
    del place.shelf.blobs[pushed.layers[0].digest]
    assert place.push(image) == pushed
    assert pushed.layers[0].digest in place.shelf.blobs


def test_a_push_that_breaks_off_goes_on(place: Place) -> None:
    image = Saved()
    place.shelf.on, place.shelf.faults = "PUT /v2/team/images/manifests", [500] * ATTEMPTS
    with pytest.raises(RegistryFailure):
        place.push(image)
    assert place.shelf.manifests == {}
    place.push(image)
    assert image.times == 1


def test_an_image_in_another_form_is_refused(place: Place) -> None:
    image = Saved()
    image.layers = (b"packed already", LAYERS[1])
    with pytest.raises(CardstockError, match="did not come out of the engine whole") as caught:
        place.push(image)
    assert "containerd" in caught.value.cause
    assert place.shelf.manifests == {}


def test_a_kept_configuration_that_was_changed_is_not_used(place: Place, tmp_path: Path) -> None:
    image = Saved()
    place.push(image)
    kept = next((tmp_path / "packed").glob("sha256-*"))
    kept.write_text("{}")
    place.push(image)
    assert image.times == 2
    assert kept.read_bytes() == image.config


BROKEN: dict[str, dict[str, Any]] = {
    "no configuration": {"config": None},
    "no digest": {"layers": [{"mediaType": "x", "digest": "sha256:1", "size": 1}]},
    "a size that is none": {"layers": [{"mediaType": "x", "digest": digest_of(b""), "size": -1}]},
    "a layer too few": {"layers": []},
    "a huge configuration": {"config": {"mediaType": "x", "digest": digest_of(b""), "size": 1 << 40}},
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_image_is_refused(place: Place, what: str) -> None:
    pushed = place.push(Saved())
    content = json.loads(place.shelf.manifests[pushed.digest][1]) | BROKEN[what]
    digest = place.repository.put_manifest(json.dumps(content).encode(), "broken")
    with pytest.raises(Unsafe, match="is not what an image is"):
        read_image(place.repository, digest)


def test_an_image_that_is_not_there_is_none(place: Place) -> None:
    assert read_image(place.repository, digest_of(b"nothing")) is None
