"""Locks: a stack's exact versions and hashes, resolved by uv from the package index.

What is asked is in images/render/lock_inputs.py, how it lies on disk in images/render/lock_files.py; here uv is run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import CardstockError, RegistryFailure, UsageError, process, toml, work_folder
from images.render.lock_files import (
    Lock,
    LockState,
    lock_file_name,
    lock_state,
    parse,
    pinned,
    read_lock,
    split,
    write_lock,
)
from images.render.lock_inputs import (
    FLASHINFER,
    KERNEL_PARTS,
    PLATFORM,
    LockInputs,
    inputs_for,
    part_of,
    sccache_inputs,
    toolkit_inputs,
    tools_inputs,
)

__all__ = [
    "Lock",
    "LockInputs",
    "LockState",
    "inputs_for",
    "lock_file_name",
    "lock_state",
    "read_lock",
    "resolve_lock",
    "sccache_inputs",
    "toolkit_inputs",
    "tools_inputs",
    "write_lock",
]

_UNREACHABLE = re.compile(r"error sending request|failed to fetch|dns error|timed out|HTTP status|offline", re.I)
_MISSING = re.compile(r"there (?:is|are) no versions? of|was not found in the package registry|not found in the cache")
_TORCH = re.compile(r"^torch(==| @ )")


def resolve_lock(inputs: LockInputs, *, indexes: Sequence[str] = (), uv: str = "uv") -> Lock:
    """Ask the package index (as this host's uv is set up, plus ``indexes``) for exact versions and hashes.

    Raises RegistryFailure when an index or a file cannot be reached or lacks a version; UsageError when the pins
    contradict each other. Nothing on disk changes.
    """
    with work_folder("lock") as folder:
        resolve = _Resolver(folder, inputs, tuple(indexes), uv)
        everything = resolve(inputs.requirements)
        exact = pinned(everything)
        torch = [line for line in exact if _TORCH.match(line)]
        parts = split(everything, resolve(torch, constraints=exact) if torch else {})
        for kernel in inputs.kernels:
            # No dependencies: asking a source distribution for them would run its build.
            parts[part_of(kernel)] = resolve([kernel], "--no-deps")
        if inputs.build:
            others = [line for line in exact if not line.startswith("setuptools==")]
            tools = resolve([*torch, *inputs.tools], constraints=others)
            nvidia = parts.get("nvidia", {})
            parts["build"] = {package: block for package, block in tools.items() if package not in nvidia}
        sources = {}
        for package in KERNEL_PARTS:
            wheel = package == FLASHINFER
            if inputs.build and package in parts and (digest := resolve.source(pinned(parts[package]), wheel=wheel)):
                sources[package] = digest
    return Lock(inputs.digest(), parts, inputs.lines(), sources)


@dataclass(frozen=True)
class _Resolver:
    """`uv pip compile` with a lock's overrides, excludes and indexes."""

    folder: Path
    inputs: LockInputs
    indexes: tuple[str, ...]
    uv: str

    def __call__(self, asked: Sequence[str], *flags: str, constraints: Sequence[str] = ()) -> dict[str, str]:
        return parse(self._run(asked, ["--generate-hashes", *flags], constraints))

    def source(self, asked: Sequence[str], *, wheel: bool = False) -> str | None:
        """The sha256 of the one package's source distribution, or of its only ``wheel``; None where it has none."""
        pylock = self._run(asked, ["--no-deps", "--format", "pylock.toml"], ())
        (package,) = toml.loads(pylock)["packages"]
        files = package.get("wheels", []) if wheel else [package.get("sdist", {})]
        digest = files[0].get("hashes", {}).get("sha256") if len(files) == 1 else None
        return str(digest) if digest else None

    def _run(self, asked: Sequence[str], flags: Sequence[str], constraints: Sequence[str]) -> str:
        argv = [self.uv, "pip", "compile", "--quiet", "--python-version", self.inputs.python, *flags]
        argv += ["--python-platform", PLATFORM, "--no-header", "--no-annotate"]
        lists = {"overrides": self.inputs.overrides, "excludes": self.inputs.excludes, "constraints": constraints}
        for option, lines in lists.items():
            if lines:
                path = self.folder / f"{option}.txt"
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                argv += [f"--{option}", str(path)]
        for index in self.indexes:
            argv += ["--index", index]
        done = process.run([*argv, "-"], stdin="\n".join(asked) + "\n", check=False, timeout=900)
        if done.code:
            raise _failure(self.inputs.name, done.err)
        return done.out


def _failure(name: str, text: str) -> CardstockError:
    """uv's words sorted into what a person can do about them."""
    cause = "\n".join(line for line in text.strip().splitlines() if line.strip())[-2000:]
    if _UNREACHABLE.search(text):
        return RegistryFailure(
            f"{name} stays unlocked: a package index or file cannot be reached",
            cause=cause,
            do="run `invoke lock` where it can be reached, or set up a mirror in uv's own configuration",
            where="matrix.yaml, the stack's pins and indexes",
        )
    if _MISSING.search(text):
        return RegistryFailure(
            f"{name} stays unlocked: the package index lacks something it needs",
            cause=cause,
            do="correct the pin, or name the index that has it",
            where="matrix.yaml, the stack's pins",
        )
    return UsageError(
        f"{name}: the pins contradict each other",
        cause=cause,
        do="change one of them",
        where="matrix.yaml, the stack's pins",
    )
