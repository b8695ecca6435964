"""Level 1b in a built image for 7.5: a kernel of its server compiles there without a card, a planted one is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from images.core import CheckFailed
from images.docker.engine import Engine
from images.proof.kernel_code import INSIDE, Kernel, judge, list_for
from images.proof.smoke import PROOF, ProofContainers, kernels
from images.render import VARIANT

VARIANT_75 = "cu130-vllm0.33.0-triton-sm75"
# A transposition of 256 x 256 numbers goes through shared memory: 128 KiB or more at once, and a block has 64 on 7.5.
PLANTED = Kernel(
    {
        "module": "",
        "name": "planted",
        "source": """def planted(a, b, SIDE: tl.constexpr):
    i = tl.arange(0, SIDE)[:, None]
    j = tl.arange(0, SIDE)[None, :]
    tl.store(b + j * SIDE + i, tl.load(a + i * SIDE + j))
""",
        "signature": {"a": "*fp32", "b": "*fp32", "SIDE": "constexpr"},
        "constants": {"SIDE": 256},
        "divisible": ["a", "b"],
        "options": {"num_warps": 8},
    },
    ("none",),
    True,
    "S",
    "planted by a test",
)
NO_KERNEL = replace(PLANTED, entry={**PLANTED.entry, "module": "vllm.no_such_module", "source": ""})


@pytest.fixture(scope="module")
def containers(engine: Engine) -> Iterator[ProofContainers]:
    """Containers of an image for 7.5 whose server's attention is Triton's."""
    found = [one for one in engine.images(VARIANT) if one.labels.get(VARIANT) == VARIANT_75]
    if not found:
        pytest.skip(f"{VARIANT_75} is not built here: ./inv build --only {VARIANT_75}")
    made = ProofContainers(found[0].id, uuid.uuid4().hex[:12])
    yield made
    made.close()


def compile_in(containers: ProofContainers, tasks: tuple[tuple[Kernel, str], ...]) -> list[dict[str, Any]]:
    content = {name: INSIDE / name for name in kernels.PROGRAMS} | {"kernels.json": kernels.compiler_input(tasks)}
    with containers.sleeping(containers.proof_volume(content)) as container:
        finished = container.run(["python", f"{PROOF}/compile_kernels.py", f"{PROOF}/kernels.json", "--out", "-"])
    told = kernels.read_told(kernels.COMPILER, finished.out, finished.tail, len(tasks))
    results: Any = told["results"]
    return list(results)


@pytest.mark.timeout(300)
def test_a_real_kernel_compiles_and_a_planted_one_is_refused(containers: ProofContainers) -> None:
    listed = list_for("0.33.0")
    assert listed is not None
    real = next(one for one, _ in listed.tasks(("7.5",), "triton") if one.title == "kernel_unified_attention")
    tasks = ((real, "7.5"), (PLANTED, "7.5"), (NO_KERNEL, "7.5"))
    verdict = judge(tasks, compile_in(containers, tasks))
    attention, planted = verdict.compiled
    assert attention.without_tensor_cores
    assert attention.fma > 500
    assert 0 < attention.registers <= 255
    assert planted.shared > 65536
    shared, missing = verdict.failures
    assert f"planted on 7.5 (none) needs {planted.shared} bytes of shared memory, a block has 65536 there" in shared
    assert "does not compile" in missing
    assert "vllm.no_such_module" in missing


def test_a_compiler_that_cannot_be_asked_is_no_verdict(containers: ProofContainers) -> None:
    with containers.sleeping(containers.proof_volume({"kernels.json": json.dumps({}).encode()})) as container:
        finished = container.run(["python", f"{PROOF}/compile_kernels.py", f"{PROOF}/kernels.json", "--out", "-"])
    with pytest.raises(CheckFailed, match="could not be asked") as caught:
        kernels.read_told(kernels.COMPILER, finished.out, finished.tail, 1)
    assert "compile_kernels.py" in caught.value.cause
