"""Level 1b, kernels: what the server computes with on each of the image's cards, found without one.

The image's own Triton compiles the kernels that its server launches; the machine code of its attention is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from images.proof.kernel_code import CODE, INSIDE, Kernel, KernelList, judge, judge_code, list_for
from images.proof.smoke import CODE_TOLD, KERNELS_TOLD, PROOF, Expectation, ProofContainers, kernels
from images.proof.smoke.levels.conftest import ROOT

_TOLD = 10  # failures in a message; the record's facts have every row
# The reader of libraries goes along: it needs the standard library alone.
READER = ("images/__init__.py", "images/device_code")


@pytest.fixture(scope="module")
def listed(expectation: Expectation) -> KernelList | None:
    """The list of the image's vLLM."""
    version = expectation.pins.get("vllm")
    return list_for(version) if version and expectation.archs else None


def test_kernels(
    listed: KernelList | None, expectation: Expectation, containers: ProofContainers, facts: dict[str, Any]
) -> None:
    """Each compiles, and needs no more shared memory and registers than its card has."""
    if reason := kernels.why_none(expectation, listed):
        if expectation.archs and expectation.backend == "vllm":
            facts[KERNELS_TOLD] = "Triton's: not traced"
        pytest.skip(reason)
    assert listed is not None  # noqa: S101  (why_none has told)
    tasks = listed.tasks(expectation.archs, expectation.attention)
    content = {name: INSIDE / name for name in kernels.PROGRAMS} | {"kernels.json": kernels.compiler_input(tasks)}
    with containers.sleeping(containers.proof_volume(content)) as container:
        finished = container.run(["python", f"{PROOF}/compile_kernels.py", f"{PROOF}/kernels.json", "--out", "-"])
    told = kernels.read_told(kernels.COMPILER, finished.out, finished.tail, len(tasks))
    results: Any = told["results"]
    judged = judge(tasks, results)
    facts["triton"] = told["triton"]
    facts["known from"] = _known_from(tasks)
    facts["compiled for"] = list(judged.archs)
    if missing := kernels.untraced(expectation, listed):
        facts["nobody has traced"] = list(missing)
    part = " of its attention" if {kernel.mark for kernel, _ in tasks} == {"S"} else ""
    part = " that a flag launches" if all(kernel.only_with for kernel, _ in tasks) else part
    facts[KERNELS_TOLD] = f"Triton's{part}: {judged.told}"
    facts["slow"] = list(judged.slow)
    facts["spills"] = list(judged.spills)
    facts["not with this flag"] = list(judged.refused)
    facts["kernels"] = [one.row() for one in judged.compiled]
    if judged.failures:
        more = f"; and {len(judged.failures) - _TOLD} more" if len(judged.failures) > _TOLD else ""
        pytest.fail(f"{'; '.join(judged.failures[:_TOLD])}{more}", pytrace=False)


def _known_from(tasks: tuple[tuple[Kernel, str], ...]) -> list[str]:
    marks = Counter((kernel.mark, kernel.source) for kernel in {id(kernel): kernel for kernel, _ in tasks}.values())
    return [f"[{mark}] {source}: {count} kernels" for (mark, source), count in marks.items()]


def test_machine_code(expectation: Expectation, containers: ProofContainers, facts: dict[str, Any]) -> None:
    """What the attention's own libraries hold for each card uses its tensor cores, where it has some."""
    if reason := kernels.why_no_code(expectation):
        pytest.skip(reason)
    code = CODE[expectation.attention]
    content = {kernels.COUNTER: INSIDE / kernels.COUNTER} | {name: ROOT / name for name in READER}
    with containers.sleeping(containers.proof_volume(content)) as container:
        words = ["python", f"{PROOF}/{kernels.COUNTER}", code.named, " ".join(code.libraries), *expectation.archs]
        finished = container.run(words, {"PYTHONPATH": PROOF})
    judged = judge_code(kernels.read_told(kernels.MACHINE_CODE, finished.out, finished.tail), expectation.archs)
    facts["machine code"] = [dict(row) for row in judged.rows]
    facts["PTX alone for"] = list(judged.none)
    facts["machine code not read"] = list(judged.unread)
    facts[CODE_TOLD] = judged.told
    if judged.unread:
        pytest.skip("; ".join(judged.unread))
    if judged.idle:
        cards = ", ".join(judged.idle)
        pytest.fail(f"no instruction of the tensor cores is in the attention's machine code for {cards}", pytrace=False)
