"""Which card has code in which stack: verdicts of the recorded wheels, as rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from images.device_code.audit import name_of
from images.device_code.fatbin import Container, Library, Section
from images.device_code.verdict import (
    JIT,
    LOWER,
    NATIVE,
    PARTLY,
    Capability,
    Verdict,
    judge,
    label,
    labels,
    pick,
    runs,
)
from images.matrix import Matrix, PackageName
from images.proof.audit.wheels import Wheel

CARDS: tuple[Capability, ...] = (
    *((5, 0), (6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)),
)
NOTHING = "-"

# A container of vLLM's _C that nvcc made without being told an arch: one translation unit, machete_pytorch.cu, that
# defines no kernel (0.8.5.post1, 0.9.2, 0.11.0: `cuobjdump -xelf sm_52` gives a file without a .text section).
_EMPTY = {"vllm/_C.abi3.so": ["5.2", "PTX 5.2"]}


@dataclass(frozen=True)
class AuditedPart:
    """A part of a package: how people call it, and globs of its libraries, on a Hopper card maybe others."""

    package: PackageName
    title: str
    piece: str
    libraries: tuple[str, ...]
    hopper: tuple[str, ...] = ()

    def library(self, wheel: Wheel, card: Capability) -> Library | None:
        """The code of all its libraries as of one; None where the wheel has none of them."""
        globs = self.hopper if self.hopper and card[0] == 9 else self.libraries
        libraries = [one for one in wheel.audit.libraries if any(fnmatchcase(one.name, glob) for glob in globs)]
        code = tuple(
            container
            for one in libraries
            for container in one.library.loadable
            if list(labels(container.entries)) != _EMPTY.get(one.name)
        )
        return Library(True, 0, (Section(".nv_fatbin", 0, 0, 0, code),)) if libraries else None

    def judge(self, wheel: Wheel, card: Capability) -> Verdict:
        """What a card runs of it; NO_CODE where the wheel has no such part."""
        return judge(self.library(wheel, card) or Library(True, 0), card)

    def name(self, versions: Sequence[str]) -> str:
        """ "torch 2.6.0, 2.7.0: linalg"."""
        return f"{self.title} {', '.join(versions)}" + (f": {self.piece}" if self.piece else "")


# What serving Qwen2.5-VL meets; the kernels of other models and of multi-node serving are left to `invoke audit`.
# vLLM takes FlashAttention 3 on Hopper and 2 elsewhere (vllm/vllm_flash_attn/flash_attn_interface.py).
PARTS = (
    AuditedPart("torch", "torch", "", ("torch/lib/libtorch_cuda.so",)),
    AuditedPart("torch", "torch", "linalg", ("torch/lib/libtorch_cuda_linalg.so",)),
    AuditedPart("vllm", "vLLM", "", ("vllm/_C.*", "vllm/_C_*", "vllm/_moe_C.*", "vllm/_moe_C_*")),
    AuditedPart(
        "vllm", "vLLM", "FlashAttention", ("vllm/vllm_flash_attn/*_fa2_C.*",), ("vllm/vllm_flash_attn/*_fa3_C.*",)
    ),
    AuditedPart("xformers", "xformers", "", ("xformers/_C.so",)),
)


def cell(part: AuditedPart, wheel: Wheel, card: Capability) -> str:
    """A verdict in a word: "native", "as 8.6" (by the code of a lower minor), "PTX 570" (compiled by driver 570 or
    newer), "22/47" (so many of its containers run), "22/47 PTX 570" (some of them compiled), "-" (nothing runs).
    """
    verdict = part.judge(wheel, card)
    jit = f"PTX {verdict.driver.split()[1]}" if verdict.driver else ""
    if verdict.kind == PARTLY:
        return f"{verdict.containers - len(verdict.lacking)}/{verdict.containers} {jit}".rstrip()
    if verdict.kind == LOWER and (library := part.library(wheel, card)):
        return f"as {_lower(library.loadable, card)}"
    return {NATIVE: "native", JIT: jit}.get(verdict.kind, NOTHING)


def _lower(containers: Iterable[Container], card: Capability) -> str:
    """The code of a lower minor that most containers would run."""
    picked = [pick(one, card) for one in containers]
    labels_used = [label(entry) for entry in picked if entry is not None and runs(entry, card) == LOWER]
    return max(set(labels_used), key=labels_used.count)


def stacks_of(matrix: Matrix, wheel: Wheel) -> list[str]:
    """The stacks that install this very wheel, or build the same version from source."""
    return [
        name
        for name, stack in matrix.stacks.items()
        if any(
            (package, pin.version) == (wheel.package, wheel.version) and pin.origin in ("pypi", "source")
            for engine in stack.backends.values()
            for package, pin in engine.pins.items()
        )
    ]


def table(
    matrix: Matrix, wheels: Sequence[Wheel], cards: Sequence[Capability] = CARDS
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: for each part, the stacks and versions with the same verdicts, and a column a card."""
    rows = []
    for part in PARTS:
        alike: dict[tuple[str, ...], list[Wheel]] = {}
        for wheel in (wheel for wheel in wheels if wheel.package == part.package and stacks_of(matrix, wheel)):
            alike.setdefault(tuple(cell(part, wheel, card) for card in cards), []).append(wheel)
        for cells, same in alike.items():
            stacks = dict.fromkeys(name for wheel in same for name in stacks_of(matrix, wheel))
            rows.append([" ".join(stacks), part.name([wheel.version for wheel in same]), *cells])
    return ["stack", "audited", *map(name_of, cards)], rows
