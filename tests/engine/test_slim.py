"""Built images: what slimming and stripping left is whole, is what RECORD says, and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from images.docker.engine import Engine
from images.docker.facts import ImageFacts
from images.render.checkout import Checkout

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PYTHON = "/opt/venv/bin/python"
SITE = "/opt/venv/lib/python3.11/site-packages"
# Two that the whole check builds anyway; others that happen to be there cost minutes each and show nothing new.
VARIANTS = ("cpu-vllm0.32.0-sdpa", "cu124-vllm0.8.5.post1-xformers-sm75")
TRITON = """
import sys
sys.path.insert(0, "/tmp")
open("/tmp/kernel.py", "w").write('''
import triton
import triton.language as tl

@triton.jit
def add(x, y, n, size: tl.constexpr):
    at = tl.program_id(0) * size + tl.arange(0, size)
    tl.store(y + at, tl.load(x + at, mask=at < n) + 1, mask=at < n)
''')
import kernel, triton
from triton.backends.compiler import GPUTarget
signature = {"x": "*fp32", "y": "*fp32", "n": "i32"}
source = triton.compiler.ASTSource(fn=kernel.add, signature=signature, constants={"size": 128})
made = triton.compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32))
print(made.asm["cubin"][:4] == b"\\x7fELF")
"""


def built(engine: Engine, variant: str) -> ImageFacts:
    """The image under its own name: other tests give stand-ins the same labels."""
    facts = engine.inspect(f"{Checkout(ROOT).matrix().image}:{variant}")
    if facts is None:
        pytest.skip(f"this engine has no image of {variant}")
    return facts


@pytest.fixture(scope="module", params=VARIANTS)
def slimmed_image(engine: Engine, request: pytest.FixtureRequest) -> tuple[ImageFacts, dict[str, Any]]:
    """An image, and what slimmed.py tells of it."""
    facts = built(engine, request.param)
    files = {f"/opt/check/images/device_code/{p.name}": p.read_bytes() for p in ROOT.glob("images/device_code/*.py")}
    files |= {"/opt/check/slimmed.py": (HERE / "slimmed.py").read_bytes(), "/opt/check/images/__init__.py": b""}
    ran = engine.run(
        facts.id, ["/opt/check/slimmed.py", SITE], entrypoint=[PYTHON], files=files, env={"PYTHONPATH": "/opt/check"}
    )
    return facts, json.loads(ran.out)


@pytest.mark.timeout(600)
def test_every_file_is_as_its_wheel_records_it_nvidias_too(slimmed_image: tuple[ImageFacts, dict[str, Any]]) -> None:
    facts, result = slimmed_image
    assert result["wrong"] == []
    assert result["rows"] > 10_000
    # Without a card, cudart alone is left of NVIDIA's.
    assert result["nvidias"] > (100 if facts.env["CARDSTOCK_ARCHS"] else 10)


@pytest.mark.timeout(600)
def test_each_container_holds_one_cards_code_and_no_more(slimmed_image: tuple[ImageFacts, dict[str, Any]]) -> None:
    facts, result = slimmed_image
    archs = facts.env["CARDSTOCK_ARCHS"].split()
    if not archs:
        pytest.skip("an image for the CPU is not slimmed for a card")
    containers = result["code"]["torch/lib/libtorch_cuda.so"]
    assert len(containers) > 100
    assert {code for container in containers for code in container} == {f"SASS {archs[0].replace('.', '')}"}
    crowded = [name for name, containers in result["code"].items() if any(len(codes) > 1 for codes in containers)]
    assert crowded == []


@pytest.mark.timeout(600)
def test_nothing_is_left_that_no_loader_maps(slimmed_image: tuple[ImageFacts, dict[str, Any]]) -> None:
    assert slimmed_image[1]["unstripped"] == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.timeout(600)
def test_the_libraries_load_and_compute(engine: Engine, variant: str) -> None:
    script = "import torch, torchvision; print(torch.linalg.inv(2 * torch.eye(3))[0, 0].item(), torch.version.cuda)"
    result = engine.run(built(engine, variant).id, ["-c", script], entrypoint=[PYTHON]).out
    assert result.startswith("0.5 ")


@pytest.mark.timeout(600)
def test_triton_compiles_for_the_images_card(engine: Engine) -> None:
    """Its library is the one that stripping takes most from; no card is needed to compile for one."""
    facts = built(engine, VARIANTS[1])
    arch = facts.env["CARDSTOCK_ARCHS"].replace(".", "")
    ran = engine.run(
        facts.id,
        ["/opt/triton_check.py", arch],
        entrypoint=[PYTHON],
        files={"/opt/triton_check.py": TRITON.encode()},
        env={"TRITON_CACHE_DIR": "/tmp/triton"},
    )
    assert ran.out.strip() == "True"


@pytest.mark.timeout(600)
def test_ray_starts_and_runs_a_compiled_graph(engine: Engine) -> None:
    """What vLLM on many machines stands on, without the parts of Ray that were dropped."""
    script = """
import ray
from ray.dag import InputNode
ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", _temp_dir="/tmp/ray")
@ray.remote
class Adder:
    def add(self, number):
        return number + 1
adder = Adder.remote()
with InputNode() as number:
    graph = adder.add.bind(number)
compiled = graph.experimental_compile()
print("result", ray.get(compiled.execute(41)))
compiled.teardown()
"""
    ran = engine.run(built(engine, VARIANTS[1]).id, ["-c", script], entrypoint=[PYTHON])
    assert "result 42" in ran.out
