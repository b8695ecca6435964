"""What images leave out: which rows hold for which stack, how they are told, and the image that has it all."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from images.core import UsageError
from images.matrix.left_out import left_out_lines, left_out_page, library_name
from images.matrix.reader import parse_matrix
from images.matrix.variants import Variants, make_variants
from images.render.lock_files import read_lock
from tests.helpers.matrices import ROOT, text, variants
from tests.helpers.nonempty import nonempty

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
NAMES = 'packages: [sympy, ray], files: ["a/b*"]'
ROW = f'id: x, when: {{stack: cu124, backend: vllm}}, {NAMES}, reason: "r|s", source: t, mark: S'


def with_unused(row: str) -> Variants:
    """The project's variants, as if this were the only row of `unused`."""
    head, _, rest = text().partition("\nunused:")
    after = re.split(r"\n(?=[a-z_]+:)", rest, maxsplit=1)[1]
    return make_variants(parse_matrix(f"{head}\nunused:\n  - {{{row}}}\n{after}"))


def test_torchs_five_have_stand_ins_in_every_stack_with_cuda_and_nvjitlink_goes_with_them() -> None:
    for variant in nonempty(one for one in variants().valid.values() if one.cuda and one.torch_cuda != "11.8"):
        made = {library_name(row.library) for row in variant.stand_ins if not row.gone}
        assert {"libcufft", "libcurand", "libcusolver", "libcusparse"} <= made
        torch = variant.pin("torch")
        assert torch
        assert ("libcusparseLt" in made) == (torch.version[:3] not in ("2.4", "2.5"))  # it came with torch 2.6
        assert "libnvJitLink" in {library_name(row.library) for row in variant.stand_ins if row.gone}


def test_a_row_without_a_source_has_that_of_the_first_evidence_of_its_stack() -> None:
    def seen(variant: str, row: str) -> tuple[str, str]:
        (one,) = [one for one in variants().valid[variant].stand_ins if one.id == row]
        return one.source[:33], one.mark

    assert seen(SM75, "cufft") == ("readelf --dyn-syms of torch 2.6.0", "A")
    assert seen("cu126-vllm0.9.2-xformers-sm80", "cufft") == ("as seen with torch 2.6.0, 2.11.0 ", "U")
    assert seen("cpu-vllm0.32.0-sdpa", "cufft-cpu") == ("readelf -d of every library of to", "A")
    assert (
        seen("cu129-vllm0.19.1-flash-attn-sm86", "cudnn-vllm0.19")[0] == "vllm/model_executor/layers/conv.py"[:33]
    )  # its own
    for variant in nonempty(variants().valid.values()):
        assert all(row.source for row in variant.stand_ins)


def test_a_row_for_which_no_stack_has_evidence_is_refused() -> None:
    head, _, rest = text().partition("\nstand_in_evidence:")
    after = re.split(r"\n(?=[a-z_]+:)", rest, maxsplit=1)[1]
    with pytest.raises(UsageError, match=r"cufft has no source for \w+ with \w+") as caught:
        make_variants(parse_matrix(f"{head}\n{after}"))
    assert caught.value.where.startswith("matrix.yaml:")
    assert "stand_in_evidence" in caught.value.do


def test_each_library_has_one_row_in_a_stack() -> None:
    for variant in nonempty(variants().valid.values()):
        libraries = [row.library for row in variant.stand_ins]
        assert len(libraries) == len(set(libraries))


def test_both_backends_of_a_stack_share_their_layer() -> None:
    stacks: dict[str, set[tuple[str, ...]]] = {}
    for variant in variants().valid.values():
        if variant.stack != "cu121":  # torch 2.4.1 and 2.5.1
            # Of the newest, vLLM alone does without cuDNN: the server on transformers computes a convolution.
            rows = tuple(row.id for row in variant.stand_ins if not row.id.startswith("cudnn"))
            stacks.setdefault(variant.stack, set()).add(rows)
    for found in nonempty(stacks.values()):
        assert len(found) == 1


def test_every_package_that_is_left_out_is_in_the_lock_and_none_of_them_is_pinned() -> None:
    checked = with_unused(ROW).valid | variants().valid
    for variant in nonempty({one.lock: one for one in checked.values()}.values()):
        names = {name for row in variant.unused_packages for name in row.packages}
        lock = read_lock(ROOT / "dockerfiles/locks", variant.lock)
        if lock is not None and names:
            # Of what the first install step brings: NVIDIA's own wheels and kernels have layers of their own.
            assert names <= lock.parts[""].keys(), variant.lock
        assert not names & {package.replace("_", "-") for package, _ in variant.pins}


def test_a_row_for_cards_is_for_images_all_of_whose_cards_are_in_it() -> None:
    when = 'when: {stack: cu130, arch: "<10.0", attention: flash-attn}'
    row = f"id: x, {when}, packages: [b], reason: r, source: t, mark: S"
    found = {name for name, one in with_unused(row).valid.items() if one.unused_packages}
    valid = variants().valid.values()
    every = {one.id: one for one in valid if one.stack == "cu130" and one.attention == "flash-attn"}
    assert found == {name for name, one in every.items() if all(arch.major < 10 for arch in one.archs)}
    assert 0 < len(found) < len(every)


def test_a_whole_image_is_the_same_with_another_name_and_no_stand_in() -> None:
    plain = variants().valid[SM75]
    whole = plain.as_whole()
    assert whole.id == f"{SM75}-whole"
    assert (whole.stand_ins, whole.plain, plain.plain) == ((), plain, plain)
    assert (whole.lock, whole.archs, whole.unused_packages) == (plain.lock, plain.archs, plain.unused_packages)
    assert whole.as_whole() is whole
    assert (plain.selector, whole.selector) == (f"--only '{SM75}'", f"--only '{SM75}' --whole")


def test_every_variant_can_be_a_key_and_is_equal_to_itself_alone() -> None:
    every = [*variants().valid.values(), *with_unused(ROW).valid.values()]
    every += [variant.as_whole() for variant in every]
    assert {variant: variant.id for variant in every}[every[-1]] == every[-1].id
    assert variants().valid[SM75] != with_unused(ROW).valid[SM75]


def test_an_image_is_found_by_its_name_with_and_without_whole() -> None:
    assert variants().named(SM75) is variants().valid[SM75]
    assert variants().named(f"{SM75}-whole") == variants().valid[SM75].as_whole()
    for name in ("", "-whole", "cu124", f"{SM75}-whole-whole", f"{SM75}-whole-0123456789ab"):
        assert variants().named(name) is None
    assert not [name for name in variants().valid if name.endswith("-whole")]


def test_lines_tell_each_library_and_package_with_its_reason_once_for_a_stack() -> None:
    some = with_unused(ROW)
    of_stack = [variant for variant in some.valid.values() if variant.lock == "cu124-vllm"]
    lines = left_out_lines(of_stack)
    assert lines[0].startswith("left out of images of cu124-vllm; ./inv build --whole")
    assert "  libcufft, Fourier transforms (torch.fft): a stand-in" in lines
    assert any(line.startswith("  libnvJitLink, ") and line.endswith(": gone") for line in lines)
    assert lines[-2:] == ["  sympy, ray, a/b*: not there", "    why: r|s\n    source: [S] t"]
    assert len([line for line in lines if "why:" in line]) == len(of_stack[0].stand_ins) + 1
    nothing = [replace(variant, unused_packages=()).as_whole() for variant in variants().valid.values()]
    assert left_out_lines([]) == left_out_lines(nothing) == []
    whole = left_out_lines([variant.as_whole() for variant in of_stack])
    assert whole == ["left out of images of cu124-vllm", *lines[-2:]]


def test_where_some_images_of_a_stack_leave_a_package_out_the_lines_say_which() -> None:
    row = ROW.replace("backend: vllm", 'backend: vllm, arch: "<8.0", attention: [sdpa, xformers]')
    some = with_unused(row)
    of_stack = [variant for variant in some.valid.values() if variant.lock == "cu124-vllm"]
    assert "  sympy, ray, a/b*: not there (attention sdpa or xformers, cards <8.0)" in left_out_lines(of_stack)
    assert (
        "| `sympy`, `ray`, `a/b*` | r/s (attention sdpa or xformers, cards <8.0) | cu124-vllm [S] |"
        in left_out_page(some)
    )


def test_the_page_names_stacks_by_their_evidence_and_escapes_nothing_into_the_table() -> None:
    page = left_out_page(with_unused(ROW))
    rows = page.splitlines()
    (cufft,) = [row for row in rows if row.startswith("| `libcufft` | Fourier transforms (torch.fft) ")]
    assert "293 (cu124)" in cufft and re.search(r"\| cu124, cu130 \[A\]; cu118, .*\[U\] \|$", cufft)
    assert "| `sympy`, `ray`, `a/b*` | r/s | cu124-vllm [S] |" in rows
    assert {row.count("|") for row in rows if row} == {6, 4}
