"""Level 1's gate: what fails an image, what is excused, what nobody loads."""

from __future__ import annotations

from images.device_code.audit import Audit, Audited
from images.device_code.fatbin import Library, read
from images.proof.audit.gate import device_code_left, judge_audit
from tests.helpers import elf_files as elves

SITE = "opt/venv/lib/python3.11/site-packages/"


def library(name: str, *containers: tuple[int, ...]) -> Audited:
    """A library with a container for each tuple of SASS numbers."""
    return Audited(SITE + name, read(elves.library([elves.sm(*numbers) for numbers in containers])))


TORCH = library("torch/lib/libtorch_cuda.so", (75,), (75,))
MIXED = library("vllm/_C.abi3.so", (75,), (80,))
FLASH = library("vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so", (80,), (80,))
NVIDIA = library("nvidia/cufft/lib/libcufft.so.11", (52,))
BUNDLED = library("torch/lib/libcusparseLt-f80c68d1.so.0", (80,))
GAPS = (("vllm/_*C*.so", "newer kernels"),)


def test_code_for_every_card_passes_and_nvidias_own_are_not_asked() -> None:
    result = judge_audit(Audit("i", (TORCH, NVIDIA, BUNDLED)), ["7.5"], None, ())
    assert (result.failures, result.archs) == ((), ("7.5",))


def test_a_library_without_any_code_fails_even_if_a_gap_names_it() -> None:
    result = judge_audit(Audit("i", (FLASH,)), ["7.5"], None, (("vllm/*", "excused"),))
    assert "on 7.5: none" in result.failures[0]
    assert result.archs == ()


def test_an_optional_library_may_have_no_code_at_all() -> None:
    result = judge_audit(Audit("i", (FLASH,)), ["7.5"], None, (), (("vllm/*", "nobody calls it"),))
    assert (result.failures, result.archs) == ((), ("7.5",))
    assert "on 7.5: none (nobody calls it)" in result.known[0]
    assert judge_audit(Audit("i", (FLASH,)), ["7.5"], None, (), (("torch/*", "another"),)).failures


def test_a_partial_gap_needs_its_reason() -> None:
    found = Audit("i", (TORCH, MIXED))
    assert len(judge_audit(found, ["7.5"], None, ()).failures) == 1
    excused = judge_audit(found, ["7.5"], None, GAPS)
    assert excused.failures == ()
    assert "newer kernels" in excused.known[0]


def test_what_the_server_never_loads_does_not_fail_the_image() -> None:
    result = judge_audit(Audit("i", (TORCH, FLASH)), ["7.5"], {"torch/lib/libtorch_cuda.so"}, ())
    assert result.failures == ()
    assert "_vllm_fa2_C" in result.not_loaded[0]


def test_cubins_and_archives_are_not_loaded_as_a_whole_and_fail_nothing() -> None:
    """Of flashinfer-cubin's folder the program takes those for its card."""
    cubin = Audited(SITE + "flashinfer_cubin/cubins/a_sm100.cubin", read(elves.cubin(100), "a.cubin"))
    result = judge_audit(Audit("i", (TORCH, cubin)), ["7.5"], None, ())
    assert (result.failures, result.not_loaded, result.archs) == ((), (), ("7.5",))


def test_code_that_cannot_be_told_fails_where_it_is_loaded() -> None:
    hidden = Audited(SITE + "vllm/_C.abi3.so", Library(True, 0, unread="it registers device code that is not found"))
    result = judge_audit(Audit("i", (TORCH, hidden)), ["7.5"], {"vllm/_C.abi3.so"}, ())
    assert result.failures == ("vllm/_C.abi3.so on 7.5: unknown",)


def test_each_card_is_asked_on_its_own() -> None:
    result = judge_audit(Audit("i", (TORCH,)), ["7.5", "8.0"], None, ())
    assert result.archs == ("7.5",)
    assert "on 8.0" in result.failures[0]


def test_where_no_card_is_used_a_library_with_device_code_is_named_and_an_emptied_one_is_not() -> None:
    empty = Audited(SITE + "torchvision/_C.so", read(elves.library([elves.container()])))
    assert empty.library.containers
    nobody_knows = Audited(SITE + "pkg/lib.so", Library(True, 0), "a container runs past its section")
    assert device_code_left(Audit("i", (NVIDIA, BUNDLED, empty))) == ()
    left = device_code_left(Audit("i", (TORCH, NVIDIA, empty, nobody_knows)))
    assert left == ("torch/lib/libtorch_cuda.so: 7.5", "pkg/lib.so: a container runs past its section")
