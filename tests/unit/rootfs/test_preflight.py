"""Preflight: whether an image fits the cards and the driver it is started on, and what it says if not."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.cards.choose import choose_images
from images.cards.data import Card
from images.core import process
from images.core.errors import NoImageFits
from images.matrix import drivers
from images.matrix.arch import KNOWN_ARCHS, Arch, parse_arch
from images.matrix.variants import WHOLE, make_variants
from images.render.bakefile import WHOLE_ARGUMENT
from images.render.preflight_images import as_text, images_for_preflight
from tests.helpers.matrices import ROOT, matrix, variants, with_lists
from tests.helpers.nonempty import nonempty
from tests.helpers.nvml_answers import RECORDED, Library, recorded

HERE = ROOT / "dockerfiles" / "rootfs" / "opt" / "cardstock"
SM75, SM86 = "cu124-vllm0.8.5.post1-xformers-sm75", "cu128-vllm0.11.0-flash-attn-sm86"
SM120, SDPA75 = "cu128-vllm0.11.0-flash-attn-sm120", "cu124-transformers5.24.0-sdpa-sm75"
CPU = "cpu-vllm0.32.0-sdpa"
ALL_7_TO_9 = "cu124-vllm0.8.5.post1-xformers-sm70_75_80_86_89_90"


def load() -> tuple[ModuleType, ...]:
    """preflight and nvml, as the image's Python finds them: beside each other."""
    import importlib

    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(HERE))
    try:
        return tuple(importlib.import_module(name) for name in ("preflight", "nvml", "card_state"))
    finally:
        sys.path.remove(str(HERE))
        sys.dont_write_bytecode = before


_modules: Any = load()
preflight, nvml, card_state = _modules


@cache
def environment_of(variant: str) -> dict[str, str]:
    """What the rendered Dockerfile gives the image of a variant, also of one with "-whole" behind it."""
    plain = variant.removesuffix(WHOLE)
    text = (ROOT / "dockerfiles" / "rendered" / plain / "Dockerfile").read_text(encoding="utf-8")
    text = text.replace(f"${{{WHOLE_ARGUMENT}}}", variant.removeprefix(plain))
    return dict(re.findall(r'^(?:ENV|   ) ([A-Z_]+)="([^"]*)"', text, re.MULTILINE))


def machine_of(library: Library) -> Any:
    return nvml.read_machine(lambda name: library, devices=())


def verdict(variant: str, answers: str | Library, **environment: str) -> tuple[int, str]:
    """The exit code and the text of an image on a machine."""
    told = environment_of(variant) | environment
    library = recorded(answers) if isinstance(answers, str) else answers
    found = preflight.judge(preflight.read_image(told), machine_of(library), told)
    return found.code, "\n".join(found.lines)


def without_library(_: str) -> Any:
    raise OSError("libnvidia-ml.so.1: cannot open shared object file: No such file or directory")


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.txt")))
@pytest.mark.parametrize("variant", [SM75, SM86, SM120, SDPA75, CPU])
def test_every_refusal_is_one_message_with_a_way_out(name: str, variant: str) -> None:
    code, text = verdict(variant, name)
    assert code in (0, 4)
    lines = text.splitlines()
    if code == 4:
        first = next(at for at, line in enumerate(lines) if not line.endswith("going on"))
        assert [line.split(":")[0].strip() for line in lines[first + 1 :] if "or:" not in line] == [
            "cause", "do", "where"
        ]  # fmt: skip
        assert "CARDSTOCK_SKIP_PREFLIGHT=1" in text
    else:
        assert not any(line.startswith("  ") for line in lines)
    assert "Traceback" not in text


def test_a_t4_with_driver_470_gets_the_older_stack_or_a_newer_driver() -> None:
    code, text = verdict(SM75, "t4-driver-470")
    assert code == 4
    assert "driver 470.82.01 (CUDA 11.4) is too old" in text
    assert "do: update the host's driver to 525.60.13 or newer" in text
    assert "docker pull cardstock/qwen2.5-vl:cu118-vllm0.8.5.post1-xformers-sm75 " in text
    code, text = verdict(SM86, "t4-driver-470")  # the wrong card and the wrong driver
    assert code == 4
    assert "has no code for Tesla T4 (7.5)" in text
    assert "cu118-vllm0.8.5.post1-xformers-sm75" in text
    assert f"update the host's driver to 525.60.13 or newer, and docker pull cardstock/qwen2.5-vl:{SM75}" in text
    assert verdict("cu118-vllm0.8.5.post1-xformers-sm75", "t4-driver-470")[0] == 0


def test_a_v100_is_sent_to_its_image_and_kept_from_drivers_that_leave_it() -> None:
    code, text = verdict(SM75, "v100")
    assert code == 4
    assert "do: docker pull cardstock/qwen2.5-vl:cu124-vllm0.8.5.post1-xformers-sm70 " in text
    old = Library("driver 470.82.01\ncuda 11040\ncard 0 7.0 GPU-1 Tesla V100-SXM2-16GB")
    assert "branch 580 is the last for Tesla V100" in verdict("cu124-vllm0.8.5.post1-xformers-sm70", old)[1]
    assert preflight.LAST_FOR_VOLTA == drivers.LAST_FOR_VOLTA


@pytest.mark.parametrize("variant", [SM75, SM120, SDPA75])
def test_a_4090_is_sent_to_its_image_by_every_other(variant: str) -> None:
    code, text = verdict(variant, "rtx-4090", CARDSTOCK_REPOSITORY="registry.example.com/team/qwen")
    assert code == 4
    assert f"{variant} has no code for NVIDIA GeForce RTX 4090 (8.9)" in text
    assert "do: docker pull registry.example.com/team/qwen:cu129-vllm0.19.1-flash-attn-sm89 " in text
    assert "./inv build --only cu129-vllm0.19.1-flash-attn-sm89" in text


def test_a_4090_runs_code_of_a_lower_minor_of_its_major() -> None:
    assert verdict(SM86, "rtx-4090") == (0, f"{SM86} fits NVIDIA GeForce RTX 4090 (8.9), driver 550.54.14")


def test_two_different_cards_of_which_one_fits() -> None:
    code, text = verdict(SM75, "rtx-3090-and-t4")
    assert code == 4
    assert "has no code for NVIDIA GeForce RTX 3090 (8.6); it fits Tesla T4 (7.5)" in text
    assert "-e CUDA_DEVICE_ORDER=PCI_BUS_ID -e CUDA_VISIBLE_DEVICES=1" in text
    assert """--gpus '"device=GPU-b1946ac9-2f4d-4e0b-8d5a-91f7a4aa0005"'""" in text
    assert f"docker pull cardstock/qwen2.5-vl:{ALL_7_TO_9} " in text
    assert verdict(ALL_7_TO_9, "rtx-3090-and-t4")[0] == 0


@pytest.mark.parametrize(
    ("environment", "code"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 4),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 0),  # which card that is, only CUDA knows
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, 4),  # both, in whatever order
        ({"CUDA_VISIBLE_DEVICES": "GPU-3e6a8f10"}, 4),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1"}, 4),
        ({"CUDA_VISIBLE_DEVICES": ""}, 4),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 4),
        ({"CUDA_VISIBLE_DEVICES": "7,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 4),  # CUDA stops at what is no card
        ({"CUDA_VISIBLE_DEVICES": "1,7,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(environment: dict[str, str], code: int) -> None:
    assert verdict(SM75, "rtx-3090-and-t4", **environment)[0] == code


UUID = "GPU-b1946ac9-2f4d-4e0b-8d5a-91f7a4aa0005"
T4 = f"driver 580.65.06\ncuda 13000\ncard 0 7.5 {UUID} Tesla T4"


@pytest.mark.parametrize("words", ["GPU-b1946ac9", UUID])
def test_a_vllm_that_reads_no_uuids_is_told_the_number(words: str) -> None:
    code, text = verdict(SM75, "rtx-3090-and-t4", CUDA_VISIBLE_DEVICES=words)
    assert code == 4 and f"does not start with CUDA_VISIBLE_DEVICES={words}" in text
    assert "do: by number: -e CUDA_DEVICE_ORDER=PCI_BUS_ID -e CUDA_VISIBLE_DEVICES=1" in text
    assert f"""--gpus '"device={UUID}"'""" in text and f"--device nvidia.com/gpu={UUID}" in text
    assert verdict(SDPA75, "rtx-3090-and-t4", CUDA_VISIBLE_DEVICES=words)[0] == 0


def test_a_slice_by_uuid_is_given_by_docker_instead() -> None:
    code, text = verdict(SM75, Library(T4), CUDA_VISIBLE_DEVICES="MIG-1234")
    assert code == 4 and "vLLM takes every word for a number" in text
    assert "do: leave it out" in text and """--gpus '"device=MIG-1234"'""" in text and "by number" not in text


def test_a_newer_vllm_reads_whole_uuids_alone() -> None:
    newest = next(one for one in variants().valid if "vllm0.33.0" in one and one.endswith("sm75"))
    assert verdict(newest, Library(T4), CUDA_VISIBLE_DEVICES=UUID)[0] == 0
    code, text = verdict(newest, Library(T4), CUDA_VISIBLE_DEVICES="GPU-b1946ac9")
    assert code == 4 and "whole ones only" in text and "CUDA_VISIBLE_DEVICES=0" in text


def test_every_vllm_of_the_matrix_is_on_the_side_that_its_source_says() -> None:
    tried = {"0.7.3": False, "0.8.5.post1": False, "0.11.0": False, "0.19.1": False, "0.33.0": True}
    cards = (nvml.Seen(0, "Tesla T4", UUID, (7, 5)),)
    for variant in nonempty(one for one in variants().valid.values() if one.backend == "vllm" and one.archs):
        version = variant.id.split("-")[1].removeprefix("vllm")
        fault = card_state.unread_words(variant.id, cards, {"CUDA_VISIBLE_DEVICES": UUID})
        if version in tried:
            assert (fault is None) == tried[version], variant.id
        else:
            assert version == "0.9.2" and fault is not None  # between two that take words for numbers


def test_a_card_that_no_process_may_use_and_one_that_one_may() -> None:
    code, text = verdict(SM75, "exclusive-and-prohibited")
    assert code == 4 and "card 1, Tesla T4: no process may use it" in text and "-c DEFAULT" in text
    code, text = verdict(SM75, "exclusive-and-prohibited", CUDA_VISIBLE_DEVICES="0", CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert code == 0 and "exclusive compute mode" in text and "fits" in text


def test_a_fabric_that_is_not_up_is_told() -> None:
    code, text = verdict("cu128-vllm0.11.0-flash-attn-sm90", "h100-without-fabric")
    assert code == 0 and "802" in text and "nvidia-fabricmanager" in text and "going on" in text


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ("no-permission", 0, ("going on", "may not open the driver's device files", "--group-add")),
        ("blocked", 0, ("error 17", "WSL2", "going on")),
        ("unknown-error", 0, ("error 999", "daemon-reload", "going on")),
        ("one-of-two-lost", 0, ("card 0 does not answer: NVML error 15", "fallen off the bus", "fits Tesla T4")),
    ],
)
def test_errors_of_nvml_say_what_to_do(answers: str, code: int, said: tuple[str, ...]) -> None:
    found, text = verdict(SM75, answers)
    assert found == code
    for words in said:
        assert words in text


def test_which_card_a_number_means_is_not_guessed() -> None:
    code, text = verdict(SM75, "rtx-3090-and-t4", CUDA_VISIBLE_DEVICES="1")
    assert code == 0
    assert "fits" not in text and "CUDA_DEVICE_ORDER=PCI_BUS_ID" in text


def test_cards_that_no_image_covers_together_are_told_one_by_one() -> None:
    code, text = verdict(SM75, "v100-and-rtx-5090")
    assert code == 4
    assert "for Tesla V100-SXM2-16GB: docker pull cardstock/qwen2.5-vl:cu124-vllm0.8.5.post1-xformers-sm70 " in text
    assert "for NVIDIA GeForce RTX 5090: update the host's driver to 580.65.06 or newer" in text


def test_a_card_without_an_image_is_told_why() -> None:
    maxwell = Library("driver 550.90.07\ncuda 12040\ncard 0 5.2 GPU-1 NVIDIA GeForce GTX 980 Ti")
    code, text = verdict(SM75, maxwell)
    assert code == 4
    assert "no image is made for cards below 6.0" in text
    assert f"docker pull cardstock/qwen2.5-vl:{CPU} " in text
    code, text = verdict(SM75, "gtx-1080-ti")
    assert code == 4
    assert "docker pull cardstock/qwen2.5-vl:cu124-transformers5.24.0-sdpa-sm61 " in text
    newer = Library("driver 990.1\ncuda 99000\ncard 0 19.0 GPU-1 NVIDIA Tomorrow")
    assert "no image is made for 19.0" in verdict(SM75, newer)[1]


@pytest.mark.parametrize(
    ("answers", "environment", "words"),
    [
        ("no-card", {}, ("shows no card", "--gpus all")),
        ("no-card", {"NVIDIA_VISIBLE_DEVICES": "void"}, ("NVIDIA_VISIBLE_DEVICES=void gives no card",)),
        ("driver-not-loaded", {}, ("not loaded (NVML error 9)", "do: on the host: nvidia-smi")),
        ("library-of-another-version", {}, ("of two versions", "do: restart the host")),
        ("rtx-4090", {"CUDA_VISIBLE_DEVICES": ""}, ("CUDA_VISIBLE_DEVICES= hides every card",)),
    ],
)
def test_without_a_card_vllm_ends_and_transformers_goes_on_in_one_line(
    answers: str, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    code, text = verdict(SM75, answers, **environment)
    assert code == 4 and "needs an NVIDIA card" in text
    assert f"the image for the CPU: docker pull cardstock/qwen2.5-vl:{CPU}" in text
    for word in words:
        assert word in text
    code, text = verdict(SDPA75, answers, **environment)
    assert code == 0 and len(text.splitlines()) == 1
    assert "computing on the CPU" in text
    assert verdict(CPU, answers, **environment) == (0, "")


def test_no_library_is_no_driver_unless_a_driver_is_there(tmp_path: Path) -> None:
    none = nvml.read_machine(without_library, devices=())
    assert "no NVIDIA driver reaches this container" in none.why
    device = tmp_path / "nvidiactl"
    device.touch()
    there = nvml.read_machine(without_library, devices=(str(device),))
    assert not there.why
    environment = environment_of(SM75)
    found = preflight.judge(preflight.read_image(environment), there, environment)
    assert found.code == 0 and len(found.lines) == 1 and "going on" in found.lines[0]


class Odd(Library):
    """A library that fails in ways nobody has thought of."""

    def __init__(self, name: str, does: Any) -> None:
        super().__init__((RECORDED / "t4-driver-470.txt").read_text(encoding="utf-8").replace("470.82.01", "550.1"))
        setattr(self, name, does)


def _breaks(*_: Any) -> int:
    raise OSError("not what it seemed")


@pytest.fixture(autouse=True)
def _cuda_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this machine has a driver or none."""
    monkeypatch.setattr(preflight, "lacking", lambda: "")


def test_cards_without_the_library_to_compute_on_them_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (RECORDED / "t4-driver-470.txt").read_text(encoding="utf-8").replace("470.82.01", "550.1")
    monkeypatch.setattr(preflight, "read_machine", lambda: machine_of(Library(text)))
    assert preflight.main(environment_of(SM75)) == 0
    monkeypatch.setattr(preflight, "lacking", lambda: "libcuda.so.1: cannot open shared object file")
    assert preflight.main(environment_of(SM75)) == 4
    err = capsys.readouterr().err
    assert "libcuda.so.1 of the driver cannot be loaded" in err and "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in err
    assert preflight.main(environment_of("cu124-transformers5.24.0-sdpa-sm75")) == 0
    assert "computing on the CPU" in capsys.readouterr().err


@pytest.mark.parametrize("does", [lambda *_: 999, lambda *_: 4, _breaks])
@pytest.mark.parametrize("name", sorted(name for name in vars(Library) if name.startswith("nvml")))
def test_an_answer_that_is_not_understood_never_stops_a_good_machine(
    name: str, does: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "read_machine", lambda: machine_of(Odd(name, does)))
    assert preflight.main(environment_of(SM75)) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_library_that_lacks_a_function_never_stops_a_good_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "read_machine", lambda: nvml.read_machine(lambda name: object(), devices=()))
    assert preflight.main(environment_of(SM75)) == 0
    assert "going on" in capsys.readouterr().err


def test_a_driver_that_does_not_say_its_version_is_not_held_against_it() -> None:
    code, text = verdict(SM75, Library("cuda 12040\ncard 0 7.5 GPU-1 Tesla T4"))
    assert code == 0 and "not understood" in text
    assert verdict(SM75, Library("card 0 8.9 GPU-1 NVIDIA L4"))[0] == 4


def test_a_card_that_is_lost_does_not_hide_the_others() -> None:
    code, text = verdict(SM75, "one-of-two-lost")
    assert code == 0
    assert "card 0 does not answer: NVML error 15" in text and "fits Tesla T4" in text
    assert verdict(SM86, "one-of-two-lost")[0] == 4


def test_a_newer_cuda_beside_an_older_driver_will_do() -> None:
    assert verdict(SM75, "t4-with-newer-cuda-beside")[0] == 0
    assert verdict("cu130-transformers5.24.0-sdpa-sm75", "t4-with-newer-cuda-beside")[0] == 4


# -- the same rules as the package's


def archs() -> Iterator[Arch]:
    for text in KNOWN_ARCHS:
        for suffix in ("", "a", "f"):
            for ptx in (False, True):
                if not (suffix and ptx):
                    yield parse_arch(f"{text}{suffix}{'+PTX' if ptx else ''}")


def test_it_runs_where_the_package_says_it_runs() -> None:
    for arch in nonempty(archs()):
        for card in map(parse_arch, nonempty(KNOWN_ARCHS)):
            assert preflight.runs_on(str(arch), (card.major, card.minor)) == arch.runs_on(card), (arch, card)


VERSION = st.tuples(st.integers(384, 620), st.integers(0, 300), st.integers(0, 99)).map(
    lambda parts: f"{parts[0]}.{parts[1]:02d}.{parts[2]:02d}"
)


@given(VERSION, VERSION)
def test_a_driver_is_new_enough_where_the_package_says_so(version: str, minimum: str) -> None:
    machine = nvml.Machine(driver=version)
    assert preflight.driver_runs(machine, minimum) == drivers.driver_suffices(drivers.parse_driver(version), minimum)


def test_an_image_says_of_itself_what_the_matrix_says() -> None:
    told = [one.id for one in images_for_preflight(matrix(), variants())]
    for variant in nonempty(one for plain in variants().valid.values() for one in (plain, plain.as_whole())):
        image = preflight.read_image(environment_of(variant.id))
        assert image.archs == tuple(arch.capability for arch in variant.archs)
        assert image.tag == variant.id and image.engine == variant.backend
        if variant.archs:
            assert image.driver == variant.min_driver
            assert f"cuda>={image.cuda[0]}.{image.cuda[1]}" == variant.require_cuda
            assert [other.tag for other in image.others] == told
            for other in nonempty(image.others):
                named = variants().valid[other.tag]
                assert [f"{a}.{b}" for a, b in other.archs] == [arch.capability for arch in named.archs]
                assert other.driver == (named.min_driver or "")


DRIVERS = ("450.80.02", "470.82.01", "520.61.05", "525.60.13", "550.54.14", "570.26", "580.65.06", "590.10")


def _chosen(cards: tuple[Arch, ...], driver: str) -> str:
    """What the package chooses for all of these cards; "" if nothing, or one each."""
    named = [Card(str(card), card, 80, "test") for card in cards]
    try:
        choice = choose_images(matrix(), variants(), named, drivers.parse_driver(driver))
    except NoImageFits:
        return ""
    return choice.picks[0].variant.id if choice.one_for_all else ""


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_card_is_sent_to_the_image_that_the_package_would_choose(driver: str) -> None:
    others = preflight.read_image(environment_of(SM75)).others
    # An image for x86-64 meets no Jetson module, nor does a driver show a card that it does not know.
    cards = [parse_arch(text) for text in KNOWN_ARCHS if text not in ("5.3", "6.2", "7.2", "8.7", "11.0")]
    for card in nonempty(card for card in cards if drivers.driver_supports(drivers.parse_driver(driver), card)):
        seen = nvml.Seen(0, str(card), "GPU-1", (card.major, card.minor))
        found = preflight.best(others, [seen], nvml.Machine(driver=driver))
        assert (found.tag if found else "") == _chosen((card,), driver), (card, driver)


def test_different_cards_are_sent_to_the_one_image_that_the_package_would_choose() -> None:
    others = preflight.read_image(environment_of(SM75)).others
    newest = DRIVERS[-2]
    for count in (2, 3):
        for cards in nonempty(combinations([parse_arch(text) for text in matrix().archs], count)):
            seen = [nvml.Seen(at, str(card), "", (card.major, card.minor)) for at, card in enumerate(cards)]
            found = preflight.best(others, seen, nvml.Machine(driver=newest))
            assert (found.tag if found else "") == _chosen(cards, newest), cards


@pytest.mark.parametrize("driver", ["525.60.13", "535.104.05", "570.26", "580.65.06"])
def test_cards_are_sent_along_the_ordered_lists_of_their_archs(driver: str) -> None:
    archs = [text for text in matrix().archs if text.startswith("8")]
    listed = with_lists(**{f"sm{text.replace('.', '')}": ("cu130 flash-attn", "cu128 flash-attn") for text in archs})
    made = make_variants(listed)
    others = [preflight.read_other(word) for word in as_text(images_for_preflight(listed, made)).split()]
    for count in (1, 2):
        for cards in nonempty(combinations([parse_arch(text) for text in archs], count)):
            seen = [nvml.Seen(at, str(card), "", (card.major, card.minor)) for at, card in enumerate(cards)]
            named = [Card(str(card), card, 80, "test") for card in cards]
            choice = choose_images(listed, made, named, drivers.parse_driver(driver))
            stack = "cu130" if driver.startswith("580") else "cu128"
            assert choice.picks[0].variant.stack == stack
            found = preflight.best(others, seen, nvml.Machine(driver=driver))
            assert found and found.tag == choice.picks[0].variant.id, (cards, driver)


# -- the program


def run(environment: dict[str, str]) -> process.Finished:
    return process.run([sys.executable, "-S", "-E", "-B", str(HERE / "preflight.py")], env=environment, check=False)


def test_as_a_program_it_needs_the_standard_library_alone() -> None:
    done = run(environment_of(CPU))
    assert (done.code, done.err) == (0, "")
    broken = run({"CARDSTOCK_ARCHS": "seven", "CARDSTOCK_ENGINE": "transformers"})
    assert broken.code == 0 and "Traceback" not in broken.err
