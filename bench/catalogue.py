"""`invoke bench catalogue`: how long a card takes to find its image in a catalogue of 10,000."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from bench.frame import bench, medians
from bench.plan import large_matrix
from bench.record import Row
from images.cards import all_cards
from images.cards import match_card as named
from images.catalogue import SCHEMA, immutable_tag, match_images, read_catalogue
from images.matrix import Variant, make_variants, parse_driver
from images.render import Checkout

IMAGES = 10_000
_LAYERS = 10
_LIMIT = 0.05  # seconds, once the catalogue is read: the peer of the rows that resolve
_NOW = "2026-11-21T12:00:00Z"


def _digest(word: str) -> str:
    return f"sha256:{hashlib.sha256(word.encode()).hexdigest()}"


def large_catalogue(variants: Iterable[Variant]) -> str:
    """A catalogue of these variants as JSON, each with layers that it shares with those of its lock."""
    images: list[dict[str, Any]] = []
    layers: dict[str, int] = {}
    for variant in variants:
        own = [_digest(f"{variant.lock} {n}") for n in range(_LAYERS - 2)]
        own += [_digest(f"{variant.id} {n}") for n in range(2)]
        layers |= dict.fromkeys(own, 100_000_000)
        digits = _digest(f"input {variant.id}")[7:]
        images.append(
            {
                "variant": variant.id,
                "digest": _digest(f"manifest {variant.id}"),
                "config": _digest(f"config {variant.id}"),
                "tag": immutable_tag(variant.id, digits),
                "input": digits,
                "stack": variant.stack,
                "engine": variant.backend,
                "attention": variant.attention,
                "cuda": variant.cuda,
                "archs": [str(arch) for arch in variant.archs],
                "audited": [str(arch) for arch in variant.archs],
                "min_driver": variant.min_driver,
                "pins": {name: pin.version for name, pin in variant.pins},
                "packing": "gzip",
                "layers": own,
                "compressed": 100_000_000 * _LAYERS,
                "unpacked": 5_000_000_000,
                "evidence": [{"level": level, "status": "passed", "at": _NOW} for level in ("audit", "stack")],
                "revision": "0" * 40,
                "created": _NOW,
                "published": _NOW,
            }
        )
    moving = {image["variant"]: [image["digest"]] for image in images}
    return json.dumps({"schema": SCHEMA, "updated": _NOW, "images": images, "layers": layers, "moving": moving})


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("catalogue")
    def rows() -> Sequence[Row]:
        matrix = large_matrix((checkout.root / "matrix.yaml").read_text(encoding="utf-8"), 4 * IMAGES)
        variants = make_variants(matrix)
        text = large_catalogue(islice(variants.valid.values(), IMAGES))
        read = read_catalogue(text, "generated")
        driver = parse_driver("535.104.05")
        asked = {name: named(name, all_cards()).card for name in ("RTX 2080 Ti", "RTX 4090", "H100 PCIe")}
        machines = {f"{name}, driver 535": [card] for name, card in asked.items()}
        machines["2080 Ti and 4090 in one machine"] = [asked["RTX 2080 Ti"], asked["RTX 4090"]]
        actions: dict[str, Callable[[], object]] = {"read": partial(read_catalogue, text, "generated")}
        for what, cards in machines.items():
            actions[what] = partial(match_images, read, matrix, variants, cards, driver)
        taken = medians(actions)
        count = len(read.images)
        out = [Row("catalogue", f"read and check {count} images, {len(text) / 1e6:.0f} MB", taken["read"], None, "s")]
        for what in machines:
            measures = f"the image of {what}, among {count}"
            out.append(Row("catalogue", measures, taken[what], _LIMIT, "s", "limit", headline="4090, driver" in what))
        return out
