from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import cast

import pytest

from images.core.errors import CheckFailed
from images.docker.engine import Engine
from images.docker.facts import Ran
from images.matrix.variants import Variant
from images.proof.audit import loaded_libraries as served
from tests.helpers.matrices import ROOT, variants
from tests.helpers.nonempty import nonempty


class Container:
    """An engine whose container prints what it is given."""

    def __init__(self, **result: object) -> None:
        self.output = {"mapped": [], "asked": [], "failed": {}, **result}

    def run(self, image: str, command: list[str], **_: object) -> Ran:
        return Ran(0, f"a warning\n{json.dumps(self.output)}\n")


NVIDIAS = ("nvidia/cublas/lib/libcublas.so.12", "cusparselt/lib/libcusparseLt.so.0", "a.libs/libnvjpeg.02b6d700.so.12")


def record(container: Container) -> tuple[str, ...]:
    return served.record_libraries(cast(Engine, container), "i:t", "python", ["torch"])


def test_what_is_mapped_and_what_only_misses_the_driver_is_loaded() -> None:
    container = Container(
        mapped=["torch/lib/libtorch_cuda.so", "torch/lib/libcusparseLt-f80c68d1.so.0", *NVIDIAS],
        asked=["vllm/_C.abi3.so"],
        failed={"vllm.worker": "ImportError: libcuda.so.1: cannot open shared object file"},
    )
    assert record(container) == ("torch/lib/libtorch_cuda.so", "vllm/_C.abi3.so")


def test_a_module_that_fails_otherwise_is_an_error() -> None:
    with pytest.raises(CheckFailed, match="cannot load") as caught:
        record(Container(failed={"vllm.nonsense": "ModuleNotFoundError: no such module"}))
    assert "vllm.nonsense" in caught.value.cause


def test_what_misses_the_driver_alone_is_not_broken() -> None:
    missing = "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"
    other = "AttributeError: module 'cuda.bindings.runtime' has no attribute 'cudaLibrary_t'"
    assert served.broken_imports({"vllm.worker.worker": missing, "vllm.v1.worker.gpu_worker": other}) == {
        "vllm.v1.worker.gpu_worker": other
    }


def test_a_list_is_read_as_it_was_written() -> None:
    text = served.list_text(["a/b.so", "c.so"], "an-image")
    assert served.parse_list(text) == {"a/b.so", "c.so"}
    assert served.read_list(ROOT, "no-such-list") is None


def variant(identifier: str) -> Variant:
    return variants().valid[identifier]


def test_the_recorded_lists_hold_what_the_engines_are_known_to_load() -> None:
    xformers = served.read_list(ROOT, variant("cu124-vllm0.8.5.post1-xformers-sm75").loaded_libraries)
    assert xformers is not None
    assert {"torch/lib/libtorch_cuda.so", "vllm/_C.abi3.so", "vllm/_moe_C.abi3.so", "xformers/_C.so"} <= xformers
    assert not [path for path in xformers if path.startswith("vllm/vllm_flash_attn/")]
    assert "torch/lib/libtorch_cuda_linalg.so" not in xformers


def test_modules_and_gaps_follow_the_point() -> None:
    turing = variant("cu124-vllm0.8.5.post1-xformers-sm75")
    assert "vllm.attention.backends.xformers" in turing.modules
    bundled = ["bundled-flash-attention", "bundled-flash-attention-shared"]
    assert [gap.id for gap in turing.gaps] == ["newer-cards-kernels", *bundled]
    assert [gap.id for gap in variant("cu130-transformers5.24.0-sdpa-sm75").gaps] == ["linalg-without-turing"]
    assert [gap.id for gap in variant("cu128-vllm0.11.0-flash-attn-sm90").gaps] == ["newer-cards-kernels"]
    assert [gap.library for gap in turing.gaps if gap.drop] == ["vllm/vllm_flash_attn/*.so"]
    assert all(v.modules for v in variants().valid.values())


def test_a_library_is_left_out_only_where_no_card_of_the_image_takes_it() -> None:
    every = nonempty(v for v in variants().valid.values() if v.archs)
    kept = [v for v in every if "9.0" in [arch.capability for arch in v.archs]]
    assert not [v.id for v in nonempty(kept) for gap in v.gaps if gap.drop and "fa3" in gap.library]
    mixed = [v for v in every if v.archs[0].number < 80 <= v.archs[-1].number]
    assert not [v.id for v in nonempty(mixed) for gap in v.gaps if gap.drop and gap.library.endswith("flash_attn/*.so")]


def test_flash_attention_s_package_can_be_imported_on_every_card_of_a_newer_vllm() -> None:
    """vLLM 0.12 and newer end at their start where neither library of it is there."""
    newer = [v for v in variants().valid.values() if v.stack in ("cu129", "cu130") and v.backend == "vllm"]
    gone = {gap.library for v in nonempty(newer) for gap in v.gaps if gap.drop}
    assert not [library for library in gone if fnmatchcase("vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so", library)]
