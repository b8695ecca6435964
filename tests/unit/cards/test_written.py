"""Several cards in one text, names as people shorten them, and cards of other makers."""

from __future__ import annotations

import io

import pytest

from images.cards.asked import Selection, asked_cards
from images.cards.data import all_cards
from images.cards.makers import other_maker
from images.cards.named import named_cards
from images.cards.names import match_card
from images.cards.this_machine import LocalMachine
from images.cards.written import read_written
from images.core.errors import UsageError
from images.core.report import Report
from tests.helpers.nonempty import nonempty


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("RTX 3090", [("RTX 3090", 1)]),
        ("2 x RTX 3090", [("RTX 3090", 2)]),
        ("2x3090", [("3090", 2)]),
        ("2 * 3090", [("3090", 2)]),
        ("2 × 3090", [("3090", 2)]),  # noqa: RUF001
        ("GeForce RTX 3090 x2", [("GeForce RTX 3090", 2)]),
        ("3090 x 4", [("3090", 4)]),
        ("3090 x2", [("3090", 2)]),
        ("3090*2", [("3090", 2)]),
        ("2080 Ti x4", [("2080 Ti", 4)]),
        ("H100x8", [("H100", 8)]),
        ("8xH100", [("H100", 8)]),
        ("8 H100", [("H100", 8)]),
        ("2 3090", [("3090", 2)]),
        ("3090 (x2)", [("3090", 2)]),
        ("dual 3090", [("3090", 2)]),
        ("Four RTX A4000", [("RTX A4000", 4)]),
        ("2 x A100 and T4", [("A100", 2), ("T4", 1)]),
        ("A100,T4", [("A100", 1), ("T4", 1)]),
        ("3090 + 4090", [("3090", 1), ("4090", 1)]),
        ("3090 & 2 x 4090", [("3090", 1), ("4090", 2)]),
        ("A100 MIG 1g.10gb+me", [("A100 MIG 1g.10gb+me", 1)]),
        ("3090 24G*2", [("3090 24G", 2)]),
        ("4090 48GBx8", [("4090 48GB", 8)]),
        ("8卡A100", [("A100", 8)]),
        ("GPU 1: NVIDIA GeForce RTX 3090 (UUID: GPU-1a2b)", [("NVIDIA GeForce RTX 3090", 1)]),
        ("NVIDIA GeForce RTX 2080 Ti, 22528 MiB", [("NVIDIA GeForce RTX 2080 Ti 22 GB", 1)]),
        # an x, a number or a plus that is part of a name
        ("GTX 980", [("GTX 980", 1)]),
        ("Jetson TX2", [("Jetson TX2", 1)]),
        ("MX250", [("MX250", 1)]),
        ("A100X", [("A100X", 1)]),
        ("9800 GTX+", [("9800 GTX+", 1)]),
        ("2080 Ti", [("2080 Ti", 1)]),
        ("40 GB A100", [("40 GB A100", 1)]),
    ],
)
def test_names_and_their_numbers(text: str, read: list[tuple[str, int]]) -> None:
    assert [(one.name, one.count) for one in read_written(text)] == read


def test_every_cards_own_name_is_one_card() -> None:
    known = frozenset(card.name.lower() for card in all_cards())
    for card in nonempty(all_cards()):
        assert [(one.name, one.count) for one in read_written(card.name, known)] == [(card.name, 1)]


def test_several_may_be_in_the_plural() -> None:
    assert [card.name for card in named_cards(["2 RTX 3090s"])] == ["GeForce RTX 3090"] * 2
    assert named_cards(["2 x V100S"])[0].name == "Tesla V100S PCIe 32 GB"
    with pytest.raises(UsageError):
        named_cards(["3090s"])


@pytest.mark.parametrize("text", ["0 x 3090", "99999 x 3090", "100000000000000000000000000 x 3090", "3090 x 0"])
def test_numbers_that_no_machine_has(text: str) -> None:
    with pytest.raises(UsageError):
        named_cards([text])


@pytest.mark.parametrize(
    ("said", "name", "memory"),
    [
        ("H100", "H100 PCIe 80 GB", 80),
        ("H100 SXM", "H100 SXM5 80 GB", 80),
        ("HGX H100", "H100 PCIe 80 GB", 80),
        ("H100NVL", "H100 NVL 94 GB", 94),
        ("A100", "A100 PCIe 80 GB", 80),
        ("A100 SXM", "A100 SXM4 80 GB", 80),
        ("A800", "A800 PCIe 80 GB", 80),
        ("V100", "Tesla V100 PCIe 32 GB", 32),
        ("Tesla V100 SXM2", "Tesla V100 SXM2 32 GB", 32),
        ("V100 16G", "Tesla V100 FHHL", 16),
        ("3060", "GeForce RTX 3060 12 GB", 12),
        ("3060 8gb", "GeForce RTX 3060 8 GB", 8),
        ("RTX 3050", "GeForce RTX 3050 8 GB", 8),
        ("P100", "Tesla P100 PCIe 16 GB", 16),
        # rebuilt ones are never meant by the name alone
        ("4090", "GeForce RTX 4090", 24),
        ("4090 48G", "GeForce RTX 4090 48 GB", 48),
        ("4090D 48GB", "GeForce RTX 4090 D 48 GB", 48),
        ("3080", "GeForce RTX 3080", 10),
        ("3080 20G", "GeForce RTX 3080 20 GB", 20),
        ("2080ti 22g", "GeForce RTX 2080 Ti 22 GB", 22),
        # as they are shortened
        ("4090D", "GeForce RTX 4090 D", 24),
        ("RTX4090D", "GeForce RTX 4090 D", 24),
        ("5090D", "GeForce RTX 5090 D", 32),
        ("RTX 5090 DV2", "GeForce RTX 5090 D V2", 24),
        ("4080S", "GeForce RTX 4080 SUPER", 16),
        ("4070TiS", "GeForce RTX 4070 Ti SUPER", 16),
        ("2080S", "GeForce RTX 2080 SUPER", 8),
        ("1660s", "GeForce GTX 1660 SUPER", 6),
        ("3080M", "GeForce RTX 3080 Mobile", 8),
        ("gt1030", "GeForce GT 1030", 2),
        ("RTX 6000 Pro", "RTX PRO 6000 Blackwell", 96),
        ("MX 450", "GeForce MX450 12W", 2),
        ("ASUS RTX 3090 OC", "GeForce RTX 3090", 24),
        ("V100S", "Tesla V100S PCIe 32 GB", 32),  # a card of its own, no short form
    ],
)
def test_short_names_and_the_common_memory(said: str, name: str, memory: float) -> None:
    found = match_card(said, all_cards()).card
    assert (found.name, found.memory) == (name, memory)


@pytest.mark.parametrize(
    ("said", "maker"),
    [
        *((name, "AMD") for name in ("MI300", "MI300X", "mi-250x", "AMD Instinct MI210", "Radeon RX 7900 XTX")),
        *((name, "AMD") for name in ("7900XTX", "RX 6800", "W7900", "gfx1100", "Strix Halo", "Radeon AI PRO R9700")),
        *((name, "Intel") for name in ("Arc A770", "Intel Arc B580", "B60", "Gaudi", "gaudi3", "HPU", "Max 1550")),
        *((name, "Apple") for name in ("M1", "M2 Ultra", "Apple M3 Max", "m4 pro", "MacBook", "M4")),
        *((name, "Huawei") for name in ("Ascend", "Ascend 910B", "910B3", "Atlas 300I Duo", "310P", "NPU")),
        *((name, "Hygon") for name in ("DCU", "Hygon DCU Z100", "K100_AI", "K100")),
        *(("MLU370", "Cambricon"), ("MTT S4000", "Moore Threads"), ("C500", "MetaX"), ("MXC500", "MetaX")),
        *(("TPU v5e", "Google"), ("Trainium2", "AWS"), ("BI-V150", "Iluvatar"), ("Kunlun P800", "Kunlunxin")),
    ],
)
def test_other_makers_are_told_as_such(said: str, maker: str) -> None:
    with pytest.raises(UsageError) as told:
        match_card(said, all_cards())
    assert f"{maker} makes it" in told.value.cause
    assert "NVS" not in str(told.value) and told.value.do


def test_no_card_of_nvidia_is_taken_for_anothers() -> None:
    taken = [card.name for card in nonempty(all_cards()) if other_maker(f"NVIDIA {card.name}")]
    assert taken == []
    served = [card for card in all_cards() if card.arch.major >= 7]
    assert [card.name for card in nonempty(served) if match_card(card.name, all_cards()).card != card] == []


@pytest.mark.parametrize("said", ["RTX 2090", "3090 super", "RTX 4095", "A101", "H1000", "GTX 9999", "T44", "B2000"])
def test_what_is_no_card_is_never_taken_for_one(said: str) -> None:
    with pytest.raises(UsageError, match="no NVIDIA card"):
        match_card(said, all_cards())


def test_what_a_name_leaves_open_is_told_and_how_to_say_it() -> None:
    err = io.StringIO()
    named_cards(["H100", "2 x T4"], Report(io.StringIO(), err, live=False))
    first, second = err.getvalue().splitlines()
    assert "80 GB is taken" in first and "--card 'H100 SXM5 64 GB'" in first and "--card 'H100 SXM5 96 GB'" in first
    assert second.endswith("16 GB")


def test_advice_names_the_flag_of_commands_that_have_it() -> None:
    for said in ("RTX 2090", "rtx 6000"):
        with pytest.raises(UsageError) as told:
            named_cards([said])
        assert "--arch" not in told.value.do and "./inv cards" in told.value.do
        with pytest.raises(UsageError) as told:
            named_cards([said], by_arch=True)
        assert "--arch" in told.value.do


def _asked(names: list[str], count: int = 0, devices: str = "", memory: str = "") -> list[tuple[str, float]]:
    chosen = Selection(count, tuple(devices.split(",")) if devices else ())
    found = asked_cards(names, "", purpose="", do="", selection=chosen, memory=memory, machine=LocalMachine())
    return [(card.name.removeprefix("GeForce RTX "), card.memory) for card in found.cards]


def test_one_name_is_a_kind_and_several_are_a_machine() -> None:
    kind, other = ("3090", 24.0), ("4090", 24.0)
    assert _asked(["3090"]) == [kind]
    assert _asked(["3090"], 2) == _asked(["2 x 3090"]) == _asked(["3090", "3090"]) == [kind] * 2
    assert _asked(["3090"], devices="0,1") == _asked(["2 x 3090"], 2) == [kind] * 2
    assert _asked(["3090", "4090"], 2) == _asked(["3090 and 4090"]) == _asked(["3090,4090"], devices="0,1")
    assert _asked(["3090", "4090"], devices="2,3") == [kind, other]
    assert _asked(["3090", "4090", "3090"], devices="2,0") == [kind, kind]
    assert _asked(["4 x 3090"], 2) == [kind] * 2
    assert _asked(["3090", "4090"], -1) == [kind, other]


@pytest.mark.parametrize(
    ("names", "count", "devices", "memory", "told"),
    [
        (["3090", "4090"], 4, "", "", "2 cards named, and 4 asked for"),
        (["2 x 3090"], 4, "", "", "2 cards named, and 4 asked for"),
        (["3090", "4090"], 0, "0,1,2", "", "2 cards named"),
        (["3090"], 0, "0,0", "", "names a card twice"),
        (["A100"], 0, "MIG-1", "", "is not known"),
        (["A100"], 0, "0:1", "", "is not known"),
        (["3090", "4090"], 0, "", "48", "several kinds"),
        (["3090"], 0, "", "much", "is no card's memory"),
        (["3090"], 0, "", "-1", "is no card's memory"),
        (["3090"], 0, "", "0", "is no card's memory"),
        (["3090"], 99999999, "", "", "is no number of cards"),
        (["3090"], -7, "", "", "is no number of cards"),
        ([], 0, "", "48", "for a card that is named"),
    ],
)
def test_what_cannot_be_together(names: list[str], count: int, devices: str, memory: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        _asked(names, count, devices, memory)
    assert refused.value.do


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("MIG 3g.20gb", "names no card"),
        ("3g.20gb", "names no card"),
        ("T4 MIG 1g.5gb", "are not cut into MIG instances"),
        ("4090 1g.5gb", "are not cut into MIG instances"),
        ("A100 MIG 7g.999gb", "has no part of 999 GB"),
    ],
)
def test_parts_that_no_card_has(said: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        named_cards([said])
    assert refused.value.do


@pytest.mark.parametrize(
    ("said", "name", "memory"),
    [
        ("A100 3g.20gb", "A100 PCIe 40 GB MIG 3g.20gb", 20),
        ("A100 MIG 3g.40gb", "A100 PCIe 40 GB MIG 3g.40gb", 40),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A100 SXM4 40 GB MIG 1g.5gb", 5),
        ("H100 mig 1c.3g.40gb", "H100 SXM5 64 GB MIG 1c.3g.40gb", 40),
        ("NVIDIA A40-8Q", "NVIDIA A40-8Q", 8),
    ],
)
def test_a_part_is_named_as_a_part_and_read_again(said: str, name: str, memory: float) -> None:
    (found,) = named_cards([said])
    assert (found.name, found.memory) == (name, memory)
    assert named_cards([found.name]) == (found,)
    assert found.mig == ("g." in said)


def test_a_memory_that_is_said_is_the_cards() -> None:
    assert _asked(["4090"], memory="48") == [("4090 48 GB", 48)]
    assert _asked(["4090"], memory="60GB") == [("4090", 60)]
    assert _asked(["H100"], memory="96") == [("H100 PCIe 96 GB", 96)]
    assert _asked(["2080 Ti"], 2, memory="22 GiB") == [("2080 Ti 22 GB", 22)] * 2
    assert _asked(["A100"], devices="0:1", memory="20") == [("A100 PCIe 80 GB", 20)]
