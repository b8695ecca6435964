"""The page: its data, and its text, one file that needs nothing else. Pure: the same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from images.cards import Card, all_cards
from images.catalogue import (
    FAMILIES,
    Catalogue,
    card_rows,
    group_by_image,
    published_rows,
    with_records,
)
from images.core import SOURCE
from images.matrix import Variants
from images.run.catalogue_page.decisions import (
    CARD,
    DRIVER,
    MOST,
    NAME,
    Texts,
    Why,
    decider,
    driver_steps,
    own_refusal,
    spellings,
    tables,
    unknown_card,
    unknown_driver,
)
from images.run.catalogue_page.facts import Known, image_facts
from images.run.catalogue_page.fits import fits_of, kinds, official_models

_HERE = Path(__file__).parent
_TITLES = {"qwen2_5_vl": "Qwen2.5-VL", "qwen3_vl": "Qwen3-VL", "qwen2_vl": "Qwen2-VL"}


@dataclass(frozen=True)
class Sources:
    """What the page is made of. ``catalogue`` None: what the matrix recommends, and nothing is published yet.

    ``locked`` says of each lock whether it is there.
    """

    variants: Variants
    catalogue: Catalogue | None
    known: Known
    locked: Mapping[str, bool]
    cards: tuple[Card, ...] = ()

    @property
    def all_cards(self) -> tuple[Card, ...]:
        """The cards of the page: those of every list, or others in tests."""
        return tuple(sorted(self.cards or all_cards(), key=lambda card: (card.arch, card.name)))


def page_data(sources: Sources) -> dict[str, Any]:
    """What the page looks up, as JSON has it."""
    texts = Texts()
    steps = driver_steps(sources.variants, sources.catalogue)
    decide = decider(sources.known.matrix, sources.variants, sources.catalogue, sources.locked)
    cards = sources.all_cards
    decided = tables(decide, cards, steps, texts)
    archs = {text: at for at, text in enumerate(decided["archs"])}
    names = spellings(cards)
    own = [own_refusal(card, texts) for card in cards]
    rows = [[card.name, archs[str(card.arch)], card.memory, refused] for card, refused in zip(cards, own, strict=True)]
    given = {place for row in decided["sets"] for place in row.values()}
    images = sorted({variant for place in given for variant, _, _ in texts.values[place]})
    facts = {name: image_facts(sources.variants.valid[name], sources.catalogue, sources.known) for name in images}
    served = _served(decided, texts, images)
    fits: dict[str, dict[str, int]] = {}
    fit_rows = Texts()
    left = [card for card, refused in zip(cards, own, strict=True) if refused < 0]
    for (arch, memory), card in kinds(left).items():
        for name in served.get(arch, ()):
            row = tuple(fits_of(card, sources.variants.valid[name], texts))
            fits.setdefault(name, {})[f"{archs[arch]}/{memory:g}"] = fit_rows.place(row)
    models = [
        {"name": model.name, "source": model.source, "family": _TITLES[model.shape.family]}
        for model in official_models()
    ]
    return {
        **decided,
        "cards": rows,
        "names": {text: found if isinstance(found, int) else [-1, texts.place(found)] for text, found in names.items()},
        "unknown": [texts.place(unknown_card()), texts.place(unknown_driver())],
        "images": facts,
        "models": models,
        "families": list(_TITLES.values()),
        "fits": fits,
        "fitRows": fit_rows.values,
        "texts": [_plain(value) for value in texts.values],
        "marks": [CARD, DRIVER, NAME],
        "most": MOST,
        "published": sources.catalogue is not None,
    }


def _served(decided: Mapping[str, Any], texts: Texts, images: Iterable[str]) -> dict[str, list[str]]:
    """Capability -> the images that its cards get, alone or beside others."""
    found: dict[str, set[str]] = {}
    for row in decided["sets"]:
        for key, place in row.items():
            numbers = [int(number) for number in key.split(",")]
            for variant, places, _ in texts.values[place]:
                for at in places:
                    found.setdefault(decided["archs"][numbers[at]], set()).add(variant)
    return {arch: [name for name in images if name in those] for arch, those in found.items()}


def _plain(value: Any) -> Any:
    return list(asdict(value).values()) if isinstance(value, Why) else value


def page_text(sources: Sources) -> str:
    """The whole page as HTML, with its data, style and script in it."""
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(
        policy=policy(style, script),
        style=Markup(style),  # noqa: S704 - files of ours
        script=Markup(script),  # noqa: S704
        data=Markup(embedded(page_data(sources))),  # noqa: S704 - has no sign that markup is made of
        overview=overview(sources),
        updated=sources.catalogue.updated[:10] if sources.catalogue else "",
        repository=sources.known.repository,
        source=SOURCE,
    )


def policy(style: str, script: str) -> str:
    """What a browser may run and load: this style, this script, nothing else and nothing from anywhere."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def embedded(data: Any) -> str:
    """JSON that can stand in a <script>: no sign in it ends the element or begins a comment."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)  # in ASCII: other letters are escaped
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def overview(sources: Sources) -> list[dict[str, str]]:
    """A row for each image: what reads well without the script too."""
    known, cards = sources.known, sources.all_cards
    if sources.catalogue:
        table = published_rows(known.matrix, sources.variants, cards, sources.catalogue, known.records)
    else:
        table = with_records(card_rows(known.matrix, sources.variants, cards), known.records, known.today)
    without = [one for one in sources.variants.valid.values() if not one.archs]
    listed = [one for one in without if sources.catalogue is None or one.id in sources.catalogue.current]
    return [
        {
            "archs": ", ".join(arch.capability for arch in group.archs),
            "cards": ", ".join(FAMILIES.get(arch.capability, group.row.card.name) for arch in group.archs),
            "image": group.row.image.id,
            "driver": group.row.image.min_driver or "",
            "evidence": f"{group.row.evidence.words}{f', {group.row.evidence.day}' if group.row.evidence.day else ''}",
        }
        for group in group_by_image(table)
        if group.row.image
    ] + [
        {
            "archs": "",
            "cards": "no card",
            "image": one.id,
            "driver": "none",
            "evidence": str(image_facts(one, sources.catalogue, known)["evidence"]),
        }
        for one in listed
    ]
