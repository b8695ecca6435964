"""Small site-packages folders: wheels with their RECORDs, and a library that looks like cuFFT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from images.device_code.record import file_hash
from tests.helpers.compiled import compiled

CUFFT = """
int cufftPlan1d(int n) { return n - n; }
int cufftGetProperty(int part, int *to) { *to = part; return 0; }
const char *cufftGetErrorString(int status) { return status ? "bad" : "good"; }
int __cufftInner(void) { return 0; }
int otherPlan1d(void) { return 0; }
int cufftTable[4] = {1, 2, 3, 4};
int _ZN5cufft4makeEi(int n) { return n; }
int _ZNSt6vectorIiE4sizeEv(void) { return 0; }
"""
FUNCTIONS = ["__cufftInner", "cufftGetErrorString", "cufftGetProperty", "cufftPlan1d"]
WHERE = "nvidia/cufft/lib/libcufft.so.11"


def cufft(folder: Path, source: str = CUFFT, version: str = "libcufft.so.11") -> bytes:
    """The library, compiled, with every function under ``version``."""
    versions = f"{version} {{ global: *; }};" if version else ""
    return compiled(folder / "libcufft.so.11", source, versions=versions).read_bytes()


def wheel(site: Path, name: str, files: Mapping[str, bytes], extra: tuple[str, ...] = ()) -> Path:
    """Install ``files`` as the wheel ``name`` ("nvidia_cufft_cu12-11.2.1.3"), and give its RECORD."""
    folder = site / f"{name}.dist-info"
    texts = {f"{folder.name}/METADATA": b"Name: x\n", f"{folder.name}/licenses/License.txt": b"terms"}
    for path, content in {**files, **texts}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
    rows = [f"{path},{file_hash(site / path)},{(site / path).stat().st_size}" for path in {**files, **texts}]
    record = folder / "RECORD"
    record.write_text("\n".join([*rows, *extra, f"{folder.name}/RECORD,,", ""]))
    return record


def cufft_wheel(site: Path, library: bytes) -> Path:
    """NVIDIA's wheel of cuFFT: the library, a header, and the empty modules of its folders."""
    files = {"nvidia/__init__.py": b"", "nvidia/cufft/__init__.py": b"", "nvidia/cufft/include/cufft.h": b"int x;"}
    return wheel(site, "nvidia_cufft_cu12-11.2.1.3", {**files, WHERE: library})
