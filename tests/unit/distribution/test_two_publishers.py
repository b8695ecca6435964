"""Two machines that publish the same inputs: at whatever moment of the one the other runs, one image is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images.build.plan import Plan
from images.catalogue.store import check_image, fetch_catalogue, set_tag
from images.core.errors import Unsafe
from images.distribution.publish import Published, publish
from images.distribution.rollback import roll_back
from images.registry.client import Repository
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.matrices import variants
from tests.helpers.nonempty import nonempty
from tests.helpers.registries import FakeRegistry, registry
from tests.helpers.small_publisher import SM75, SmallPublisher


class Machine:
    """A machine with a checkout of the same inputs; what it builds is its own, as builds of two machines are."""

    def __init__(self, root: Path, shelf: FakeRegistry, repository: str) -> None:
        self.root, self.shelf, self.repository = root, shelf, repository
        self.engine = FakeEngine(root / "engine", shelf)
        self.stall = SmallPublisher(root / "checkout", self.engine.as_engine(), "test/base:1")

    def build(self, plan: Plan) -> None:
        for job in plan.jobs:
            self.stall.make(job, machine=self.root.name)

    def publish(self) -> Published:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CARDSTOCK_HOME", str(self.root / "state"))  # its locks are its own
            publisher = self.stall.publisher(self.repository)
            (done,) = publish(publisher, self.stall.plan(publisher, SM75), self.build)
        return done


class Place:
    """A registry and two machines beside it."""

    def __init__(self, root: Path, host: str, shelf: FakeRegistry) -> None:
        self.shelf, self.name = shelf, f"{host}/team/images"
        self.first, self.second = (Machine(root / name, shelf, self.name) for name in ("first", "second"))

    @property
    def repository(self) -> Repository:
        return Repository(self.name, sleep=lambda _: None)

    def digest(self, tag: str) -> str:
        named = self.repository.manifest(tag)
        return named.digest if named else ""

    def one_is_published(self) -> str:
        """See that tags and catalogue name one and the same image, which a pull takes; its digest."""
        catalogue, _ = fetch_catalogue(self.repository)
        assert catalogue is not None
        (image,) = catalogue.images
        assert {self.digest(tag) for tag in (SM75, "sm75", image.tag)} == {image.digest}
        check_image(self.repository, image)
        return image.digest


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Place]]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("tests.helpers.small_publisher.time.sleep", lambda _: None)
    with registry() as (host, shelf):
        made: list[Place] = []

        def make() -> Place:
            shelf.manifests.clear()
            shelf.blobs.clear()
            shelf.asked.clear()
            shelf.meanwhile = None
            made.append(Place(tmp_path / str(len(made)), host, shelf))
            return made[-1]

        yield make


def test_the_same_inputs_of_another_machine_are_up_to_date(places: Callable[[], Place]) -> None:
    place = places()
    mine, theirs = place.first.publish(), place.second.publish()
    assert (mine.outcome, theirs.outcome) == ("published", "up to date")
    assert theirs.image == mine.image
    assert place.one_is_published() == mine.image.digest


def moments(place: Place) -> list[int]:
    """Numbers of the requests of one publishing that ask or say what the catalogue and tags name, up to the last that
    says it. `invoke test --crash` takes all requests."""
    place.first.publish()
    names = [line.rpartition("/")[2] if "/manifests/" in line else "" for line in place.shelf.asked]
    last = max(n for n, line in enumerate(place.shelf.asked) if line.startswith("PUT"))
    seen = [n for n in range(last + 1) if names[n] and not names[n].startswith("sha256")]
    return [n for n in seen if place.shelf.asked[n].startswith("PUT") or place.shelf.asked[n - 1].startswith("PUT")]


def test_at_each_moment_of_the_one_the_other_publishes(places: Callable[[], Place]) -> None:
    for moment in [0, *nonempty(moments(places()))]:
        place = places()
        inside: list[Published] = []

        def meanwhile(_: str, place: Place = place, moment: int = moment, inside: list[Published] = inside) -> None:
            if len(place.shelf.asked) == moment + 1:
                place.shelf.meanwhile = None
                inside.append(place.second.publish())

        place.shelf.meanwhile = meanwhile
        done = place.first.publish()
        assert len(inside) == 1, f"moment {moment}"
        assert place.one_is_published() == done.image.digest, "the one that ends last knows what is published"


def test_what_the_old_order_broke_is_mended(places: Callable[[], Place]) -> None:
    """Tags of the slower one over a catalogue of the faster: pulls are refused until the next publish."""
    place = places()
    mine = place.first.publish().image
    other = place.repository.put_manifest(b'{"schemaVersion": 2}', "other")
    for tag in (mine.tag, SM75, "sm75"):
        set_tag(place.repository, tag, other)
    with pytest.raises(Unsafe, match="was pointed at something else") as caught:
        check_image(place.repository, mine)
    assert "./inv publish" in caught.value.do
    assert place.second.publish().outcome == "up to date"
    assert place.one_is_published() == mine.digest


def test_rollback_also_mends_a_tag(places: Callable[[], Place]) -> None:
    place = places()
    old = place.first.publish().image
    place.first.stall.change("second\n")
    new = place.first.publish().image
    set_tag(place.repository, old.tag, new.digest)
    destination = place.first.stall.publisher(place.name).destination
    assert [image.digest for image in roll_back(destination, [variants().valid[SM75]])] == [old.digest]
    assert {place.digest(tag) for tag in (SM75, "sm75", old.tag)} == {old.digest}
    assert place.digest(new.tag) == new.digest


def test_an_image_that_the_registry_lost_is_published_again(places: Callable[[], Place]) -> None:
    place = places()
    lost = place.first.publish().image
    for name in (lost.digest, lost.tag, SM75, "sm75"):
        del place.shelf.manifests[name]
    again = place.second.publish()
    assert again.outcome == "published"
    assert place.one_is_published() == again.image.digest != lost.digest
