"""Level 1b: which Triton kernels are compiled for an image's cards, and why there are none. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images.core import CheckFailed
from images.proof.kernel_code import CODE, Kernel, KernelList
from images.proof.smoke.expectation import Expectation

NO_CARDS = "no Triton kernel on this path: the image is for no card"
NOT_BY_TRITON = "no Triton kernel on this path: the server on transformers computes by torch's own"
PROGRAMS = ("compile_kernels.py", "kernel_entries.py")
COUNTER = "count_machine_code.py"


@dataclass(frozen=True)
class Program:
    """A program that is asked inside of an image.

    ``gives``: the part of its answer with what was asked, a list or an object. Where that is not there, ``cannot`` is
    told, and what to ``do``.
    """

    gives: str
    cannot: str
    do: str


COMPILER = Program(
    "results",
    "the image's Triton could not be asked to compile",
    "run it by hand: images/proof/kernel_code/inside/compile_kernels.py in a container of the image",
)
MACHINE_CODE = Program(
    "libraries",
    "the machine code of the image's attention cannot be counted",
    "see images/proof/kernel_code/machine_code.py: where the code of each attention is",
)


def why_none(expectation: Expectation, found: KernelList | None) -> str | None:
    """Why no kernel is compiled for an image; None where some are.

    ``found`` is the list of its vLLM, None where there is none.
    """
    if not expectation.archs:
        return NO_CARDS
    if expectation.backend != "vllm":
        return NOT_BY_TRITON
    version = expectation.pins.get("vllm")
    if found is None:
        return f"nobody has traced which Triton kernels vLLM {version} launches"
    if not found.tasks(expectation.archs, expectation.attention):
        cards = " ".join(expectation.archs)
        return f"nobody has traced which Triton kernels vLLM {version} launches with {expectation.attention} on {cards}"
    return None


def why_no_code(expectation: Expectation) -> str | None:
    """Why no machine code is counted for an image; None where it is."""
    if not expectation.archs:
        return NO_CARDS
    if expectation.attention not in CODE:
        return f"the attention of this image is compiled by {expectation.attention} when it is first used"
    return None


def untraced(expectation: Expectation, found: KernelList) -> tuple[str, ...]:
    """The image's cards that no group of the list speaks of."""
    return tuple(
        arch for arch in expectation.archs if not any(group.fits(arch, expectation.attention) for group in found.groups)
    )


def compiler_input(tasks: Sequence[tuple[Kernel, str]]) -> bytes:
    """What compile_kernels.py reads."""
    kernels = list(dict.fromkeys(id(kernel) for kernel, _ in tasks))
    entries = {id(kernel): kernel.entry for kernel, _ in tasks}
    told = {
        "kernels": [entries[one] for one in kernels],
        "tasks": [[kernels.index(id(kernel)), arch] for kernel, arch in tasks],
    }
    return json.dumps(told).encode()


def read_told(program: Program, out: str, tail: str, count: int | None = None) -> Mapping[str, Any]:
    """The JSON in the last line that a program printed.

    Raises CheckFailed where that has nothing of what was asked, or not ``count`` of it.
    """
    try:
        told: Mapping[str, Any] = json.loads(out.strip().splitlines()[-1])
        found = len(told[program.gives])
        if not found or count not in (None, found):
            raise ValueError(f"{program.gives} in its answer: {found}" + ("" if count is None else f", not {count}"))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CheckFailed(program.cannot, cause=tail or f"{type(error).__name__}: {error}", do=program.do) from error
    return told
