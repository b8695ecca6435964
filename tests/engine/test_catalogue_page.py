"""The catalogue's page in headless Chromium: the keyboard alone, a phone, a hostile name, and the answers of `pull`."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from images.cards import Card, all_cards, asked_cards, choose_images, match_card
from images.catalogue import Catalogue, match_images, reference_of
from images.commands.pull import run_words
from images.core import CardstockError, process
from images.docker import docker_words
from images.matrix import Driver, parse_driver
from images.run.catalogue_page import page_text
from images.run.serve import spec_without_model
from tests.engine import browser
from tests.helpers.catalogue_pages import HOSTILE, REPOSITORY, some_cards, sources
from tests.helpers.catalogues import catalogue
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty

SHOTS = ROOT / "build/catalogue"
CARDS, DRIVERS, MIXED = 500, 40, 1500
UNKNOWN = ("cpu", "RX 7900 XTX", "M4 Max", "MI300X", "Voodoo 2", "it's a card", 'say "card"', "zzz", "qwerty 12345678")

pytestmark = pytest.mark.timeout(900)

Case = tuple[list[str], str]


def drivers(count: int) -> list[str]:
    """Versions around every step that there is, of branches and of parts, and others by chance."""
    chance = random.Random(18)  # noqa: S311
    least = {variant.min_driver for variant in variants().valid.values() if variant.min_driver}
    around = [
        ".".join(str(number) for number in (branch, minor, max(0, patch + by)))
        for branch, minor, patch in (((*parse_driver(text).parts, 0, 0)[:3]) for text in sorted(least))
        for by in (-1, 0, 1)
    ]
    whole = [
        "",
        "384",
        "390",
        "409",
        "410",
        "449",
        "450",
        "455",
        "520",
        "525",
        "570",
        "575",
        "580",
        "580.65",
        "581",
        "590",
    ]
    found = list(dict.fromkeys([*whole, *around]))
    while len(found) < count:
        found.append(f"{chance.randrange(380, 600)}.{chance.randrange(0, 200)}.{chance.randrange(0, 99):02d}")
    return found[:count]


def cases() -> list[Case]:
    """Each of 500 cards with each of 40 drivers, and mixed machines."""
    chance = random.Random(18)  # noqa: S311
    known = [card.name for card in all_cards() if card.arch.major >= 5]
    older = [card.name for card in all_cards() if card.arch.major < 5]
    names = [*chance.sample(known, CARDS - 50), *chance.sample(older, 50)]
    single: list[Case] = [([name], driver) for name in names for driver in drivers(DRIVERS)]
    mixed = [(chance.sample(names, chance.randrange(2, 4)), chance.choice(drivers(DRIVERS))) for _ in range(MIXED)]
    return [*single, *mixed]


@cache
def card_called(name: str) -> Card:
    return match_card(name, all_cards()).card


def text_of(error: CardstockError) -> list[str]:
    return [error.what, error.cause, error.do]


def by_pull(names: Sequence[str], driver: Driver | None, published: Catalogue) -> dict[str, Any]:
    """What `pull` decides: images with their cards and notes, refusals."""
    found = match_images(published, matrix(), variants(), in_order(names), driver)
    return {
        "images": sorted([one.image.variant, each(one.cards), list(one.notes)] for one in found.matches),
        "refused": {one.card.name: text_of(one.why) for one in found.refusals},
    }


def by_matrix(names: Sequence[str], driver: Driver | None) -> dict[str, Any]:
    """What `cards` says of cards of different capabilities without a catalogue."""
    found = choose_images(matrix(), variants(), in_order(names), driver, {})
    return {
        "images": sorted([one.variant.id, each(one.cards), list(one.notes)] for one in found.picks),
        "refused": {one.card.name: text_of(one.why) for one in found.refusals},
    }


def in_order(names: Sequence[str]) -> list[Card]:
    """The cards as the page takes them: the oldest first."""
    return sorted({card_called(name) for name in names}, key=lambda card: (card.arch, card.name))


def each(cards: Sequence[Card]) -> list[str]:
    return list(dict.fromkeys(card.name for card in cards))


def by_page(answer: dict[str, Any]) -> dict[str, Any]:
    """A page's answer in the same form."""
    return {
        "images": sorted([one["variant"], one["cards"], one["notes"]] for one in answer["images"]),
        "refused": {one["card"]: [one["what"], one["cause"], one["do"]] for one in answer["refused"]},
    }


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three pages: of all that could be published, of nothing published, of a card with a hostile name."""
    folder, chromium = tmp_path_factory.mktemp("pages"), browser.chromium()
    made = {
        "published": sources(catalogue()),
        "recommended": sources(None, repository=""),
        "hostile": sources(None, (*some_cards("T4", "RTX 4090"), HOSTILE), "<b>repository</b>"),
    }
    for name, of in made.items():
        (folder / f"{name}.html").write_text(page_text(of), encoding="utf-8")
    listed = cases()
    asked = {
        "published": [*listed, *([[name], ""] for name in UNKNOWN), [["T4"], "x"], [["T4"], "53.1"]],
        "recommended": [case for case in listed if len({card_called(name).arch for name in case[0]}) == len(case[0])],
    }
    (folder / "cases.json").write_text(json.dumps(asked), encoding="utf-8")
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    return {
        "pages": {name: str(folder / f"{name}.html") for name in made},
        "browser": str(chromium.program),
        "environment": chromium.environment,
        "folder": str(SHOTS),
        "cases": str(folder / "cases.json"),
        "hostile": HOSTILE.name,
    }


@pytest.fixture(scope="module")
def seen(plan: dict[str, Any]) -> dict[str, Any]:
    """What a person with a browser saw."""
    argv = [str(browser.driver()), "-m", "tests.engine.catalogue_visit", json.dumps(plan)]
    found: dict[str, Any] = json.loads(process.run(argv, cwd=ROOT, timeout=300).out)
    return found


@pytest.fixture(scope="module")
def decided(plan: dict[str, Any], seen: dict[str, Any]) -> dict[str, list[tuple[Case, dict[str, Any]]]]:
    """Page -> each case and what the page decided in it."""
    answers = json.loads(Path(f"{plan['cases']}.decided").read_text(encoding="utf-8"))
    asked = json.loads(Path(plan["cases"]).read_text(encoding="utf-8"))
    return {name: list(zip(asked[name], answers[name], strict=True)) for name in asked}


def test_the_page_decides_as_pull_does(decided: dict[str, list[tuple[Case, dict[str, Any]]]]) -> None:
    published, compared, differ = catalogue(), 0, []
    for (names, driver), answer in nonempty(decided["published"]):
        if "error" in answer:
            continue
        wanted = by_pull(names, parse_driver(driver) if driver else None, published)
        compared += 1
        if by_page(answer) != wanted:
            differ.append((names, driver, by_page(answer), wanted))
    assert compared == CARDS * DRIVERS + MIXED
    assert differ[:3] == []
    print(f"{compared} cases, {len(differ)} differences")


def test_the_page_of_the_matrix_decides_as_cards_does(decided: dict[str, list[tuple[Case, dict[str, Any]]]]) -> None:
    differ = [
        (names, driver)
        for (names, driver), answer in nonempty(decided["recommended"])
        if by_page(answer) != by_matrix(names, parse_driver(driver) if driver else None)
    ]
    assert differ == []


def test_what_cannot_be_read_is_refused_in_pulls_words(decided: dict[str, list[tuple[Case, dict[str, Any]]]]) -> None:
    refused = [(case, answer["error"]) for case, answer in decided["published"] if "error" in answer]
    assert len(refused) == len(UNKNOWN) + 2
    for (names, driver), error in refused:
        with pytest.raises(CardstockError) as caught:
            asked_cards(names, driver, purpose="to find an image for", do="name one")
        assert [error["what"], error["cause"], error["do"]] == text_of(caught.value)


def test_from_the_keyboard_alone_to_a_copied_line(seen: dict[str, Any]) -> None:
    found = seen["keyboard"]
    assert {line for _, line in nonempty(found["path"])} == {"3px"}
    assert found["live"] == "polite"
    image = catalogue().current["cu129-vllm0.19.1-flash-attn-sm89"]
    assert found["said"] == f"GeForce RTX 4090: {image.variant}"
    reference = reference_of(REPOSITORY, image)
    spec = spec_without_model(reference, cards=True)
    assert found["copied"].split() == docker_words(spec, foreground=True)
    (match,) = match_images(catalogue(), matrix(), variants(), some_cards("RTX 4090"), parse_driver("550")).matches
    assert found["copied"].split() == run_words(match, reference)
    assert found["line"] == found["copied"]
    assert found["address"] == "card=4090&driver=550"


def test_an_answer_has_what_is_known_of_the_image(seen: dict[str, Any]) -> None:
    answer = seen["keyboard"]["answer"]
    for text in ("525.60.13", "1.50 GB to pull, 5.00 GB on disk", "audited, CPU canary", "driver 550 is too old for"):
        assert text in answer
    assert re.search(r"3b-awq\s+conversations of 32,768 tokens, \d+ at a time", answer)


def test_a_hostile_name_is_text(seen: dict[str, Any]) -> None:
    found = seen["hostile"]
    assert " ".join(found["for"].split()) == " ".join(HOSTILE.name.split())
    assert found["images"] == 0
    assert found["scripts"] == 2
    assert "alert(1)" in found["near"]
    assert found["refused"].startswith("no NVIDIA card is called")
    assert seen["dialogs"] == []


def test_nothing_is_asked_and_nothing_goes_wrong(seen: dict[str, Any]) -> None:
    assert seen["asked"] == []
    assert seen["errors"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(seen: dict[str, Any], scheme: str) -> None:
    found = seen[f"narrow-{scheme}"]
    assert found["width"] == 390
    dark = max(map(int, re.findall(r"\d+", found["ground"])[:3])) < 60
    assert dark == (scheme == "dark")
    assert found["state"].startswith("Not published yet.")
    assert "driver 390 does not know Tesla T4" in found["refused"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_can_be_read(seen: dict[str, Any], scheme: str) -> None:
    found = seen[f"narrow-{scheme}"]["contrasts"]
    assert len(found) == 14
    assert min(nonempty(found.values())) >= 4.5, found
