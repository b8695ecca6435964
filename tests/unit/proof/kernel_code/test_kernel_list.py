"""Lists of Triton kernels: read whole or refused, and chosen by card and attention; what a trace becomes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from images.core import UsageError
from images.proof.kernel_code import Kernel, KernelList, list_for, read_list, traces
from images.proof.kernel_code.kernel_list import DATA, MOST_BYTES
from tests.helpers.nonempty import nonempty

ENTRY: dict[str, Any] = {
    "module": "vllm.ops",
    "name": "attend",
    "signature": {"q": "*fp16", "n": "i32", "TILE": "constexpr"},
    "constants": {"TILE": 32},
    "divisible": ["q"],
    "options": {"num_warps": 4},
}
KERNEL = {**ENTRY, "models": ["3b", "7b"], "variants": 2, "shared": 24576, "dots": 2}
LIGHT = {**ENTRY, "name": "copy", "models": ["3b"], "variants": 1, "shared": 0, "dots": 0}


def listed(*groups: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 1, "vllm": "0.33.0", "triton": "3.8.0", "groups": list(groups)}


def group(cards: str, attention: str, *kernels: dict[str, Any], **more: str) -> dict[str, Any]:
    source = {"cards": cards, "attention": attention, "mark": "A", "source": "traced on a card"}
    return {**source, **more, "kernels": list(kernels)}


def read(*groups: dict[str, Any]) -> KernelList:
    return read_list(json.dumps(listed(*groups)))


def names(tasks: tuple[tuple[Kernel, str], ...]) -> list[tuple[str, str]]:
    return [(kernel.title, arch) for kernel, arch in tasks]


def test_a_kernel_is_chosen_by_card_and_attention() -> None:
    found = read(group("<8.0", "triton", KERNEL), group(">=8.0", "flash-attn", LIGHT))
    assert names(found.tasks(("7.5",), "triton")) == [("attend", "7.5")]
    assert names(found.tasks(("8.0",), "triton")) == []
    assert names(found.tasks(("10.0",), "flash-attn")) == [("copy", "10.0")]


def test_heavy_kernels_are_compiled_for_every_card_and_light_ones_for_the_first() -> None:
    found = read(group(">=8.0", "flash-attn", KERNEL, LIGHT))
    tasks = found.tasks(("7.5", "8.0", "9.0"), "flash-attn")
    assert names(tasks) == [("attend", "8.0"), ("attend", "9.0"), ("copy", "8.0")]


def test_what_nobody_compiled_counts_as_heavy() -> None:
    found = read(group(">=8.0", "flash-attn", {**LIGHT, "shared": -1}))
    assert len(found.tasks(("8.0", "9.0"), "flash-attn")) == 2


def test_a_kernel_has_what_its_group_says() -> None:
    found = read(group("==7.5", "xformers", KERNEL, only_with="--enable-prefix-caching"))
    kernel = found.groups[0].kernels[0]
    assert (kernel.only_with, kernel.mark, kernel.source) == ("--enable-prefix-caching", "A", "traced on a card")
    assert kernel.entry == ENTRY


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"groups": [{**group(">=8.0", "x", KERNEL), "mark": "Z"}]},
        {"groups": [{**group(">=8.0", "x", KERNEL), "source": ""}]},
        {"groups": [group("eight", "x", KERNEL)]},
        {"groups": [group(">=8.0", "x", {**KERNEL, "module": ""})]},
        {"groups": [group(">=8.0", "x", {**KERNEL, "source": "def a(): pass"})]},
        {"groups": [group(">=8.0", "x", {**KERNEL, "divisible": ["k"]})]},
        {"groups": [group(">=8.0", "x", {**KERNEL, "constants": {"k": 1}})]},
        {"groups": [group(">=8.0", "x", *([KERNEL] * 501))]},
        {"groups": 3},
    ],
)
def test_what_is_no_list_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no list of Triton kernels") as caught:
        read_list(json.dumps({**listed(), **change}), "vllm-1.json")
    assert "vllm-1.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, " " * (MOST_BYTES + 1)])
def test_a_text_that_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_list(text)


def test_every_list_that_is_kept_can_be_read() -> None:
    for path in nonempty(sorted(DATA.glob("*.json"))):
        found = list_for(path.stem.removeprefix("vllm-"))
        assert found is not None
        assert path.stem == f"vllm-{found.vllm.partition('+')[0]}"
        for one in nonempty(found.groups):
            assert nonempty(one.kernels)


def test_a_local_version_has_the_list_of_its_release() -> None:
    assert list_for("0.33.0+cu130") == list_for("0.33.0")
    assert list_for("0.0.1") is None


# -- traces


def line(entry: dict[str, Any], key: str = "k", shared: int = 0, dots: int = 0) -> dict[str, Any]:
    return {"entry": entry, "key": key, "target": "90", "shared": shared, "dots": dots}


def hinted(**constants: Any) -> dict[str, Any]:
    entry = copy.deepcopy(ENTRY)
    entry["constants"] |= constants
    entry["signature"] |= dict.fromkeys(constants, "constexpr")
    return entry


def test_lines_that_tell_a_problem_are_told() -> None:
    text = "\n".join([json.dumps(line(ENTRY)), json.dumps({"problem": "a.b: TypeError"}), "{", ""])
    found, problems = traces.read_lines([text, json.dumps({"problem": "a.b: TypeError"})])
    assert len(found) == 1
    assert problems == ["a.b: TypeError", "no line of a trace: {"]


def test_kernels_that_differ_in_hints_are_one_and_the_heaviest_stays() -> None:
    kernels, left = traces.merge(
        {"3b": [line(ENTRY, "a", 100), line(hinted(n=1), "b", 300)], "7b": [line(ENTRY, "a", 100)]}
    )
    assert left == 0
    (one,) = kernels
    assert (one["shared"], one["variants"], one["models"]) == (300, 2, ["3b", "7b"])
    assert one["constants"] == {"TILE": 32, "n": 1}


def test_other_constants_and_types_are_other_kernels() -> None:
    other = copy.deepcopy(ENTRY)
    other["signature"]["q"] = "*bf16"
    kernels, _ = traces.merge({"3b": [line(ENTRY), line(hinted(TILE=16)), line(other)]})
    assert len(kernels) == 3


def test_what_multiplies_matrices_comes_first() -> None:
    kernels, _ = traces.merge({"3b": [line(hinted(TILE=1), shared=9), line(ENTRY, dots=2)]})
    assert [one["dots"] for one in kernels] == [2, 0]


def test_generated_kernels_are_bounded_for_each_model() -> None:
    made = [{**ENTRY, "module": "", "name": f"triton_{at}", "source": f"def triton_{at}():\n  {at}"} for at in range(9)]
    lines = [line(one, shared=at) for at, one in enumerate(made)]
    kernels, left = traces.merge({"3b": lines, "7b": lines[:2]})
    assert len(kernels) == traces.GENERATED + 2
    assert left == 1
    assert kernels[0]["shared"] == 8


def test_a_generated_kernels_name_does_not_make_it_another() -> None:
    made = [{**ENTRY, "module": "", "name": f"t{at}", "source": f"def t{at}(q):\n  pass"} for at in range(2)]
    kernels, _ = traces.merge({"3b": [line(made[0], "x"), line(made[1], "y")]})
    assert [one["variants"] for one in kernels] == [2]
