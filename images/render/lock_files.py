"""A lock as files under git: parse it, split it into parts, write it whole, see whether it is stale.

One lock is a few files side by side: ``NAME.txt`` (everything else), ``NAME.nvidia.txt`` (NVIDIA's own wheels, the
same for every card of a stack, so a layer of their own), ``NAME.xformers.txt``, ``NAME.flash-attn.txt`` or
``NAME.flashinfer.txt`` (attention kernels: compiled, or taken as they come; a line says which of the hashes is the
source) and ``NAME.build.txt`` (what compiling those needs). The header of ``NAME.txt`` holds the hash of what was asked
for and of its parts: a lock that no longer matches is stale.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from images.core import write_atomically
from images.render.lock_inputs import KERNEL_PACKAGES, KERNEL_PARTS, LockInputs, normalize_name

LockState = Literal["locked", "stale", "unlocked"]

_HEADER = "# Cardstock lock: made by `invoke lock`, not by hand."
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:==(\S+)| @ (\S+))")
_INPUTS = re.compile(r"^# inputs: sha256:([0-9a-f]{64})$", re.MULTILINE)
_SOURCE = re.compile(r"^# source: sha256:([0-9a-f]{64})$", re.MULTILINE)
_PART = re.compile(r"^# part ([a-z-]+): sha256:([0-9a-f]{64})$", re.MULTILINE)
_ASKED = re.compile(r"^# ((?:name|python|platform|require|override|exclude|kernel|build): .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """A resolved lock: ``parts`` maps part ("" is the main one) to requirement lines with hashes, by package.

    ``sources`` maps an attention package to the sha256 of its source distribution, one of its hashes.
    """

    inputs_digest: str
    parts: dict[str, dict[str, str]] = field(repr=False)
    header: tuple[str, ...] = field(default=(), repr=False)
    sources: dict[str, str] = field(default_factory=dict, repr=False)

    def versions(self) -> dict[str, str]:
        """Package to exact version (or address), over the parts that reach an image ("build" does not)."""
        versions = {}
        for part, packages in self.parts.items():
            for package, block in packages.items() if part != "build" else ():
                match = _REQUIREMENT.match(block)
                versions[package] = (match[2] or match[3]) if match else ""
        return dict(sorted(versions.items()))


def parse(text: str) -> dict[str, str]:
    """Requirement blocks (the line and its hashes) of a requirements text, by package."""
    blocks: dict[str, str] = {}
    package = ""
    for line in text.splitlines():
        if match := _REQUIREMENT.match(line):
            package = normalize_name(match[1])
            blocks[package] = line
        elif package and line.startswith((" ", "\t")) and line.strip().startswith("--hash="):
            blocks[package] += "\n" + line
    return blocks


def pinned(packages: Mapping[str, str]) -> list[str]:
    """The requirement lines alone, without hashes."""
    return [block.split("\n")[0].removesuffix(" \\") for block in packages.values()]


def split(everything: Mapping[str, str], torch_set: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Parts of a lock: NVIDIA's wheels that torch asks for, attention kernels, the rest.

    Only torch's own closure: then both backends of a stack have one NVIDIA part, and one layer.
    """
    parts: dict[str, dict[str, str]] = {"": {}}
    for package, block in everything.items():
        part = package if package in KERNEL_PACKAGES else ""
        if package.startswith("nvidia-") and package in torch_set:
            part = "nvidia"
        parts.setdefault(part, {})[package] = block
    return parts


def lock_file_name(name: str, part: str = "") -> str:
    """File of a part: "cu124-vllm.nvidia.txt"."""
    return f"{name}.{part}.txt" if part else f"{name}.txt"


def _body(packages: Mapping[str, str]) -> str:
    return "".join(f"{packages[name]}\n" for name in sorted(packages))


def render_files(lock: Lock, name: str) -> dict[str, str]:
    """File name to text, the main file last. Parts carry no name: equal parts of two locks are equal bytes."""
    files: dict[str, str] = {}
    digests = []
    for part in sorted(part for part in lock.parts if part):
        source = f"# source: sha256:{lock.sources[part]}\n" if part in lock.sources else ""
        text = f"{_HEADER}\n{source}{_body(lock.parts[part])}"
        files[lock_file_name(name, part)] = text
        digests.append(f"# part {part}: sha256:{hashlib.sha256(text.encode()).hexdigest()}")
    header = [_HEADER, *(f"# {line}" for line in lock.header), f"# inputs: sha256:{lock.inputs_digest}", *digests]
    files[lock_file_name(name)] = "\n".join(header) + "\n" + _body(lock.parts[""])
    return files


def write_lock(lock: Lock, folder: Path, name: str) -> tuple[Path, ...]:
    """Write the lock's files, each whole or not at all, the main one last; parts it no longer has go."""
    files = render_files(lock, name)
    for file, text in files.items():
        write_atomically(folder / file, text)
    for old in folder.glob(f"{name}.*.txt"):
        if old.name not in files and _is_part(old.name, name):
            old.unlink()
    return tuple(folder / file for file in files)


def _is_part(file: str, name: str) -> bool:
    return file.removeprefix(f"{name}.").removesuffix(".txt") in ("nvidia", "build", *KERNEL_PARTS)


def _read_checked(folder: Path, name: str) -> tuple[str, dict[str, str]] | None:
    """Text of the main file and of each part; None where there is no lock or a part differs from its header."""
    main = folder / lock_file_name(name)
    if not main.is_file():
        return None
    text = main.read_text(encoding="utf-8")
    if _INPUTS.search(text) is None:
        return None
    parts = {}
    for part, digest in _PART.findall(text):
        path = folder / lock_file_name(name, part)
        body = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(body).hexdigest() != digest:
            return None
        parts[part] = body.decode()
    return text, parts


def read_lock(folder: Path, name: str) -> Lock | None:
    """The lock on disk; None where there is none, or where its parts do not match its header."""
    if (checked := _read_checked(folder, name)) is None:
        return None
    text, parts = checked
    inputs = _INPUTS.findall(text)[0]
    bodies = {"": parse(text), **{part: parse(body) for part, body in parts.items()}}
    sources = {part: source for part, body in parts.items() if (source := source_digest(body))}
    return Lock(inputs, bodies, tuple(_ASKED.findall(text)), sources)


def source_digest(text: str) -> str | None:
    """The sha256 of the source distribution that the text of a package's part names; None where it names none."""
    match = _SOURCE.search(text)
    return match[1] if match else None


def lock_state(folder: Path, inputs: LockInputs) -> LockState:
    """Whether the lock on disk answers ``inputs``: "locked", "stale" (it answers others, or is damaged), "unlocked"."""
    if not (folder / lock_file_name(inputs.name)).is_file():
        return "unlocked"
    checked = _read_checked(folder, inputs.name)
    return "locked" if checked and _INPUTS.findall(checked[0]) == [inputs.digest()] else "stale"
