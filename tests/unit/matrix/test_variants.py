from __future__ import annotations

import re

import pytest

from bench.plan import large_matrix
from images.matrix.arch import parse_arch
from images.matrix.rules import Judge
from images.matrix.variants import make_variants, points
from tests.helpers.matrices import edited, matrix, text, variants
from tests.helpers.nonempty import nonempty


def rules_of(identifier: str) -> list[str]:
    return [rule.id for e in variants().excluded if e.id == identifier for rule in e.rules]


def test_every_point_is_either_a_variant_or_excluded_with_a_reason() -> None:
    judged = list(points(matrix(), Judge(matrix())))
    assert len(judged) == len(variants().valid) + len(variants().excluded)
    for excluded in variants().excluded:
        assert excluded.rules
        assert all(rule.reason and rule.source and rule.mark in "ASDU" for rule in excluded.rules)
        assert excluded.nearest in variants().valid, excluded.id


def test_the_nearest_variant_serves_the_same_cards() -> None:
    for excluded in nonempty(one for one in variants().excluded if one.point.archs):
        assert variants().valid[excluded.nearest].archs == excluded.point.archs


def test_ids_are_tags_and_unique() -> None:
    for identifier in variants().valid:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,127}", identifier)
    assert "cu124-vllm0.8.5.post1-xformers-sm75" in variants().valid
    assert "cu121-transformers5.13.1-sdpa-sm75" in variants().valid
    assert "cpu-vllm0.32.0-sdpa" in variants().valid


def test_a_variant_is_a_value_that_a_dictionary_can_have_as_its_key() -> None:
    """With its rows of every section: those that leave packages out have lists in matrix.yaml."""
    assert any(variant.unused_packages for variant in variants().valid.values())
    assert len({variant: variant.id for variant in variants().valid.values()}) == len(variants().valid)


@pytest.mark.parametrize("arch", ["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"])
def test_every_arch_has_an_image_and_its_recommendation_is_one(arch: str) -> None:
    choice, *_ = matrix().recommended.archs[arch]
    found = [v for v in variants().valid.values() if v.archs == (parse_arch(arch),)]
    assert any(v.stack == choice.stack and v.attention == choice.attention for v in found)


@pytest.mark.parametrize(
    ("identifier", "rule"),
    [
        ("cu124-vllm0.8.5.post1-flash-attn-sm75", "flash-attn-needs-ampere"),
        ("cu130-vllm0.33.0-xformers-sm80", "xformers-gone-from-vllm"),
        ("cu128-vllm0.11.0-xformers-sm120", "xformers-not-on-blackwell"),
        ("cu130-transformers5.24.0-sdpa-sm70", "volta-not-in-cuda13"),
        ("cu130-transformers5.24.0-sdpa-sm70", "toolkit-range"),
        ("cu124-transformers5.24.0-sdpa-sm120", "blackwell-needs-torch-2.7-cu128"),
        ("cu124-transformers5.24.0-sdpa-sm120", "toolkit-range"),
        ("cu126-vllm0.9.2-xformers-sm75", "triton33-below-ampere"),
        ("cu126-transformers5.24.0-sdpa-sm100", "no-device-code"),
        ("cpu-vllm0.32.0-xformers", "cpu-has-one-attention"),
        ("cu128-vllm0.11.0-xformers-sm70", "xformers-drops-volta"),
        ("cu128-vllm0.11.0-triton-sm75", "triton-attention-needs-a-flag"),
        ("cu129-vllm0.19.1-triton-sm86", "triton-where-flash-attn-is"),
        ("cu129-vllm0.19.1-flashinfer-sm70", "flashinfer-not-on-volta"),
        ("cu129-vllm0.19.1-flashinfer-sm75", "flashinfer-broken-on-turing"),
        ("cu130-vllm0.33.0-flashinfer-sm90", "flashinfer-needs-nvcc"),
        ("cu130-vllm0.33.0-triton-sm70", "volta-not-in-cuda13"),
        ("cpu-vllm0.32.0-triton", "cpu-has-one-attention"),
    ],
)
def test_points_that_cannot_be(identifier: str, rule: str) -> None:
    assert rule in rules_of(identifier)


@pytest.mark.parametrize(
    ("vllm", "torch", "rule", "arch"),
    [
        ("0.17.1", "2.10.0", "triton-attention-hangs-on-volta", "7.0"),
        ("0.12.0", "2.9.0", "flashinfer-on-turing", "7.5"),
        ("0.20.2", "2.11.0", "volta-not-in-vllm", "7.0"),
    ],
)
def test_rules_about_versions_no_stack_has_bite_when_one_gets_them(vllm: str, torch: str, rule: str, arch: str) -> None:
    changed = (
        edited(
            ('vllm: {version: "0.33.0"', f'vllm: {{version: "{vllm}"'),
            ('torch: {version: "2.14.0"', f'torch: {{version: "{torch}"'),
        )
        if vllm == "0.20.2"
        else _without_torch_rules(vllm, torch)
    )
    found = {r.id for r in Judge(changed).rules_against("cu130", "vllm", "flash-attn", (parse_arch(arch),))}
    assert rule in found


def _without_torch_rules(vllm: str, torch: str):  # type: ignore[no-untyped-def]
    from images.matrix.reader import parse_matrix

    new = text().replace('vllm: {version: "0.33.0"', f'vllm: {{version: "{vllm}"')
    return parse_matrix(new.replace('torch: {version: "2.14.0"', f'torch: {{version: "{torch}"'))


@pytest.mark.parametrize("arch", ["5.3", "6.1", "6.2", "7.2", "8.7", "11.0"])
def test_no_engine_serves_these_cards_with_vllm(arch: str) -> None:
    judge = Judge(matrix())
    stacks = matrix().stacks.items()
    for stack in nonempty(name for name, stack in stacks if stack.cuda and "vllm" in stack.backends):
        assert judge.rules_against(stack, "vllm", "xformers", (parse_arch(arch),))


def test_drivers_and_require_cuda() -> None:
    valid = variants().valid
    assert valid["cu118-transformers5.24.0-sdpa-sm75"].min_driver == "450.80.02"
    assert valid["cu118-transformers5.24.0-sdpa-sm75"].require_cuda == "cuda>=11.0"
    assert valid["cu124-vllm0.8.5.post1-xformers-sm75"].min_driver == "525.60.13"
    assert valid["cu124-vllm0.8.5.post1-xformers-sm75"].require_cuda == "cuda>=12.0"
    assert valid["cu128-vllm0.11.0-flash-attn-sm120"].min_driver == "570.26"
    assert valid["cu128-vllm0.11.0-flash-attn-sm120"].require_cuda == "cuda>=12.8"
    assert valid["cu130-vllm0.33.0-flash-attn-sm90"].min_driver == "580.65.06"
    assert valid["cpu-vllm0.32.0-sdpa"].min_driver is None
    assert valid["cpu-vllm0.32.0-sdpa"].require_cuda is None


def test_torch_may_be_built_for_another_cuda_than_vllm() -> None:
    valid = variants().valid
    assert (valid["cu129-vllm0.19.1-flash-attn-sm90"].cuda, valid["cu129-vllm0.19.1-flash-attn-sm90"].torch_cuda) == (
        "12.9",
        "12.8",
    )
    assert valid["cu130-vllm0.33.0-flash-attn-sm90"].torch_cuda == "13.0"
    assert valid["cpu-vllm0.32.0-sdpa"].torch_cuda is None


def test_kernels_are_built_for_exactly_the_wanted_archs() -> None:
    valid = variants().valid
    xformers = valid["cu124-vllm0.8.5.post1-xformers-sm70_75"].kernel
    assert xformers is not None
    assert dict(xformers.env)["TORCH_CUDA_ARCH_LIST"] == "7.0;7.5"
    flash = valid["cu124-vllm0.8.5.post1-flash-attn-sm80_86_89"].kernel
    assert flash is not None
    assert dict(flash.env)["FLASH_ATTN_CUDA_ARCHS"] == "80"
    assert valid["cu124-transformers5.24.0-sdpa-sm75"].kernel is None
    assert valid["cu128-vllm0.11.0-flash-attn-sm90"].kernel is None  # vLLM brings its own


def test_settings_follow_the_point() -> None:
    turing = variants().valid["cu124-vllm0.8.5.post1-xformers-sm75"]
    assert turing.args[:2] == ("--dtype", "half")
    assert dict(turing.env)["VLLM_ATTENTION_BACKEND"] == "XFORMERS"
    assert dict(turing.env)["CARDSTOCK_WEIGHTS"] == "safetensors"
    ampere = variants().valid["cu128-vllm0.11.0-flash-attn-sm80"]
    assert ampere.args == (
        "--limit-mm-per-prompt", '{"image":8,"video":0}', "--disable-fastapi-docs",
        "--allowed-media-domains", "none.invalid",
    )  # fmt: skip
    assert "VLLM_ATTENTION_BACKEND" not in dict(ampere.env)


def test_notes_warn_where_they_should() -> None:
    notes = {n.id for n in variants().valid["cu121-vllm0.7.3-xformers-sm75"].notes}
    assert "fp16-vision-overflow" in notes
    assert "awq-not-on-volta" in {n.id for n in variants().valid["cu124-vllm0.8.5.post1-xformers-sm70"].notes}


def test_a_generated_matrix_of_ten_thousand_points_is_judged() -> None:
    made = make_variants(large_matrix(text()))
    assert len(made.valid) + len(made.excluded) >= 10_000
    assert all(e.nearest for e in made.excluded)


def test_flashinfer_is_for_turing_alone_where_its_kernels_are_compiled() -> None:
    with_it = nonempty(v for v in variants().valid.values() if v.attention == "flashinfer")
    assert [v.id for v in with_it] == ["cu130-vllm0.33.0-flashinfer-sm75"]
    (variant,) = with_it
    kernel = variant.kernel
    assert kernel is not None and (kernel.package, kernel.capabilities) == ("flashinfer", ("7.5",))
    assert variants().kernels.count(kernel) == 1  # named by the matrix, and needed by the variant
    assert kernel.lock != variant.lock
    assert variant.args[:2] == ("--attention-backend", "FLASHINFER")
    assert dict(variant.env)["FLASHINFER_CUDA_ARCH_LIST"] == "7.5"


def test_flashinfer_is_a_candidate_that_nothing_recommends() -> None:
    lists = matrix().recommended.archs.values()
    assert "flashinfer" not in {one.attention for listed in lists for one in listed}
    assert "flashinfer" not in matrix().recommended.stacks.values()
    (variant,) = (v for v in variants().valid.values() if v.attention == "flashinfer")
    assert [note.mark for note in variant.notes if note.id == "flashinfer-candidate"] == ["U"]


def test_without_a_wheel_for_its_torch_there_is_no_kernel_for_flashinfer() -> None:
    other = edited(('version: "0.7.2.post1", torch: "2.14.0"', 'version: "0.7.2.post1", torch: "2.11.0"'))
    assert make_variants(other).valid["cu130-vllm0.33.0-flashinfer-sm75"].kernel is None
