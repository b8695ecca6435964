"""The lists of Triton kernels in data/, one a version of vLLM: read, checked, and chosen for an image.

A list has groups, each said of some cards and of one attention, with where it is known from: a trace of a server on a
card ("A"), or vLLM's own host code called without one ("S", attention alone).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from images.core import UsageError

DATA = Path(__file__).with_name("data")
INSIDE = Path(__file__).with_name("inside")
MOST_BYTES, MOST_KERNELS = 8 << 20, 500
# What inside/kernel_entries.py reads.
ENTRY = ("module", "name", "signature", "constants", "divisible", "options")
# Those that use no shared memory and multiply no matrices are compiled for the oldest card of an image alone.
# (-1: nobody compiled it when the list was made.)
LIGHT_SHARED = 0


@dataclass(frozen=True)
class Kernel:
    """A kernel: what the compiler is told (``entry``), for which models it was seen, and where that is known from."""

    entry: dict[str, Any]
    models: tuple[str, ...]
    heavy: bool
    mark: str
    source: str
    only_with: str = ""

    @property
    def title(self) -> str:
        """Its name; a generated one's is a summary of what it does."""
        return str(self.entry["name"])


@dataclass(frozen=True)
class Group:
    """Kernels of one attention (as the matrix calls it) on some cards, such as "<8.0".

    ``only_with`` is the server's flag without which they are never launched; "" where there is none.
    """

    cards: str
    attention: str
    mark: str
    source: str
    kernels: tuple[Kernel, ...]
    only_with: str = ""

    def fits(self, arch: str, attention: str) -> bool:
        """Whether it speaks of an image's server on a card."""
        return self.attention == attention and SpecifierSet(self.cards).contains(arch)


@dataclass(frozen=True)
class KernelList:
    """The kernels of one version of vLLM with one of Triton."""

    vllm: str
    triton: str
    groups: tuple[Group, ...]

    def tasks(self, archs: Sequence[str], attention: str) -> tuple[tuple[Kernel, str], ...]:
        """What is compiled for an image's cards: every kernel for the first card that it runs on, and those that use
        shared memory or multiply matrices for each."""
        return tuple(self._tasks(archs, attention))

    def _tasks(self, archs: Sequence[str], attention: str) -> Iterator[tuple[Kernel, str]]:
        for group in self.groups:
            fitting = [arch for arch in archs if group.fits(arch, attention)]
            for kernel in group.kernels if fitting else ():
                yield from ((kernel, arch) for arch in (fitting if kernel.heavy else fitting[:1]))


def read_list(text: str, where: str = "") -> KernelList:
    """A list from its file's text. Raises UsageError for one that is not of this form, or larger than a list can be."""
    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"{len(text)} letters, at most {MOST_BYTES}")
        data = json.loads(text)
        if data["schema"] != 1:
            raise ValueError(f"schema {data['schema']}, and 1 is known")
        groups = tuple(_group(one) for one in data["groups"])
        if sum(len(group.kernels) for group in groups) > MOST_KERNELS:
            raise ValueError(f"more than {MOST_KERNELS} kernels")
        return KernelList(str(data["vllm"]), str(data["triton"]), groups)
    except (ValueError, TypeError, KeyError, InvalidSpecifier, RecursionError) as error:
        raise UsageError(
            "this is no list of Triton kernels",
            cause=f"{type(error).__name__}: {error}",
            do="write it with python -m images.proof.tracing",
            where=where,
        ) from error


def _group(data: dict[str, Any]) -> Group:
    SpecifierSet(data["cards"])
    mark, source = str(data["mark"]), str(data["source"])
    if not source or mark not in ("A", "S"):
        raise ValueError(f"a group of mark {mark!r} and source {source!r}")
    flag = str(data.get("only_with", ""))
    kernels = tuple(_kernel(one, mark, source, flag) for one in data["kernels"])
    return Group(str(data["cards"]), str(data["attention"]), mark, source, kernels, flag)


def _kernel(data: dict[str, Any], mark: str, source: str, flag: str) -> Kernel:
    entry = {name: data[name] for name in ENTRY} | ({"source": data["source"]} if data.get("source") else {})
    strange = [name for name in entry["divisible"] if name not in entry["signature"]]
    strange += [name for name in entry["constants"] if name.partition(".")[0] not in entry["signature"]]
    if strange or bool(entry["module"]) == bool(entry.get("source")):
        raise ValueError(f"kernel {entry['name']}: {', '.join(strange) or 'it has a module or a source, one of both'}")
    heavy = data["dots"] > 0 or data["shared"] != LIGHT_SHARED
    return Kernel(entry, tuple(data["models"]), heavy, mark, source, flag)


def list_for(vllm: str, folder: Path = DATA) -> KernelList | None:
    """The list of a version of vLLM, without what follows "+"; None where there is none. Raises UsageError."""
    path = folder / f"vllm-{vllm.partition('+')[0]}.json"
    return read_list(path.read_text(encoding="utf-8"), path.name) if path.is_file() else None
