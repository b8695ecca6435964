"""The catalogue's page for tests: of the project's matrix, published or not, for all cards or for some."""

from __future__ import annotations

import json
import re
from typing import Any

from images.cards import Card, all_cards, match_card
from images.catalogue import Catalogue, ImageAdvisories
from images.matrix import Arch
from images.run.catalogue_page import Known, Sources
from tests.helpers.matrices import matrix, variants

HOSTILE = Card("<img src=x onerror=alert(1)>\"'</script><script>alert(1)</script><!--\u2028", Arch(7, 5), 16.0, "")
REPOSITORY = "registry.example.com/team/qwen"


def some_cards(*names: str) -> tuple[Card, ...]:
    """Cards by their names."""
    return tuple(match_card(name, all_cards()).card for name in names)


def sources(catalogue: Catalogue | None = None, cards: tuple[Card, ...] = (), repository: str = REPOSITORY) -> Sources:
    """What a page is made of; no image has an advisory."""
    none = ImageAdvisories(read="2026-11-27", known=0, looked_up=1, read_by_hand=0, not_looked_up=0)
    return Sources(variants(), catalogue, Known(matrix(), (), {}, lambda _: none, repository), {}, cards)


def data_of(page: str) -> dict[str, Any]:
    """The data in a page's text."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    data: dict[str, Any] = json.loads(found[0])
    return data
