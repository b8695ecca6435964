"""Pulling layer by layer: what the engine has already, what is kept of a pull that broke off, room on the disk."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from images.catalogue.model import PublishedImage
from images.core.errors import CardstockError, RegistryFailure, Unsafe
from images.distribution.pull_layers import Started, check_disk_space, fetch
from images.docker.engine import Engine
from images.docker.facts import ImageFacts
from images.registry import Blob, Repository, digest_of
from images.registry.oci_image import make_manifest
from tests.helpers.catalogues import SM75, image
from tests.helpers.registries import FakeRegistry, registry

LAYERS = (b"base", b"stack", b"own")
DIFFS = [digest_of(b"unpacked " + layer) for layer in LAYERS]
CONFIG = json.dumps({"config": {"Labels": {}}, "rootfs": {"diff_ids": DIFFS}}).encode()


class FakeEngine:
    """An engine with the first ``there`` layers, and what it was given to load."""

    def __init__(self, there: int = 0, free: int | None = None, makes: str = digest_of(CONFIG)) -> None:
        self.there, self.free, self.makes = there, free, makes
        self.endpoint = "unix:///x"
        self.loaded: dict[str, bytes] = {}

    def free_bytes(self) -> int | None:
        return self.free

    def images(self, label: str) -> tuple[ImageFacts, ...]:
        other = (*DIFFS[: self.there], digest_of(b"another's"))
        return (ImageFacts("i", (), (), {}, {}, "", (), (), 1, "", "amd64", other),)

    def load(self, archive: Iterator[bytes]) -> None:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content
                self.loaded[member.name] = content.read()

    def inspect(self, reference: str) -> object | None:
        return object() if self.loaded and reference == self.makes else None


@pytest.fixture
def shelf() -> Iterator[tuple[Repository, FakeRegistry, PublishedImage]]:
    """A repository with an image of three layers."""
    with registry() as (host, shelf):
        repository = Repository(f"{host}/team/x", sleep=lambda _: None)
        shelf.blobs |= {digest_of(one): one for one in (CONFIG, *LAYERS)}
        blobs = [Blob("layer", digest_of(layer), len(layer)) for layer in LAYERS]
        raw = make_manifest(Blob("config", digest_of(CONFIG), len(CONFIG)), blobs)
        digest = repository.put_manifest(raw, digest_of(raw))
        yield repository, shelf, image(SM75).model_copy(update={"digest": digest, "compressed": 12, "unpacked": 1200})


def test_an_image_is_loaded_of_its_layers_but_those_that_are_there(
    shelf: tuple[Repository, FakeRegistry, PublishedImage], tmp_path: Path
) -> None:
    repository, _, one = shelf
    engine, started = FakeEngine(there=1), Started(tmp_path / "pulled", one.digest)
    started.begin()
    assert fetch(cast("Engine", engine), repository, one, started, lambda _: None) == digest_of(CONFIG)
    (listed,) = json.loads(engine.loaded.pop("manifest.json"))
    assert listed["Layers"] == [diff[7:] for diff in DIFFS]
    assert engine.loaded == {
        f"{hashlib.sha256(CONFIG).hexdigest()}.json": CONFIG,
        DIFFS[1][7:]: LAYERS[1],
        DIFFS[2][7:]: LAYERS[2],
    }
    assert started.before
    started.end()
    assert not started.before


def test_a_layer_that_came_before_is_not_asked_for(
    shelf: tuple[Repository, FakeRegistry, PublishedImage], tmp_path: Path
) -> None:
    repository, held, one = shelf
    started = Started(tmp_path, one.digest)
    started.begin()
    lost = held.blobs.pop(digest_of(LAYERS[2]))
    with pytest.raises(RegistryFailure):
        fetch(cast("Engine", FakeEngine()), repository, one, started, lambda _: None)
    held.blobs[digest_of(LAYERS[2])] = lost
    for layer in LAYERS[:2]:
        del held.blobs[digest_of(layer)]
    engine = FakeEngine()
    fetch(cast("Engine", engine), repository, one, started, lambda _: None)
    assert [engine.loaded[diff[7:]] for diff in DIFFS] == list(LAYERS)


def test_an_engine_that_makes_another_image_of_it_is_refused(
    shelf: tuple[Repository, FakeRegistry, PublishedImage], tmp_path: Path
) -> None:
    repository, _, one = shelf
    started = Started(tmp_path, one.digest)
    started.begin()
    with pytest.raises(Unsafe, match="made another image"):
        fetch(cast("Engine", FakeEngine(makes="sha256:0")), repository, one, started, lambda _: None)


@pytest.mark.parametrize(
    ("there", "free", "told"),
    [(0, 1212, ""), (0, 1211, "1.21 kB needed"), (2, 303, ""), (2, 302, "303 B needed"), (0, None, "")],
)
def test_an_image_that_the_disk_has_no_room_for_is_refused_before(
    shelf: tuple[Repository, FakeRegistry, PublishedImage], there: int, free: int | None, told: str
) -> None:
    repository, _, one = shelf
    engine = cast("Engine", FakeEngine(there, free))
    if not told:
        check_disk_space(engine, repository, one)
        return
    with pytest.raises(CardstockError, match=told):
        check_disk_space(engine, repository, one)
