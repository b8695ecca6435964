"""Reading matrix.yaml: every error names file, line, key and the nearest valid value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from images.core import UsageError, closest, parse_model, read_text
from images.matrix.model import Matrix, Rule, StandIn, StandInEvidence, UnmetNeed, UnusedPackage


def read_matrix(path: Path) -> Matrix:
    """Read and check the structure of a matrix file. Raises UsageError with file, line, key and nearest valid value."""
    return parse_matrix(read_text(path), path.name)


def parse_matrix(text: str, name: str = "matrix.yaml") -> Matrix:
    """The same from text; ``name`` stands in the errors."""
    matrix = parse_model(text, name, Matrix)
    _check_references(matrix)
    return matrix


def _check_references(matrix: Matrix) -> None:
    """Names that point at other places of the file must be there."""

    def need(name: str, known: Mapping[str, object] | list[str], what: str, *location: str | int) -> None:
        if name not in known:
            raise UsageError(
                f"{matrix._path}: {'.'.join(map(str, location))}: there is no {what} {name!r}",
                do=f"nearest: {closest(name, known)}. Known: {', '.join(known)}",
                where=matrix.where(*location),
            )

    for stack_name, stack in matrix.stacks.items():
        if stack.cuda is not None:
            need(stack.cuda, matrix.toolkits, "toolkit", "stacks", stack_name, "cuda")
        need(stack_name, matrix.recommended.stacks, "recommended attention for stack", "recommended", "stacks")
        for backend, backend_set in stack.backends.items():
            for package, pin in backend_set.pins.items():
                kind, _, name = pin.origin.partition(":")
                at = ("stacks", stack_name, "backends", backend, "pins", package, "from")
                if kind == "index":
                    need(name, matrix.indexes, "index", *at)
                elif kind == "asset":
                    need(name, matrix.assets, "asset", *at)
    for arch, listed in matrix.recommended.archs.items():
        need(arch, matrix.archs, "arch", "recommended", "archs", arch)
        for index, choice in enumerate(listed):
            need(choice.stack, matrix.stacks, "stack", "recommended", "archs", arch, index, "stack")
    for stack_name in matrix.recommended.stacks:
        need(stack_name, matrix.stacks, "stack", "recommended", "stacks", stack_name)
    for index, wish in enumerate(matrix.kernels):
        need(wish.cuda, matrix.toolkits, "toolkit", "kernels", index, "cuda")
    sections: tuple[tuple[str, Sequence[Rule | StandIn | StandInEvidence | UnusedPackage | UnmetNeed], str], ...] = (
        ("exclude", matrix.exclude, "rules"),
        ("stand_ins", matrix.stand_ins, "stand-ins"),
        ("stand_in_evidence", matrix.stand_in_evidence, "rows of evidence"),
        ("unused", matrix.unused, "rows of unused packages"),
        ("unmet", matrix.unmet, "unmet needs"),
    )
    for section, listed_parts, what in sections:
        seen: set[str] = set()
        for index, part in enumerate(listed_parts):
            if part.id in seen:
                raise UsageError(
                    f"{matrix._path}: two {what} of one id: {part.id!r}", where=matrix.where(section, index)
                )
            seen.add(part.id)
            if part.when.stack is not None:
                need(part.when.stack, matrix.stacks, "stack", section, index, "when", "stack")
    for index, stand_in in enumerate(matrix.stand_ins):
        for stack_name in stand_in.mb:
            need(stack_name, matrix.stacks, "stack", "stand_ins", index, "mb", stack_name)
