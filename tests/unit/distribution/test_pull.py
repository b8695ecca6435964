"""Pulling: what is verified before a layer moves, what is tried again, what is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from images.cards.asked import asked_cards
from images.cards.data import all_cards
from images.cards.names import match_card as named
from images.cards.this_machine import LocalCard, LocalMachine, MigInstance
from images.catalogue.answer import CardQuery, answer_json, answer_lines, uuids_of
from images.catalogue.model import Catalogue, read_catalogue, with_image
from images.catalogue.resolve import CardMatch, MatchResult, match_images
from images.catalogue.store import change_catalogue, check_image, set_tag
from images.commands.pull import PullOptions, ask_saved, pull_images
from images.context import REPOSITORY
from images.core.errors import NoImageFits, NothingSelected, RegistryFailure, Unsafe
from images.distribution import pull as pulling
from images.distribution.pull import ATTEMPTS
from images.docker.engine import Engine
from images.docker.facts import ImageFacts, refused_pull
from images.matrix.arch import Arch
from images.matrix.drivers import parse_driver
from images.registry import Blob, Repository, digest_of
from images.registry.oci_image import make_manifest
from tests.helpers.catalogues import CPU, NOW, SM75, catalogue, image
from tests.helpers.contexts import context
from tests.helpers.matrices import matrix, variants
from tests.helpers.registries import FakeRegistry, registry

LABELS = {
    "dev.cardstock.variant": SM75,
    "dev.cardstock.input": image(SM75).input,
    "dev.cardstock.stack": "cu124",
    "dev.cardstock.engine": "vllm",
    "dev.cardstock.attention": "xformers",
    "dev.cardstock.archs": "7.5",
    "dev.cardstock.audited-archs": "7.5",
    "dev.cardstock.min-driver": "525.60.13",
    "dev.cardstock.locked": "yes",
}
LAYER = b"a layer"


class Shop:
    """A repository with one image in it and in its catalogue."""

    def __init__(self, host: str, shelf: FakeRegistry, labels: dict[str, str]) -> None:
        self.shelf = shelf
        self.repository = Repository(f"{host}/team/images", sleep=lambda _: None)
        config = json.dumps({"config": {"Labels": labels}, "rootfs": {"diff_ids": ["sha256:x"]}}).encode()
        shelf.blobs |= {digest_of(config): config, digest_of(LAYER): LAYER}
        raw = make_manifest(
            Blob("config", digest_of(config), len(config)), [Blob("layer", digest_of(LAYER), len(LAYER))]
        )
        digest = self.repository.put_manifest(raw, digest_of(raw))
        self.image = image(SM75).model_copy(
            update={
                "digest": digest,
                "config": digest_of(config),
                "layers": (digest_of(LAYER),),
                "compressed": len(LAYER),
            }
        )
        set_tag(self.repository, self.image.tag, digest)
        change_catalogue(self.repository, self.add)

    def add(self, before: Catalogue) -> Catalogue:
        return with_image(before, self.image, {digest_of(LAYER): len(LAYER)}, [SM75], NOW)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("CARDSTOCK_REPOSITORY", raising=False)
    with registry() as (host, shelf):
        yield lambda **labels: Shop(host, shelf, LABELS | labels)


def test_a_right_image_is_right(make: Callable[..., Shop]) -> None:
    shop = make()
    assert pulling.read(shop.repository, None).current == {SM75: shop.image}
    check_image(shop.repository, shop.image)


def test_labels_that_say_other_things_are_refused(make: Callable[..., Shop]) -> None:
    shop = make(**{"dev.cardstock.archs": "7.5 8.0"})
    with pytest.raises(Unsafe, match="says other things") as caught:
        check_image(shop.repository, shop.image)
    assert "'7.5 8.0'" in caught.value.cause


def test_other_layers_than_the_catalogue_says_are_refused(make: Callable[..., Shop]) -> None:
    shop = make()
    for update in ({"config": image(CPU).config}, {"layers": image(CPU).layers}):
        with pytest.raises(Unsafe, match="is not made of what the catalogue says"):
            check_image(shop.repository, shop.image.model_copy(update=update))


def test_an_immutable_tag_that_moved_is_refused(make: Callable[..., Shop]) -> None:
    shop = make()
    set_tag(shop.repository, shop.image.tag, shop.repository.put_manifest(b'{"schemaVersion": 2}', "other"))
    with pytest.raises(Unsafe, match="was pointed at something else") as caught:
        check_image(shop.repository, shop.image)
    assert caught.value.exit_code == 7


def test_an_image_that_is_gone_is_a_failure_of_the_registry(make: Callable[..., Shop]) -> None:
    shop = make()
    del shop.shelf.manifests[shop.image.digest]
    with pytest.raises(RegistryFailure, match="the registry does not have it"):
        check_image(shop.repository, shop.image)


def test_an_empty_repository_is_said_to_be_one(make: Callable[..., Shop]) -> None:
    shop = make()
    empty = Repository(shop.repository.name + "/other")
    shop.shelf.manifests.clear()
    with pytest.raises(NothingSelected, match="nothing is published in"):
        pulling.read(empty, None)


# -- the engine


class FakeEngine:
    """An engine that fails as it is told, and then has the image of ``id``."""

    def __init__(self, ident: str, *faults: str) -> None:
        self.id, self.faults = ident, list(faults)
        self.tags: list[str] = []
        self.pulled = 0

    def pull(self, reference: str, say: object = None) -> None:
        self.pulled += 1
        if self.faults:
            raise refused_pull(reference, self.faults.pop(0))

    def inspect(self, reference: str) -> ImageFacts:
        return ImageFacts(self.id, (), (), {}, {}, "", (), (), 1, "", "amd64", ())

    def tag(self, reference: str, new: str) -> None:
        self.tags.append(f"{reference} {new}")


def pulled(engine: FakeEngine, waits: list[float] | None = None) -> str:
    waited = [] if waits is None else waits
    return pulling.pull(cast("Engine", engine), Repository("localhost:1/x"), image(SM75), ["a:b"], sleep=waited.append)


def test_a_pull_is_tried_again_and_then_named() -> None:
    engine = FakeEngine(image(SM75).config, "received unexpected HTTP status: 500", "connection reset by peer")
    waits: list[float] = []
    reference = pulled(engine, waits)
    assert reference == f"localhost:1/x@{image(SM75).digest}"
    assert engine.tags == [f"{reference} a:b"]
    assert waits == [0.5, 1.0]


def test_a_registry_that_stays_broken_names_nothing() -> None:
    engine = FakeEngine(image(SM75).config, *["EOF"] * ATTEMPTS)
    with pytest.raises(RegistryFailure, match="could not be pulled") as caught:
        pulled(engine)
    assert (caught.value.exit_code, engine.tags, engine.pulled) == (6, [], ATTEMPTS)


@pytest.mark.parametrize(
    "said",
    [
        f"filesystem layer verification failed for digest {digest_of(b'')}",
        f"manifest verification failed for digest {digest_of(b'')}",
        "layers from manifest don't match image configuration",
    ],
)
def test_what_the_engine_finds_wrong_is_not_tried_again(said: str) -> None:
    engine = FakeEngine(image(SM75).config, said)
    with pytest.raises(Unsafe, match="not what its digest says"):
        pulled(engine)
    assert (engine.tags, engine.pulled) == ([], 1)


def test_another_image_under_that_name_is_refused() -> None:
    engine = FakeEngine(image(CPU).config)
    with pytest.raises(Unsafe, match="has another image by this name"):
        pulled(engine)
    assert engine.tags == []
    assert pulled(FakeEngine(image(SM75).digest))  # as an engine with the containerd store names it


# -- what is told


def query(machine: LocalMachine) -> CardQuery:
    """For the cards of a machine."""
    return CardQuery.of(asked_cards([], "", purpose="to find an image for", do="--card NAME", machine=machine))


def test_a_machine_without_cards_says_what_to_type() -> None:
    with pytest.raises(NoImageFits, match="has no NVIDIA card") as caught:
        query(LocalMachine(why="no NVIDIA driver"))
    assert "--card" in caught.value.do


def test_of_a_card_that_is_cut_the_instance_is_named() -> None:
    parts = tuple(MigInstance(f"NVIDIA A100-SXM4-40GB MIG {n}g.{n * 5}gb", f"MIG-{n}", n * 5 * 2**30) for n in (1, 3))
    cut = LocalCard("NVIDIA A100-SXM4-40GB", "GPU-1", Arch(8, 0), 40 * 2**30, True, parts)
    asked = query(LocalMachine("580.65.06", "13.0", (cut,)))
    ampere = catalogue("cu129-vllm0.19.1-flash-attn-sm80")
    resolved = match_images(ampere, matrix(), variants(), asked.cards, asked.driver)
    assert uuids_of(resolved.matches[0], asked, resolved) == ["MIG-3"]


def test_cards_of_one_machine_with_an_image_each_are_named_by_uuid() -> None:
    turing = LocalCard("NVIDIA GeForce RTX 2080 Ti", "GPU-1", Arch(7, 5), 11 << 30)
    ada = LocalCard("NVIDIA GeForce RTX 4090", "GPU-2", Arch(8, 9), 24 << 30)
    asked = query(LocalMachine("535.104.05", "12.2", (turing, ada)))
    both = catalogue(SM75, "cu128-vllm0.11.0-flash-attn-sm89")
    resolved = match_images(both, matrix(), variants(), asked.cards, asked.driver)
    told = {one.image.variant: uuids_of(one, asked, resolved) for one in resolved.matches}
    assert told == {SM75: ["GPU-1"], "cu128-vllm0.11.0-flash-attn-sm89": ["GPU-2"]}
    alone = query(LocalMachine("535.104.05", "12.2", (turing,)))
    one = match_images(both, matrix(), variants(), alone.cards)
    assert uuids_of(one.matches[0], alone, one) == []
    lines = answer_lines("r", both, resolved)
    assert lines.count("  advisories: not known, it was published before there was a list") == 2
    assert "no image published here covers all of these cards: one for each kind of card" in lines


def test_all_of_it_as_json() -> None:
    asked = CardQuery(
        (named("RTX 2080 Ti", all_cards()).card, named("GTX 1080", all_cards()).card), parse_driver("535")
    )
    resolved = match_images(catalogue(SM75, CPU), matrix(), variants(), asked.cards, asked.driver)
    told = answer_json("r.example/x", catalogue(SM75, CPU), asked, resolved, [["docker", "run"]])
    assert [one["reference"] for one in told["images"]] == [f"r.example/x@{image(SM75).digest}"]
    assert told["images"][0]["cards"] == ["GeForce RTX 2080 Ti"]
    assert [one["card"] for one in told["refused"]] == ["GeForce GTX 1080"]
    assert told["driver"] == "535"
    json.dumps(told)


# -- the command, dry


def run_pull(options: PullOptions) -> None:
    """As `invoke pull` does."""
    (ask_saved if options.offline else pull_images)(context(), options)


def dry(shop: Shop, capsys: pytest.CaptureFixture[str], **words: Any) -> tuple[str, str]:
    asked = {"cards": ["RTX 2080 Ti"], "driver": "535.104", "source": shop.repository.name, "dry_run": True}
    run_pull(PullOptions(**{**asked, **words}))
    told = capsys.readouterr()
    return told.out, told.err


def test_a_dry_run_verifies_and_prints(make: Callable[..., Shop], capsys: pytest.CaptureFixture[str]) -> None:
    shop = make()
    out, err = dry(shop, capsys)
    assert out.endswith(f"{shop.repository.name}@{shop.image.digest}\n")
    assert f"verify {SM75}" in err
    assert "signatures are not verified" in err
    assert "audited for 7.5; driver from 525.60.13" in err


def test_an_image_by_its_tag(make: Callable[..., Shop], capsys: pytest.CaptureFixture[str]) -> None:
    shop = make()
    assert shop.image.digest in dry(shop, capsys, cards=(), name=SM75)[0]


def test_offline_from_a_saved_catalogue(
    make: Callable[..., Shop], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shop = make()
    file = str(tmp_path / "saved.json")
    online = json.loads(dry(shop, capsys, save=file, json=True)[0])
    shop.shelf.asked.clear()
    assert json.loads(dry(shop, capsys, offline=file, json=True)[0]) == online
    assert shop.shelf.asked == []


def test_a_saved_catalogue_is_asked_without_naming_its_repository(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REPOSITORY, raising=False)
    file = tmp_path / "saved.json"
    file.write_text(catalogue(SM75).to_json(), encoding="utf-8")
    run_pull(PullOptions(cards=["2080 Ti"], driver="535.104", offline=str(file)))
    assert capsys.readouterr().out.rstrip().endswith(f" REPO@{image(SM75).digest}")


def test_a_lie_is_refused_by_the_command_too(make: Callable[..., Shop], capsys: pytest.CaptureFixture[str]) -> None:
    shop = make(**{"dev.cardstock.audited-archs": "7.5 8.0"})
    with pytest.raises(Unsafe):
        dry(shop, capsys)
    assert capsys.readouterr().out == ""


def test_open_advisories_are_named_before_anything_is_pulled() -> None:
    known = {"read": "2026-11-27", "known": 2, "open": ["CVE-2026-0001"], "severe": ["CVE-2026-0001"]}
    counts = {"looked_up": 0, "read_by_hand": 1, "not_looked_up": 2}
    there = catalogue(SM75)
    content = json.loads(there.to_json())
    content["images"][0]["advisories"] = {**known, **counts}
    there = read_catalogue(json.dumps(content), "here")
    resolved = MatchResult((CardMatch(there.images[0], ()),))
    assert "  open advisories by the list of 2026-11-27: CVE-2026-0001" in answer_lines("r", there, resolved)
    told = answer_json("r", there, CardQuery((), None), resolved, [["docker", "run"]])
    assert told["images"][0]["advisories"]["severe"] == ["CVE-2026-0001"]
