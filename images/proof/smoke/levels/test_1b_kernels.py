"""Level 1b, kernels: the image's own Triton compiles what its server launches, for each of its cards, without one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from images.proof.kernel_code import INSIDE, Kernel, KernelVerdict, judge, list_for
from images.proof.smoke import KERNELS_TOLD, PROOF, Expectation, ProofContainers, kernels

_TOLD = 10  # failures in a message; the record's facts have every row


@pytest.fixture(scope="module")
def tasks(expectation: Expectation) -> tuple[tuple[Kernel, str], ...]:
    """The kernels and cards; skips where there are none."""
    found = list_for(expectation.pins["vllm"]) if "vllm" in expectation.pins and expectation.archs else None
    if reason := kernels.why_none(expectation, found):
        pytest.skip(reason)
    assert found is not None  # noqa: S101  (why_none has told)
    return found.tasks(expectation.archs, expectation.attention)


@pytest.fixture(scope="module")
def verdict(
    tasks: tuple[tuple[Kernel, str], ...],
    containers: ProofContainers,
    expectation: Expectation,
    pytestconfig: pytest.Config,
) -> tuple[KernelVerdict, dict[str, Any]]:
    """What the image's Triton made of each, and what it said of itself."""
    content = {name: INSIDE / name for name in kernels.PROGRAMS} | {"kernels.json": kernels.compiler_input(tasks)}
    volume = containers.proof_volume(content)
    with containers.sleeping(volume) as container:
        finished = container.run(["python", f"{PROOF}/compile_kernels.py", f"{PROOF}/kernels.json", "--out", "-"])
    told = kernels.read_results(finished.out, finished.tail, len(tasks))
    results: Any = told["results"]
    return judge(tasks, results), told


def test_kernels(
    verdict: tuple[KernelVerdict, dict[str, Any]],
    tasks: tuple[tuple[Kernel, str], ...],
    expectation: Expectation,
    facts: dict[str, Any],
) -> None:
    """Each compiles, and needs no more shared memory and registers than its card has."""
    judged, told = verdict
    marks = Counter((kernel.mark, kernel.source) for kernel in {id(kernel): kernel for kernel, _ in tasks}.values())
    facts["triton"] = told["triton"]
    facts["known from"] = [f"[{mark}] {source}: {count} kernels" for (mark, source), count in marks.items()]
    facts["compiled for"] = list(judged.archs)
    found = list_for(expectation.pins["vllm"])
    if found and (missing := kernels.untraced(expectation, found)):
        facts["nobody has traced"] = list(missing)
    alone = "of Triton's attention alone: " if {kernel.mark for kernel, _ in tasks} == {"S"} else ""
    facts[KERNELS_TOLD] = alone + judged.told
    facts["slow"] = list(judged.slow)
    facts["not with this flag"] = list(judged.refused)
    facts["spills"] = list(judged.spills)
    facts["kernels"] = [one.row() for one in judged.compiled]
    if judged.failures:
        more = f"; and {len(judged.failures) - _TOLD} more" if len(judged.failures) > _TOLD else ""
        pytest.fail(f"{'; '.join(judged.failures[:_TOLD])}{more}", pytrace=False)
