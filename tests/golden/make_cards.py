"""Writes cards.tsv: every card of compute capability 5.0 and newer, its image, or why it has none. Read the diff.

.venv/bin/python -m tests.golden.make_cards
"""

from __future__ import annotations

from pathlib import Path

from images.cards.data import all_cards
from images.catalogue.card_table import CARD_HEADER, card_cells, card_rows, one_by_one
from images.commands.cards import OLDEST
from tests.helpers.matrices import matrix, variants

PATH = Path(__file__).with_name("cards.tsv")


def table() -> str:
    """The text of the table."""
    cards = [card for card in all_cards() if card.arch >= OLDEST]
    rows = one_by_one(card_rows(matrix(), variants(), cards))
    return "\n".join("\t".join(line) for line in [CARD_HEADER, *map(card_cells, rows)]) + "\n"


if __name__ == "__main__":
    PATH.write_text(table(), encoding="utf-8")
