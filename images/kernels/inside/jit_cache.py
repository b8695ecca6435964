"""FlashInfer's kernels as a wheel: `python -P jit_cache.py DIST`, run in the unpacked source. One file, on its own.

FlashInfer compiles its kernels when they are first used, unless it finds them in the package flashinfer_jit_cache
(flashinfer/jit/env.py@0.7.2.post1). This makes that package with the few modules that Qwen2.5-VL's decoder asks for,
by FlashInfer's own generator and ninja files, so that their names and sources are those it looks for later.

The environment says what is compiled: FLASHINFER_CUDA_ARCH_LIST ("7.5"), CARDSTOCK_FLASHINFER_MODULES ("f16-128": type
and head size, several with blanks between), MAX_JOBS, and the compilers as torch's builds are told them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE = "flashinfer_jit_cache"
# Places of what is compiled, below the source: objects() in compiling.py counts below build/temp*.
WORKSPACE = "build/temp"
_MODULE = re.compile(r"(f16)-(64|128|256)")

INIT = '''"""FlashInfer's kernels for some cards, compiled ahead; made by Cardstock from flashinfer-python {version}."""

from pathlib import Path
from types import SimpleNamespace

__version__ = "{version}"


def get_jit_cache_providers():
    """What flashinfer/jit/env.py asks for: one provider, with the modules that lie beside this file."""
    return (
        SimpleNamespace(
            provider_id="cardstock",
            distribution="flashinfer-jit-cache",
            version=__version__,
            jit_cache_dir=Path(__file__).parent / "modules",
            cuda_architectures={architectures},
            modules={modules},
        ),
    )
'''


def wished(text: str) -> list[tuple[str, int]]:
    """ "f16-128" as (type, head size), several with blanks between. Raises ValueError for anything else."""
    found = [_MODULE.fullmatch(word) for word in text.split()]
    if not found or None in found:
        raise ValueError(f"CARDSTOCK_FLASHINFER_MODULES is TYPE-HEADSIZE such as f16-128, not {text!r}")
    return [(match[1], int(match[2])) for match in found if match]


def architectures(text: str) -> list[str]:
    """ "7.5" as FlashInfer calls it, "sm75"; several with blanks between."""
    return [f"sm{word.replace('.', '')}" for word in sorted(text.split())]


def write_wheel(folder: Path, version: str, archs: Sequence[str], libraries: Mapping[str, Path], licence: str) -> Path:
    """The wheel with these libraries (module name to file), the same bytes each time; ``licence`` is the source's."""
    name = f"{PACKAGE}-{version}"
    info = f"{name}.dist-info"
    names = sorted(libraries)
    files = {f"{PACKAGE}/__init__.py": INIT.format(version=version, architectures=list(archs), modules=names).encode()}
    files |= {f"{PACKAGE}/modules/{one}/{one}.so": libraries[one].read_bytes() for one in names}
    files[f"{info}/licenses/LICENSE"] = licence.encode()
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.4\nName: {PACKAGE.replace('_', '-')}\nVersion: {version}\n"
        f"Summary: FlashInfer's kernels for {' '.join(archs)}, compiled ahead by Cardstock\n"
        "License-Expression: Apache-2.0\nLicense-File: LICENSE\n"
        f"Requires-Dist: flashinfer-python=={version}\n"
    ).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: cardstock\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n"
    )
    rows = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o755 if path.endswith(".so") else 0o644) << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def compile_modules(asked: Sequence[tuple[str, int]]) -> tuple[str, dict[str, Path]]:
    """FlashInfer's version, and its compiled modules by name. Its package must be importable, and its nvcc there.

    One module serves prompts and decoding alike: vLLM 0.33.0 asks for tensor cores in both, and K and V of its cache
    lie with equal strides, so the module for other strides is never loaded (flashinfer/prefill.py,
    vllm/v1/attention/backends/flashinfer.py). No rotary embedding, sliding window or soft cap: the model has vLLM's
    own, none, and none.
    """
    import torch  # here: the functions above are for machines without it, too
    from flashinfer.jit.attention.modules import _gen_batch_prefill_primary_module
    from flashinfer.version import __version__

    found = {}
    for kind, size in asked:
        of = {"f16": torch.float16}[kind]
        spec = _gen_batch_prefill_primary_module("fa2", of, of, of, torch.int32, size, size, 0, False, False, False)
        spec.build(verbose=True)
        found[spec.name] = Path(spec.get_library_path())
    return str(__version__), found


def without_driver(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Variables for a machine without a driver: FlashInfer links with libcuda, of which these kernels call nothing.

    An empty archive stands in its place; a kernel that did call it would not load, which verify.py tries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "libcuda.a").write_bytes(b"!<arch>\n")
    return {
        "LIBRARY_PATH": f"{folder}:{env.get('LIBRARY_PATH', '')}".rstrip(":"),
        "FLASHINFER_NVCC": env.get("PYTORCH_NVCC", f"{env['CUDA_HOME']}/bin/nvcc"),
        "FLASHINFER_WORKSPACE_BASE": str(Path(WORKSPACE).absolute()),
    }


def main(words: Sequence[str]) -> int:
    """Compile, and leave the wheel in the folder DIST."""
    (dist,) = words
    asked = wished(os.environ["CARDSTOCK_FLASHINFER_MODULES"])
    os.environ |= without_driver(Path("build/stubs").absolute(), os.environ)
    sys.path.insert(0, str(Path.cwd()))
    version, libraries = compile_modules(asked)
    (licence,) = Path.cwd().glob("flashinfer_python-*.dist-info/licenses/LICENSE")
    archs = architectures(os.environ["FLASHINFER_CUDA_ARCH_LIST"])
    write_wheel(Path(dist), version, archs, libraries, licence.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
