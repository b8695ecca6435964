"""Whether a finished wheel is what was asked for: read, not believed."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.device_code.fatbin import SASS, FatbinError, Library, read
from images.kernels.inside.costs import SUSPICIOUS
from images.kernels.inside.failure import Failure
from images.kernels.inside.recipes import recipe
from images.kernels.inside.toolchain import Toolchain, output

_IMPORT = "import importlib, sys, torch; [importlib.import_module(name) for name in sys.argv[1:]]"

# A function of the driver's library. FlashInfer links with it and these kernels need none; see jit_cache.py.
_DRIVER = re.compile(r"^\s*U (cu[A-Z]\w*)$", re.MULTILINE)

# Loads every module of a flashinfer-jit-cache as FlashInfer does, and says its functions.
_LOAD = """
import json, sys, torch, tvm_ffi, flashinfer_jit_cache
(provider,) = flashinfer_jit_cache.get_jit_cache_providers()
found = {}
for name in provider.modules:
    module = tvm_ffi.load_module(f"{provider.jit_cache_dir}/{name}/{name}.so")
    found[name] = [one for one in ("plan", "paged_run", "ragged_run") if getattr(module, one, None) is not None]
print(json.dumps({"version": provider.version, "architectures": sorted(provider.cuda_architectures), "modules": found}))
"""


@dataclass(frozen=True)
class Wanted:
    """What the wheel must be."""

    package: str
    version: str
    archs: tuple[str, ...]
    env: Mapping[str, str]


def holds(library: Library) -> tuple[str, ...]:
    """The archs that every container of a library holds, and for those that only some hold, "7.5 in 3 of 18"."""
    found: dict[str, int] = {}
    for container in library.loadable:
        for name in {_name(entry.kind, entry.arch, entry.suffix) for entry in container.entries}:
            found[name] = found.get(name, 0) + 1
    count = len(library.loadable)
    return tuple(name if times == count else f"{name} in {times} of {count}" for name, times in sorted(found.items()))


def _name(kind: str, arch: int, suffix: str) -> str:
    capability = f"{arch // 10}.{arch % 10}{suffix}"
    return capability if kind == SASS else f"{kind} {capability}"


def audit(folder: Path, archs: Sequence[str]) -> dict[str, list[str]]:
    """Library -> archs of its device code, which must be exactly ``archs`` in every container. Raises Failure."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.so")):
        name = str(path.relative_to(folder))
        try:
            library = read(path)
        except FatbinError as error:
            raise Failure(f"{name} is damaged: {error}") from error
        if library.loadable:
            found[name] = list(holds(library))
    if not found:
        raise Failure("the wheel holds no device code at all: nothing was compiled for a card")
    wrong = {name: held for name, held in found.items() if sorted(held) != sorted(archs)}
    if wrong:
        told = "; ".join(f"{name} holds {', '.join(held)}" for name, held in wrong.items())
        raise Failure(f"wanted is code for exactly {' '.join(archs)}, but {told}")
    return found


def size(wheel: Path, record: int | None, archs: int) -> int:
    """Bytes of the wheel. Raises Failure when that is suspiciously little against what one arch takes in the record."""
    found = wheel.stat().st_size
    if record is not None and found < SUSPICIOUS * record:
        raise Failure(
            f"{wheel.name} has {found / 1e6:.1f} MB for {archs} arch(s); one alone has {record / 1e6:.1f} MB in the "
            "record (images/kernels/inside/costs.py): kernels are missing"
        )
    return found


def check(
    wheel: Path, wanted: Wanted, tools: Toolchain, record: int | None, env: Mapping[str, str]
) -> dict[str, list[str]]:
    """All checks of a wheel; its audit. Raises Failure with the first that fails."""
    name, version = wheel.name.split("-")[:2]
    of = recipe(wanted.package)
    if (name, version) != (re.sub(r"[-_.]+", "_", of.wheel), wanted.version):
        raise Failure(f"{wheel.name} is not {of.wheel} {wanted.version}")
    size(wheel, record, len(wanted.archs))
    with tempfile.TemporaryDirectory(prefix="kernel-check-") as place:
        folder = Path(place)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        found = audit(folder, wanted.archs)
        # Every symbol is looked up when the library is loaded, so that one built for another C++ ABI cannot pass.
        env = {**env, "PYTHONPATH": place, "LD_BIND_NOW": "1", "CUDA_VISIBLE_DEVICES": ""}
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        if of.modules:
            output([sys.executable, "-c", _IMPORT, *of.modules], env)
        if wanted.package == "xformers":
            xformers_accounts(folder, wanted, tools, env)
        if wanted.package == "flashinfer":
            flashinfer_account(folder, wanted, env)
    return found


def xformers_accounts(folder: Path, wanted: Wanted, tools: Toolchain, env: Mapping[str, str]) -> None:
    """xformers' two accounts of its own build must agree with what was asked, and with each other."""
    written = json.loads((folder / "xformers/cpp_lib.json").read_text(encoding="utf-8"))
    archs = ";".join(wanted.archs)
    told = output([sys.executable, "-m", "xformers.info"], env)
    rows = dict(re.findall(r"^(\S+):\s+(.*)$", told, flags=re.MULTILINE))
    torch = str(written["version"]["torch"])
    accounts = {
        "cpp_lib.json, TORCH_CUDA_ARCH_LIST": (written["env"]["TORCH_CUDA_ARCH_LIST"], archs),
        "cpp_lib.json, torch": (torch.partition("+")[0], tools.torch.partition("+")[0]),
        "cpp_lib.json, CUDA": (written["version"]["cuda"], int(tools.cuda.replace(".", "0"))),
        "xformers.info, archs": (rows.get("build.env.TORCH_CUDA_ARCH_LIST"), archs),
        "xformers.info, torch": (rows.get("build.torch_version"), torch),
        # Asked of the loaded library itself.
        "xformers.info, nvcc": (rows.get("build.nvcc_version"), tools.nvcc),
    }
    for name, (said, expected) in accounts.items():
        if said != expected:
            raise Failure(f"{name} says {said!r}, expected is {expected!r}")


def flashinfer_account(folder: Path, wanted: Wanted, env: Mapping[str, str]) -> None:
    """What FlashInfer will be told of the wheel must be what was asked, and each module must load. Raises Failure.

    Symbols are looked up as they are called: FlashInfer's library names instances for tiles of 32 rows, which only
    heads of 512 take, and leaves them out otherwise (csrc/batch_prefill_paged_kernel_inst.jinja@0.7.2.post1).
    """
    for path in sorted(folder.rglob("*.so")):
        if found := _DRIVER.findall(output(["nm", "-D", "--undefined-only", str(path)], env)):
            raise Failure(f"{path.name} calls {found[0]} of libcuda, which it was not linked with")
    lazy = {name: value for name, value in env.items() if name != "LD_BIND_NOW"}
    told = json.loads(output([sys.executable, "-c", _LOAD], lazy).splitlines()[-1])
    expected = {
        "version": wanted.version,
        "architectures": sorted(f"sm{arch.replace('.', '')}" for arch in wanted.archs),
    }
    for name, value in expected.items():
        if told[name] != value:
            raise Failure(f"flashinfer_jit_cache says {name} {told[name]!r}, expected is {value!r}")
    if not told["modules"]:
        raise Failure("flashinfer_jit_cache names no module")
    for module, functions in told["modules"].items():
        if len(functions) != 3:
            raise Failure(f"{module} has {', '.join(functions) or 'none'} of plan, paged_run and ragged_run")
