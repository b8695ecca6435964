"""Cards of this machine that were asked for: one that is lost is told, and the others are taken."""

from __future__ import annotations

import io

import pytest

from images.cards.asked import asked_cards
from images.cards.nvml_errors import explain, explain_card
from images.cards.this_machine import LocalCard, LocalMachine, LostCard
from images.core.errors import NoImageFits
from images.core.report import Report
from images.matrix.arch import Arch

CARD = LocalCard("NVIDIA L4", "GPU-1", Arch(8, 9), 24 * 2**30)
LOST = LostCard(3, "0000:3b:00.0", explain_card(15, "0000:3b:00.0"))


def test_a_lost_card_is_told_and_the_others_are_taken() -> None:
    err = io.StringIO()
    here = LocalMachine("550.54.14", "12.4", (CARD,) * 7, lost=(LOST,))
    found = asked_cards([], "", Report(io.StringIO(), err), purpose="to fit", do="name one", machine=here)
    assert len(found.cards) == 7
    assert "card 3 at PCI 0000:3b:00.0: the card has fallen off the bus" in err.getvalue()


def test_a_driver_whose_version_has_no_known_form_is_no_error() -> None:
    here = LocalMachine("N/A", "12.4", (CARD,))
    assert asked_cards([], "", purpose="to fit", do="name one", machine=here).driver is None


def test_a_driver_that_does_not_answer_says_how_it_would() -> None:
    broken = LocalMachine(why="Windows does not give its card to WSL2", fault=explain(17, wsl=True))
    with pytest.raises(NoImageFits) as caught:
        asked_cards([], "", purpose="to fit", do="name one", machine=broken)
    assert "wsl --update" in caught.value.do
    with pytest.raises(NoImageFits) as caught:
        asked_cards([], "", purpose="to fit", do="name one", machine=LocalMachine(why="none"))
    assert caught.value.do == "name one"
