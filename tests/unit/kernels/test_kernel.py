from __future__ import annotations

import dataclasses

import pytest

from images.matrix.arch import parse_arch
from images.matrix.kernel import Kernel, duplicate_ids, make_kernel
from tests.helpers.matrices import variants


def kernel(package: str, *cards: str) -> Kernel:
    return make_kernel(
        package,
        "1.2",
        torch="2.6.0+cu118",
        cuda="11.8",
        python="3.11",
        lock="cu118-vllm",
        cards=tuple(map(parse_arch, cards)),
    )


def test_an_id_says_what_the_wheel_is() -> None:
    assert kernel("xformers", "7.5", "7.0").id == "xformers1.2-torch2.6.0-cu118-sm70_75"
    assert kernel("xformers", "7.5").target == "kernel-xformers1-2-torch2-6-0-cu118-sm75"


def test_flash_attn_is_compiled_for_the_cards_its_build_knows() -> None:
    flash = kernel("flash-attn", "8.9", "8.6", "9.0")
    assert flash.capabilities == ("8.0", "9.0")
    assert dict(flash.env)["FLASH_ATTN_CUDA_ARCHS"] == "80;90"
    assert kernel("flash-attn", "8.6") == kernel("flash-attn", "8.9")


def test_flashinfers_wheel_has_a_name_of_its_own() -> None:
    turing = kernel("flashinfer", "7.5")
    assert (turing.id, turing.distribution) == ("flashinfer1.2-torch2.6.0-cu118-sm75", "flashinfer-jit-cache")
    assert dict(turing.env) == {"FLASHINFER_CUDA_ARCH_LIST": "7.5", "CARDSTOCK_FLASHINFER_MODULES": "f16-128"}
    assert kernel("xformers", "7.5").distribution == "xformers"


def test_there_is_no_recipe_for_other_packages() -> None:
    with pytest.raises(ValueError, match="sageattention"):
        kernel("sageattention", "8.0")


def test_two_kernels_of_one_name_are_found() -> None:
    one = kernel("xformers", "7.5")
    other = dataclasses.replace(one, lock="other")
    assert duplicate_ids((one, one, kernel("xformers", "7.0"))) == []
    assert duplicate_ids((one, other)) == [one.id]


def test_the_matrix_has_one_kernel_for_each_name() -> None:
    kernels = tuple(v.kernel for v in variants().valid.values() if v.kernel)
    assert duplicate_ids(kernels) == []
