"""Finished kernel builds for tests: a wheel with a byte-made library, and the record that belongs to it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from images.kernels.key import Key, key_of
from images.matrix.arch import parse_arch
from images.matrix.kernel import Kernel, make_kernel
from tests.helpers import elf_files as elves

SOURCE = "ab" * 32


def kernel(*archs: str, version: str = "0.0.29.post2", torch: str = "2.6.0") -> Kernel:
    """An xformers kernel of the cu124 stack for these cards; 7.5 if none is named."""
    cards = tuple(parse_arch(arch) for arch in archs or ("7.5",))
    return make_kernel("xformers", version, torch=torch, cuda="12.4", python="3.11", lock="cu124-vllm", cards=cards)


def key(*archs: str, source: str = SOURCE) -> Key:
    """The key of `kernel`."""
    return key_of(kernel(*archs), source)


def build(
    folder: Path,
    *archs: str,
    of: Kernel | None = None,
    numbers: tuple[int, ...] = (),
    partly: bool = False,
    fill: int = 1,
    **said: Any,
) -> Path:
    """Write what a build of ``of`` (else of `kernel`) leaves; ``numbers`` are other archs than asked, ``said`` lies.

    ``partly``: one of its two containers holds code for the first arch only.
    """
    of = of or kernel(*archs)
    folder.mkdir(parents=True, exist_ok=True)
    name = of.package.replace("-", "_")
    wheel = folder / f"{name}-{of.version}-cp311-cp311-linux_x86_64.whl"
    codes = [elves.Code(number, fill=fill) for number in numbers or tuple(arch.number for arch in of.archs)]
    containers = [elves.container(*codes), elves.container(*(codes[:1] if partly else codes))]
    about = f"{name}-{of.version}.dist-info"
    files = {
        f"{name}/_C.so": elves.library(containers),
        f"{name}/__init__.py": b"",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {of.package}\nVersion: {of.version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-linux_x86_64\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
        archive.writestr(zipfile.ZipInfo(f"{about}/RECORD"), "".join(f"{path},,\n" for path in files))
    data = wheel.read_bytes()
    record = {
        "schema": 1,
        "package": of.package,
        "version": of.version,
        "source_sha256": SOURCE,
        "torch": f"{of.torch}+cu{of.cuda.replace('.', '')}",
        "cuda": of.cuda,
        "nvcc": "12.4.131",
        "gcc": "12.2.0",
        "python": "3.11.2",
        "cxx11_abi": False,
        "archs": list(of.capabilities),
        "env": dict(of.env),
        "jobs": 2,
        "seconds": 415.0,
        "peak_memory_bytes": 2_000_000_000,
        "objects": 33,
        "compiled": 33,
        "wheel": wheel.name,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "audit": {f"{name}/_C.so": list(of.capabilities)},
    }
    (folder / "kernel.json").write_text(json.dumps(record | said))
    return folder
