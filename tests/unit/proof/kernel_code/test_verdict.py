"""What compiled kernels come to: too much shared memory fails, spills and idle tensor cores are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from images.cards import limits_of
from images.proof.kernel_code import Kernel, judge

KERNEL = Kernel({"name": "attend"}, ("3b", "7b"), True, "A", "traced")
# What ptxas -v says (CUDA 12.4 and 13.0), as recorded.
SAID = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'attend' for 'sm_75'
ptxas info    : Function properties for attend
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, 568 bytes cmem[0]
"""


def result(
    shared: int = 24576, registers: int = 215, stores: int = 0, loads: int = 0, dots: int = 0, **counts: int
) -> dict[str, Any]:
    said = SAID.format(stack=0, stores=stores, loads=loads, registers=registers)
    return {
        "ok": True,
        "shared": shared,
        "dots": dots,
        "assembler": said,
        "seconds": 1.0,
        "instructions": {"ld": 3, **counts},
    }


def test_what_fits_passes_with_its_numbers() -> None:
    verdict = judge([(KERNEL, "7.5")], [result(dots=2, mma=64)])
    assert verdict.failures == verdict.slow == verdict.spills == ()
    assert verdict.compiled[0].row() == {
        "kernel": "attend", "on": "7.5", "models": "3b 7b", "shared": 24576, "registers": 215, "products": 2, "mma": 64,
        "fma": 0,
    }  # fmt: skip


@pytest.mark.parametrize("arch", ["7.5", "8.6", "9.0"])
def test_shared_memory_fails_from_the_first_byte_beyond_the_card(arch: str) -> None:
    limit = limits_of(arch).shared_a_block
    assert judge([(KERNEL, arch)], [result(limit)]).failures == ()
    (failure,) = judge([(KERNEL, arch)], [result(limit + 1)]).failures
    assert f"attend on {arch} (3b, 7b) needs {limit + 1} bytes of shared memory, a block has {limit}" in failure


def test_what_does_not_compile_fails_with_the_compilers_last_word() -> None:
    bad = {"ok": False, "error": "CompilationError: at 3:4\nUnsupported conversion from f16 to f16\n"}
    verdict = judge([(KERNEL, "7.5"), (KERNEL, "8.0")], [bad, result()])
    assert verdict.failures == ("attend on 7.5 (3b, 7b) does not compile: Unsupported conversion from f16 to f16",)
    assert verdict.archs == ("8.0",)


def test_idle_tensor_cores_are_told_and_fail_nothing() -> None:
    verdict = judge([(KERNEL, "7.5")], [result(dots=2, fma=1030)])
    assert verdict.failures == ()
    assert verdict.slow == ("attend on 7.5: no tensor cores, 1030 FMA",)
    assert verdict.told == "1 compiled, 1 without tensor cores"


def test_a_kernel_without_products_needs_no_tensor_cores() -> None:
    assert judge([(KERNEL, "7.5")], [result(fma=9)]).slow == ()


def test_a_card_without_tensor_cores_leaves_none_idle() -> None:
    assert judge([(KERNEL, "6.1")], [result(dots=1, fma=9)]).slow == ()


@pytest.mark.parametrize("name", ["mma", "wgmma", "tcgen05", "wmma"])
def test_each_generations_instruction_counts(name: str) -> None:
    assert judge([(KERNEL, "9.0")], [result(dots=2, **{name: 4})]).slow == ()


def test_spills_are_told() -> None:
    verdict = judge([(KERNEL, "7.5")], [result(stores=2104, loads=2108, registers=64)])
    assert verdict.failures == ()
    assert verdict.spills == ("attend on 7.5: 4212 bytes of spills, 64 registers",)
    assert verdict.compiled[0].row()["spilled"] == 4212


def test_an_assembler_that_says_nothing_is_no_pass() -> None:
    silent = {**result(), "assembler": ""}
    assert judge([(KERNEL, "7.5")], [silent]).failures == ("attend on 7.5 (3b, 7b): the assembler told no registers",)


def test_what_takes_a_flag_is_told_and_fails_nothing() -> None:
    kernel = replace(KERNEL, only_with="--enable-prefix-caching")
    verdict = judge([(kernel, "7.5")], [result(70000)])
    assert verdict.failures == ()
    assert verdict.told == "1 compiled, 1 unusable"
    assert verdict.refused[0].startswith("with --enable-prefix-caching: attend on 7.5 (3b, 7b) needs 70000 bytes")


def test_results_that_are_too_few_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        judge([(KERNEL, "7.5"), (KERNEL, "8.0")], [result()])
