"""What the image for the CPU leaves out, seen from inside: nothing that computes on a CPU calls a stand-in."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import subprocess  # noqa: TID251 - a process of its own says what stands on its stderr
import sys
import sysconfig
from pathlib import Path

import pytest

from images.device_code.audit import audit
from images.device_code.slim import is_nvidia_name
from images.device_code.sources import read_folder
from images.device_code.stand_ins.made import stand_ins_of
from tests.helpers.nonempty import nonempty

SITE = Path(sysconfig.get_path("purelib"))
CALLS = "CARDSTOCK_STAND_IN_CALLS"
SAID = "cardstock: stand-in called: "
MADE = stand_ins_of(SITE)

ON_THE_CPU = {
    "is imported": "assert not torch.cuda.is_available() and torch.version.cuda",
    "says its versions": "assert torch.backends.cudnn.version() > 90000 and torch.cuda.nccl.version() > (2,)",
    "transforms": "torch.fft.fft(a)",
    "solves": "torch.linalg.solve(a, a); torch.linalg.svd(a); torch.linalg.eigh(a)",
    "multiplies sparse matrices": "a.to_sparse_csr() @ a; torch.sparse.mm(a.to_sparse(), a)",
    "convolves": "torch.nn.functional.conv3d(torch.ones(1, 3, 4, 8, 8), torch.ones(4, 3, 2, 2, 2))",
    "attends": "torch.nn.functional.scaled_dot_product_attention(a[None], a[None], a[None])",
    "draws": "torch.manual_seed(1); torch.randn(3); torch.multinomial(torch.ones(3), 2)",
    "is profiled": "with torch.profiler.profile() as seen: a @ a\nassert 'mm' in str(seen.key_averages())",
    "reduces": "import torch.distributed as many; many.init_process_group('gloo', init_method='tcp://127.0.0.1:29573', "
    "rank=0, world_size=1); many.all_reduce(a)",
    "sees": "import torchvision; torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)",
}


def python(code: str, calls: Path) -> subprocess.CompletedProcess[str]:
    """The code after torch's import and a matrix ``a``, with ``calls`` as the file that counts."""
    text = f"import torch\na = torch.eye(8)\n{code}\n"
    environment = {**os.environ, CALLS: str(calls)}
    return subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("what", ON_THE_CPU)
def test_on_the_cpu_torch_works_without_a_call(what: str, tmp_path: Path) -> None:
    done = python(ON_THE_CPU[what], tmp_path / "calls")
    assert done.returncode == 0, done.stderr
    assert SAID not in done.stderr
    assert not (tmp_path / "calls").exists()


def test_without_a_driver_torch_says_itself_that_there_is_no_card(tmp_path: Path) -> None:
    done = python("a.cuda()", tmp_path / "calls")
    assert "Found no NVIDIA driver on your system" in done.stderr
    assert not (tmp_path / "calls").exists()


def test_each_stand_in_can_be_loaded_and_says_what_it_is_when_it_is_called(tmp_path: Path) -> None:
    for number, one in enumerate(nonempty(MADE.stand_ins)):
        calls = tmp_path / f"calls{number}"
        path = SITE / one.file
        code = f"import ctypes; print(ctypes.CDLL({str(path)!r})[{FUNCTION[one.soname]!r}]())"
        done = python(code, calls)
        assert int(done.stdout) != 0, one.soname
        assert done.stderr.count(SAID) == 1
        assert f"{FUNCTION[one.soname]} of {one.soname}, for {one.used_for}" in done.stderr
        assert calls.read_text() == f"{one.soname} {FUNCTION[one.soname]}\n"


FUNCTION = {
    "libcublas.so.13": "cublasCreate_v2",
    "libcublasLt.so.13": "cublasLtCreate",
    "libcudnn.so.9": "cudnnCreate",
    "libcufft.so.12": "cufftPlan1d",
    "libcufile.so.0": "cuFileDriverOpen",
    "libcupti.so.13": "cuptiSubscribe",
    "libcurand.so.10": "curandCreateGenerator",
    "libcusparse.so.12": "cusparseCreate",
    "libcusparseLt.so.0": "cusparseLtInit",
    "libnccl.so.2": "ncclCommInitAll",
    "libnvrtc.so.13": "nvrtcCreateProgram",
    "libnvshmem_host.so.3": "nvshmemx_hostlib_init_attr",
}


def test_of_nvidias_packages_the_runtime_alone_is_there() -> None:
    names = {
        (one.metadata["Name"] or "").lower().replace("_", "-")
        for one in importlib.metadata.distributions(path=[str(SITE)])
    }
    assert {name for name in names if name.startswith("nvidia-")} == {"nvidia-cuda-runtime"}
    assert {one.soname for one in MADE.stand_ins} == set(FUNCTION)
    ctypes.CDLL(str(next(SITE.glob("nvidia/cu*/lib/libcudart.so.*"))))


def test_no_device_code_is_left() -> None:
    found = audit(str(SITE), read_folder(SITE))
    assert any(one.name.endswith("libtorch_cuda.so") for one in found.libraries)
    assert [one.name for one in found.libraries if one.archs and not is_nvidia_name(Path(one.name).name)] == []
