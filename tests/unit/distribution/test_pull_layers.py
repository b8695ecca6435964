"""Pulling layer by layer: what the engine has already, what is kept of a pull that broke off, room on the disk."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from images.catalogue.model import PublishedImage
from images.core.errors import CardstockError, RegistryFailure, Unsafe
from images.distribution import pull as pulling
from images.distribution.disk_space import Disk
from images.distribution.pull_layers import Started, check_disk_space, drop_left, fetch
from images.docker.engine import Engine
from images.docker.facts import ImageFacts
from images.docker.refusals import DiskFull, RateLimited, refused_pull
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
        self.version = self.docker_version = "26.1.5"
        self.folder, self.pulls, self.refusals, self.tags = "", 0, list[str](), list[str]()
        self.loaded: dict[str, bytes] = {}

    def free_bytes(self) -> int | None:
        return self.free

    def layers_folder(self) -> str:
        return self.folder

    def pull(self, reference: str, say: object = None) -> None:
        self.pulls += 1
        if self.refusals:
            raise refused_pull(reference, self.refusals.pop(0))
        self.loaded["whole"] = b""

    def tag(self, reference: str, new: str) -> None:
        self.tags.append(new)

    def images(self, label: str) -> tuple[ImageFacts, ...]:
        other = (*DIFFS[: self.there], digest_of(b"another's"))
        return (ImageFacts("i", (), (), {}, {}, "", (), (), 1, "", "amd64", other),)

    def load(self, archive: Iterator[bytes]) -> None:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content
                self.loaded[member.name] = content.read()

    def inspect(self, reference: str) -> ImageFacts | None:
        known = self.loaded and (reference == self.makes or "@sha256:" in reference)
        return ImageFacts(self.makes, (), (), {}, {}, "", (), (), 1, "", "amd64", ()) if known else None


@pytest.fixture
def shelf() -> Iterator[tuple[Repository, FakeRegistry, PublishedImage]]:
    """A repository with an image of three layers."""
    with registry() as (host, shelf):
        repository = Repository(f"{host}/team/x", sleep=lambda _: None)
        shelf.blobs |= {digest_of(one): one for one in (CONFIG, *LAYERS)}
        blobs = [Blob("layer", digest_of(layer), len(layer)) for layer in LAYERS]
        raw = make_manifest(Blob("config", digest_of(CONFIG), len(CONFIG)), blobs)
        digest = repository.put_manifest(raw, digest_of(raw))
        entry = {"digest": digest, "config": digest_of(CONFIG), "compressed": 12, "unpacked": 1200}
        yield repository, shelf, image(SM75).model_copy(update=entry)


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


# -- room for what goes on layer by layer


def begun(home: Path, one: PublishedImage, *layers: bytes) -> Started:
    """A pull that broke off when these layers had come."""
    started = Started(home, one.digest)
    started.begin()
    for layer in layers:
        (started.folder / digest_of(layer).replace(":", "-")).write_bytes(layer)
    return started


@pytest.mark.parametrize(
    ("came", "free", "told"),
    [
        # The engine takes the 12 bytes once more as it loads them, and 1200 unpacked; the folder has the rest of 12.
        ((), 12 + 12 + 1200, ""),
        ((), 12 + 12 + 1199, "1.22 kB needed"),
        (LAYERS[:2], 3 + 12 + 1200, ""),
        (LAYERS[:2], 3 + 12 + 1199, "1.22 kB needed"),
        (LAYERS, 12 + 1200, ""),
    ],
)
def test_room_for_a_pull_that_goes_on(
    shelf: tuple[Repository, FakeRegistry, PublishedImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    came: tuple[bytes, ...],
    free: int,
    told: str,
) -> None:
    repository, _, one = shelf
    engine = FakeEngine(0, free)
    engine.folder = str(tmp_path)
    started = begun(tmp_path / "pulled", one, *came)
    monkeypatch.setattr(
        "images.distribution.pull_layers.disk_of", lambda folder: Disk(str(folder), tmp_path.stat().st_dev, free)
    )
    if not told:
        check_disk_space(cast("Engine", engine), repository, one, started, layered=True)
        return
    with pytest.raises(CardstockError, match=told) as caught:
        check_disk_space(cast("Engine", engine), repository, one, started, layered=True)
    assert "./inv engine --prune" in caught.value.do
    assert (str(tmp_path / "pulled") in caught.value.cause) == bool(came)


def bring(engine: FakeEngine, repository: Repository, one: PublishedImage, home: Path, said: list[str]) -> str:
    return pulling.pull(cast("Engine", engine), repository, one, ["a:b"], said.append, lambda _: None, home)


def test_what_lies_there_can_be_dropped_but_not_under_a_pull(
    shelf: tuple[Repository, FakeRegistry, PublishedImage], tmp_path: Path
) -> None:
    _, _, one = shelf
    home, said = tmp_path / "pulled", list[str]()
    started = begun(home, one, *LAYERS)
    with started.alone("x", said.append):
        assert drop_left(home, said.append) == 0
    assert "left as it is" in said[0] and started.before
    assert drop_left(home) == 12
    assert not Started(home, one.digest).before
    assert drop_left(tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("said", "kind", "goes_on"),
    [
        ("write /x: no space left on device", DiskFull, False),
        ("toomanyrequests: You have reached your pull rate limit", RateLimited, True),
        ("filesystem layer verification failed for digest sha256:0", Unsafe, False),
    ],
)
def test_nothing_is_fetched_twice_where_another_try_does_not_help(
    shelf: tuple[Repository, FakeRegistry, PublishedImage],
    tmp_path: Path,
    said: str,
    kind: type[CardstockError],
    goes_on: bool,
) -> None:
    repository, held, one = shelf
    engine = FakeEngine()
    engine.refusals = [said]
    with pytest.raises(kind):
        bring(engine, repository, one, tmp_path / "pulled", [])
    assert engine.pulls == 1
    assert not [line for line in held.asked if any(digest_of(layer) in line for layer in LAYERS)]
    assert Started(tmp_path / "pulled", one.digest).before == goes_on
    engine.pulls, engine.loaded = 0, {}
    bring(engine, repository, one, tmp_path / "pulled", [])
    assert engine.tags == ["a:b"]
    assert not Started(tmp_path / "pulled", one.digest).before


def test_the_second_of_two_pulls_waits_and_takes_nothing_away(
    shelf: tuple[Repository, FakeRegistry, PublishedImage], tmp_path: Path
) -> None:
    repository, _, one = shelf
    home, said, order = tmp_path / "pulled", list[str](), list[str]()
    inside, release = threading.Event(), threading.Event()

    class Slow(FakeEngine):
        def pull(self, reference: str, say: object = None) -> None:
            order.append("begins")
            inside.set()
            assert release.wait(10)
            assert Started(home, one.digest).before, "its folder is its own"
            super().pull(reference, say)
            order.append("ends")

    def second() -> None:
        bring(FakeEngine(), repository, one, home, said)
        order.append("second")

    first = threading.Thread(target=lambda: bring(Slow(), repository, one, home, []))
    first.start()
    assert inside.wait(10)
    other = threading.Thread(target=second)
    other.start()
    while not said:
        assert other.is_alive()
    release.set()
    first.join(10)
    other.join(10)
    assert order == ["begins", "ends", "second"]
    assert said[0].startswith(f"waiting for the pull of {SM75}: process ")


def test_too_little_room_to_go_on_layer_by_layer_is_enough_for_the_engine(
    shelf: tuple[Repository, FakeRegistry, PublishedImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, _, one = shelf
    engine, said = FakeEngine(0, 1212), list[str]()
    engine.folder = str(tmp_path)
    begun(tmp_path / "pulled", one)
    monkeypatch.setattr(
        "images.distribution.pull_layers.disk_of", lambda folder: Disk(str(folder), tmp_path.stat().st_dev, 1212)
    )
    bring(engine, repository, one, tmp_path / "pulled", said)
    assert engine.pulls == 1
    assert "too little room to go on layer by layer" in said[0]
