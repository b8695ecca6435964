"""The page's text and data: whole in itself, the same each time, and nothing from outside is markup in it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from images.run.catalogue_page import Sources, page_text
from images.run.catalogue_page.page import embedded
from tests.helpers.catalogue_pages import HOSTILE, REPOSITORY, data_of, some_cards, sources
from tests.helpers.catalogues import catalogue
from tests.helpers.nonempty import nonempty

CARDS = some_cards("T4", "RTX 4090", "GTX 980", "Tesla K80", "Jetson AGX Orin 64 GB")
SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"


def some(published: bool = False) -> Sources:
    """A page of few cards; what is published is the image for 7.5 alone."""
    return sources(catalogue(SM75) if published else None, (*CARDS, HOSTILE))


@pytest.fixture(scope="module")
def unpublished() -> str:
    return page_text(some())


@pytest.fixture(scope="module")
def published() -> str:
    return page_text(some(published=True))


class Elements(HTMLParser):
    """Every element and attribute of a page, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.inner: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("script", "style") and data.strip():
            self.inner.append((self.tags[-1], data))


def test_the_same_inputs_give_the_same_bytes(unpublished: str) -> None:
    assert page_text(some()) == unpublished


def test_a_page_says_whether_its_images_are_published(unpublished: str, published: str) -> None:
    assert "Not published yet." in unpublished
    assert "Not published yet." not in published
    assert f"<code>{REPOSITORY}</code>, as of 2026-11-21" in re.sub(r"\s+", " ", published)


def test_a_browser_runs_the_pages_own_script_alone(published: str) -> None:
    found = Elements(published)
    (policy,) = (
        value for tag, name, value in found.attributes if (tag, name) == ("meta", "content") and "src" in value
    )
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    script, style = found.inner[-1], found.inner[0]
    assert (script[0], style[0]) == ("script", "style")
    for _, text in nonempty([script, style]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_nothing_is_loaded_and_no_attribute_is_code(published: str) -> None:
    found = Elements(published)
    assert {"img", "link", "iframe", "object", "base"} & set(found.tags) == set()
    assert [one for one in found.attributes if one[1].startswith("on") or one[1] in ("src", "style", "action")] == []
    links = [value for tag, name, value in found.attributes if (tag, name) == ("a", "href")]
    assert {link.partition("#")[0].removesuffix("/blob/main/docs/proven.md") for link in nonempty(links)} == {
        "https://github.com/cardstock-images/cardstock"
    }


def test_a_hostile_name_is_data(published: str) -> None:
    assert Elements(published).tags.count("script") == 2
    assert "<img" not in published
    assert "<!--" not in published
    assert HOSTILE.name in [card[0] for card in data_of(published)["cards"]]


def test_json_stands_in_an_element() -> None:
    text = embedded({"a": "</script><!--&\u2028"})
    assert not set("<>&\u2028") & set(text)


def test_a_published_image_is_run_by_its_digest(published: str) -> None:
    about = data_of(published)["images"][SM75]
    (line,) = about["lines"]
    assert f"{REPOSITORY}@{about['digest']}" in line
    assert line.startswith("docker run --rm --gpus all")
    assert about["size"] == "1.50 GB to pull, 5.00 GB on disk"
    assert about["evidence"] == "audited, CPU canary"
    assert about["advisories"] == "not known: it was published before there was a list"


def test_an_image_that_is_not_published_is_built_first(unpublished: str) -> None:
    about = data_of(unpublished)["images"][SM75]
    build, run = about["lines"]
    assert build == f"./inv build --only {SM75}"
    assert f"cardstock/qwen2.5-vl:{SM75}" in run
    assert about["size"].endswith("on disk (its budget)")
    assert about["evidence"] == "not yet on a card"
    assert about["advisories"] == "no open advisory by the list of 2026-11-27"


def test_every_card_has_an_answer_for_every_driver(published: str) -> None:
    data = data_of(published)
    steps = len(data["steps"]) + 2
    assert {len(row) for row in nonempty(data["refused"])} == {steps}
    assert len(data["given"]) == steps
    own = {name: place for name, _, _, place in data["cards"]}
    assert own["Tesla K80"] >= 0
    assert own["Tesla T4"] < 0
    assert data["texts"][own["Tesla K80"]][0] == "no image for \ue000: it has compute capability 3.7"


@pytest.mark.parametrize("name", ["tesla t4", "t4", "geforce rtx 4090", "rtx 4090", "4090", "tesla k80"])
def test_names_are_found_as_people_write_them(published: str, name: str) -> None:
    data = data_of(published)
    assert name in data["cards"][data["names"][name]][0].lower()


def test_the_files_beside_the_module_have_no_mark_of_a_template_left(published: str) -> None:
    here = Path(page_text.__code__.co_filename).parent
    assert sorted(path.suffix for path in here.glob("page.*")) == [".css", ".html", ".js", ".py"]
    assert "{{" not in published
    assert "{%" not in published


def test_without_the_script_every_image_is_there(published: str, unpublished: str) -> None:
    rows = re.findall(r"<tr><td>(.*?) <span.*?<code>(.*?)</code>", unpublished)
    assert ("no card", "cpu-vllm0.32.0-sdpa") in rows
    assert any(image == SM75 for _, image in rows)
    assert [image for _, image in re.findall(r"<tr><td>(.*?) <span.*?<code>(.*?)</code>", published)] == [SM75]
