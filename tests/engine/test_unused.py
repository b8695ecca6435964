"""What images leave out is missed by nothing that a server can be asked for: vLLM's modules are imported in them."""

from __future__ import annotations

import json
import re

import pytest

from images.core.errors import CardstockError
from images.docker.engine import Engine
from images.matrix import Variant
from images.render import VARIANT
from tests.helpers.matrices import ROOT, variants
from tests.helpers.nonempty import nonempty

pytestmark = pytest.mark.timeout(1800)  # each image's vLLM is imported as on each of its cards

SCRIPT = ROOT / "tests/engine/imports_inside.py"
# humming, which vLLM 0.33 imports, starts two compilers in the background at each import, unless it is told not to.
ENV = {"HOME": "/tmp", "HUMMING_DISABLE_PARALLEL_BUILD": "1"}
LAYERS = "vllm.model_executor.layers.quantization"
# What a request or an option may ask for: quantised weights, answers of a given form, calls of tools, several cards.
MODULES = (
    "vllm.entrypoints.openai.api_server",
    *(f"vllm.model_executor.models.{name}" for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")),
    *(f"{LAYERS}.{name}" for name in ("awq", "gptq", "awq_marlin", "gptq_marlin", "fp8", "bitsandbytes", "modelopt")),
    f"{LAYERS}.compressed_tensors.compressed_tensors",
    "vllm.model_executor.kernels.linear.*",
    *(f"vllm.{folder}.*" for folder in ("tool_parsers", "entrypoints.openai.tool_parsers", "reasoning")),
    *(f"vllm.{folder}.*" for folder in ("v1.structured_output", "model_executor.guided_decoding")),
    *(f"vllm.{folder}.*" for folder in ("executor", "v1.executor", "distributed.device_communicators")),
    *(f"vllm.{module}" for module in ("worker.worker", "spec_decode.spec_decode_worker", "v1.worker.gpu_worker")),
    *(f"vllm.{module}" for module in ("entrypoints.cli.main", "lora.worker_manager", "compilation.backends")),
)
# The module of a package, where its name is another.
MODULE_OF = {
    "cupy-cuda12x": "cupy",
    "cuda-core": "cuda.core",
    "cuda-tile": "cuda.tile",
    "flashinfer-python": "flashinfer",
    "nvidia-cudnn-frontend": "cudnn",
    "nvidia-cutlass-dsl": "cutlass",
    "nccl4py": "nccl",
    "pynvvideocodec": "PyNvVideoCodec",
    "quack-kernels": "quack",
    "z3-solver": "z3",
}
MISSING = re.compile(r"No module named '(?P<name>[^']+)'")
FOUND = "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"
# What must come up whole, whatever else a module below may ask for that no image has.
MUST = (
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.qwen2_5_vl",
    *(f"{LAYERS}.{name}" for name in ("awq", "gptq", "awq_marlin", "gptq_marlin", "fp8")),
    f"{LAYERS}.compressed_tensors.compressed_tensors",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.structured_output.backend_xgrammar",
)


def left_out(variant: Variant) -> set[str]:
    """Modules of the packages that an image has not."""
    names = {name for row in variant.unused_packages for name in row.packages}
    return {MODULE_OF.get(name, name.replace("-", "_")) for name in names}


# What serves a package alone, by the beginning of its modules' names: vLLM asks whether the package is there before it
# imports one. FlashInfer's way between cards: all2all.py. Kernels in CuTe DSL: is_available() beside each, @v0.33.0.
SERVES = {
    "flashinfer": "vllm.distributed.device_communicators.mnnvl_compat",
    "cutlass": "vllm.model_executor.kernels.linear.cute_dsl.",
}


def asked_by_nobody(module: str, variant: Variant) -> bool:
    """Whether nothing imports a module in this image, with what it misses.

    Those of vLLM's second engine, where the image's server runs in the first (xformers knows no other); and what
    serves a package that the image has not.
    """
    first = variant.attention == "xformers" and "vllm.worker.worker" in variant.modules
    gone = left_out(variant)
    return (first and module == "vllm.v1.worker.gpu_worker") or any(
        module.startswith(beginning) for package, beginning in SERVES.items() if package in gone
    )


def misses(error: str, modules: set[str]) -> bool:
    """Whether an import ended because one of these modules is not there."""
    found = {match["name"] for match in MISSING.finditer(error)}
    return any(name == module or name.startswith(f"{module}.") for name in found for module in modules)


def test_what_misses_a_module_is_known_by_its_name() -> None:
    assert misses("ModuleNotFoundError: No module named 'cutlass.cute' (x.py:1)", {"cutlass"})
    assert not misses("ModuleNotFoundError: No module named 'cutlassy' (x.py:1)", {"cutlass"})


@pytest.fixture(scope="module")
def images(engine: Engine) -> dict[Variant, str]:
    """Of each lock and attention an image with vLLM that is built here; they are not built for these tests."""
    valid = variants().valid
    there = [facts for facts in engine.images(VARIANT) if facts.labels[VARIANT] in valid]
    found = {valid[facts.labels[VARIANT]]: facts.id for facts in there if facts.tags}
    found = {
        variant: image for variant, image in found.items() if variant.backend == "vllm" and has_vllm(engine, image)
    }
    found = {variant: found[variant] for variant in {one.loaded_libraries: one for one in found}.values()}
    if not found:
        pytest.skip("no image with vLLM is built here: ./inv build --arch cpu")
    return found


def has_vllm(engine: Engine, image: str) -> bool:
    """Whether it is a whole image, not a stub of another test."""
    try:
        return not engine.run(image, ["-c", FOUND], entrypoint=["python"], check=False).code
    except CardstockError:
        return False


def imports(engine: Engine, image: str, capability: str) -> dict[str, str]:
    """Module -> what its import ended with, as the image's own user."""
    files = {"/tmp/imports_inside.py": SCRIPT.read_bytes()}
    command = ["/tmp/imports_inside.py", capability, *MODULES]
    ran = engine.run(image, command, entrypoint=["python"], files=files, env=ENV, timeout=900)
    told: dict[str, str] = json.loads(ran.out.strip().splitlines()[-1])
    return told


def test_no_module_misses_what_the_image_leaves_out(engine: Engine, images: dict[Variant, str]) -> None:
    """On a card of each capability of the image (a driver that refuses every call), and on the CPU."""
    for variant, image in nonempty(images.items()):
        gone = left_out(variant)
        for capability in nonempty([arch.capability for arch in variant.archs] or [""]):
            told = imports(engine, image, capability)
            assert len(told) > len(MODULES)
            found = {module: error for module, error in told.items() if misses(error, gone)}
            missed = {module: error for module, error in found.items() if not asked_by_nobody(module, variant)}
            assert not missed, f"{variant.id} as {capability}: {missed}"
            ended = {module: told[module] for module in MUST if told.get(module)}
            assert not ended, f"{variant.id} as {capability}: {ended}"


def test_the_server_tells_its_options(engine: Engine, images: dict[Variant, str]) -> None:
    """As on the image's first card: without one, newer versions of vLLM end before they tell anything."""
    for variant, image in nonempty(images.items()):
        capability = variant.archs[0].capability if variant.archs else ""
        files = {"/tmp/imports_inside.py": SCRIPT.read_bytes()}
        words = ["/tmp/imports_inside.py", capability, "--help"]
        ran = engine.run(image, words, entrypoint=["python"], files=files, env=ENV, timeout=300)
        assert "--max-model-len" in ran.out or "--help=all" in ran.out, f"{variant.id}: {ran.out[-500:]}"
