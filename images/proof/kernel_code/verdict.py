"""What compiled kernels come to on their cards: what fails, what is slow, a row each. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from images.cards import REGISTERS_A_THREAD, limits_of
from images.proof.kernel_code.kernel_list import Kernel

_REGISTERS = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
NO_TENSOR_CORES = "no tensor cores"
# Words of PTX that are the tensor cores' (PTX ISA); ptxas makes HMMA, IMMA and HGMMA of them.
MATRIX = ("mma", "tcgen05", "wgmma", "wmma")


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel as it is on a card. ``shared`` and ``spilled`` (stores and loads) are bytes; ``dots`` counts products of
    matrices in the source, ``matrix`` the tensor cores' instructions in its PTX by name, ``fma`` the others'."""

    title: str
    arch: str
    models: tuple[str, ...]
    shared: int
    registers: int
    spilled: int
    dots: int
    matrix: Mapping[str, int] = field(default_factory=dict)
    fma: int = 0
    seconds: float = 0.0

    @property
    def without_tensor_cores(self) -> bool:
        """It multiplies matrices, and not by what its card has for that."""
        return bool(self.dots and limits_of(self.arch).tensor_cores and not sum(self.matrix.values()))

    def row(self) -> dict[str, Any]:
        """As the record keeps it."""
        row: dict[str, Any] = {"kernel": self.title, "on": self.arch, "models": " ".join(self.models)}
        row |= {"shared": self.shared, "registers": self.registers}
        row |= {"spilled": self.spilled} if self.spilled else {}
        row |= {"products": self.dots, **self.matrix, "fma": self.fma} if self.dots else {}
        return row


@dataclass(frozen=True)
class KernelVerdict:
    """``compiled`` has all that compiled; ``failures`` fail an image, those of kernels that only a flag launches
    (``refused``) are told, as ``slow`` and ``spills`` are."""

    compiled: tuple[CompiledKernel, ...]
    failures: tuple[str, ...]
    refused: tuple[str, ...] = ()

    @property
    def slow(self) -> tuple[str, ...]:
        """Kernels that leave their card's tensor cores idle, a line each."""
        found = (one for one in self.compiled if one.without_tensor_cores)
        return tuple(dict.fromkeys(f"{one.title} on {one.arch}: {NO_TENSOR_CORES}, {one.fma} FMA" for one in found))

    @property
    def spills(self) -> tuple[str, ...]:
        """Kernels that keep numbers in local memory for want of registers."""
        found = (one for one in self.compiled if one.spilled)
        return tuple(
            f"{one.title} on {one.arch}: {one.spilled} bytes of spills, {one.registers} registers" for one in found
        )

    @property
    def told(self) -> str:
        """How many were compiled, how many leave tensor cores idle or must not be launched, in a few words."""
        slow = sum(one.without_tensor_cores for one in self.compiled)
        words = [f"{len(self.compiled)} compiled"]
        words += [f"{slow} without tensor cores"] if slow else []
        words += [f"{len(self.refused)} unusable"] if self.refused else []
        return ", ".join(words)

    @property
    def archs(self) -> tuple[str, ...]:
        """The cards something was compiled for."""
        return tuple(dict.fromkeys(one.arch for one in self.compiled))


def judge(tasks: Sequence[tuple[Kernel, str]], results: Iterable[Mapping[str, Any]]) -> KernelVerdict:
    """Each task's result, in the tasks' order. Raises ValueError where their numbers differ."""
    compiled: list[CompiledKernel] = []
    failures: list[str] = []
    refused: list[str] = []
    for (kernel, arch), result in zip(tasks, results, strict=True):
        where = f"{kernel.title} on {arch} ({', '.join(kernel.models)})"
        wrong = refused if kernel.only_with else failures
        where = f"with {kernel.only_with}: {where}" if kernel.only_with else where
        if not result["ok"]:
            last = str(result["error"]).strip().splitlines()
            wrong.append(f"{where} does not compile: {last[-1] if last else 'the compiler says nothing'}")
            continue
        one = _compiled(kernel, arch, result)
        compiled.append(one)
        limit = limits_of(arch).shared_a_block
        if one.shared > limit:
            wrong.append(f"{where} needs {one.shared} bytes of shared memory, a block has {limit} there")
        if not one.registers:
            wrong.append(f"{where}: the assembler told no registers")
        elif one.registers > REGISTERS_A_THREAD:
            wrong.append(f"{where} needs {one.registers} registers, a thread has {REGISTERS_A_THREAD}")
    return KernelVerdict(tuple(compiled), tuple(failures), tuple(refused))


def _compiled(kernel: Kernel, arch: str, result: Mapping[str, Any]) -> CompiledKernel:
    told, counts = str(result["assembler"]), result["instructions"]
    registers = _REGISTERS.search(told)
    spills = _SPILLS.findall(told)
    return CompiledKernel(
        title=kernel.title,
        arch=arch,
        models=kernel.models,
        shared=int(result["shared"]),
        registers=int(registers[1]) if registers else 0,
        spilled=sum(int(stores) + int(loads) for stores, loads in spills),
        dots=int(result["dots"]),
        matrix={name: int(counts[name]) for name in MATRIX if counts.get(name)},
        fma=int(counts.get("fma", 0)),
        seconds=float(result["seconds"]),
    )
