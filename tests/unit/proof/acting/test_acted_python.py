"""What is mounted beside an acted server: modules that are changed once they are imported, and Triton's ptxas."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from images.core import process
from images.proof.acting import cards
from images.proof.acting.cards import CARDS, MIB, acted_card

FOLDER = Path(cards.__file__).with_name("acted")
GIB = 2**30
H100 = SimpleNamespace(
    major=9, minor=0, name="NVIDIA H100", total_memory=80 * GIB, multi_processor_count=132, warp_size=32
)


def _load(name: str, file: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name, str(FOLDER / file))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site() -> Any:
    """sitecustomize.py, which does nothing where no card is to be acted."""
    before = list(sys.meta_path)
    assert "CARDSTOCK_ACTED" not in os.environ
    module = _load("acted_sitecustomize", "sitecustomize.py")
    assert sys.meta_path == before
    return module


@pytest.fixture(scope="module")
def ptxas() -> Any:
    return _load("acted_ptxas", "ptxas")


class Torch:
    """As much of torch.cuda as is changed, on an H100 of which 3 GiB are in use."""

    def __init__(self) -> None:
        self.lazy: list[Any] = []
        self.fractions: list[tuple[float, int]] = []

    def get_device_properties(self, device: Any = None) -> Any:
        return H100

    def get_device_capability(self, device: Any = None) -> tuple[int, int]:
        return 9, 0

    def get_device_name(self, device: Any = None) -> str:
        return str(H100.name)

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return 77 * GIB, 80 * GIB

    def _lazy_call(self, call: Any) -> None:
        self.lazy.append(call)

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        self.fractions.append((fraction, device))


def test_a_card_is_read_back_as_it_was_written(site: Any) -> None:
    for card in CARDS:
        read = site.read(card.to_text())
        assert (f"{read.major}.{read.minor}", read.memory, read.sms) == (card.capability, card.memory, card.sms)
        assert (read.name, read.block_optin, read.threads) == (card.name, card.limits.block_optin, card.limits.threads)
    with pytest.raises(ValueError, match="unpack"):
        site.read("7.5;1;Tesla T4")


def test_torch_tells_of_the_acted_card_and_allocates_no_more_than_it_has(site: Any) -> None:
    cuda, card = Torch(), acted_card("T4")
    site.act_torch(cuda, site.read(card.to_text()))
    seen = cuda.get_device_properties(0)
    assert (seen.major, seen.minor, seen.name, seen.multi_processor_count) == (7, 5, "Tesla T4", 40)
    assert (seen.total_memory, seen.shared_memory_per_block_optin) == (card.memory, 64 * 1024)
    assert seen.warp_size == 32  # the rest is the real card's
    assert (cuda.get_device_capability(), cuda.get_device_name()) == ((7, 5), "Tesla T4")
    assert not hasattr(seen, "_nothing")
    (limit,) = cuda.lazy
    limit()  # as torch calls it when CUDA is begun
    assert cuda.fractions == [(card.memory / H100.total_memory, 0)]


def test_memory_is_what_the_acted_card_would_have_left(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, card = Torch(), acted_card("T4")
    site.act_memory("mem_get_info", cuda, site.read(card.to_text()))
    assert cuda.mem_get_info() == (card.memory - 3 * GIB, card.memory)
    site.act_memory("get_memory_info", cuda, site.read(card.to_text()))  # an older torch has none
    assert not hasattr(cuda, "get_memory_info")
    # Others are acted on the same card: what counts is what this process has.
    monkeypatch.setenv("CARDSTOCK_ACTED_SHARED", "1")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(memory_reserved=lambda: GIB)))
    assert cuda.mem_get_info() == (card.memory - GIB - site.CONTEXT, card.memory)


@pytest.mark.parametrize(
    ("free", "total", "own", "wanted"),
    [
        (70 * GIB, 80 * GIB, None, (6 * GIB, 16 * GIB)),
        (10 * GIB, 80 * GIB, None, (0, 16 * GIB)),  # more is in use than the acted card has
        (2 * GIB, 80 * GIB, GIB, (2 * GIB, 16 * GIB)),  # no more than the real one has left
        (7 * GIB, 8 * GIB, None, (7 * GIB, 8 * GIB)),  # a real card that is smaller
    ],
)
def test_sums_of_memory(site: Any, free: int, total: int, own: int | None, wanted: tuple[int, int]) -> None:
    acted = site.read(acted_card("T4").to_text())._replace(memory=16 * GIB)
    assert site.memory(acted, free, total, own) == wanted


def test_nvml_in_python_tells_of_the_acted_card(site: Any) -> None:
    card = acted_card("L4")
    nvml = SimpleNamespace(
        nvmlDeviceGetName=lambda handle: "NVIDIA H100",
        nvmlDeviceGetCudaComputeCapability=lambda handle: (9, 0),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=80 * GIB, free=77 * GIB, used=3 * GIB),
    )
    site.act_nvml(nvml, site.read(card.to_text()))
    assert (nvml.nvmlDeviceGetName(0), nvml.nvmlDeviceGetCudaComputeCapability(0)) == ("NVIDIA L4", (8, 9))
    info = nvml.nvmlDeviceGetMemoryInfo(0)
    assert (info.total, info.free) == (card.memory, card.memory - 3 * GIB)


@dataclass(frozen=True)
class Target:
    backend: str
    arch: int
    warp_size: int


def test_triton_compiles_for_the_acted_card_within_its_shared_memory(site: Any) -> None:
    class CudaUtils:
        def __init__(self) -> None:
            self.get_device_properties = lambda device: {"max_shared_mem": 232448, "multiprocessor_count": 132, "x": 1}

    class CudaDriver:
        def get_current_target(self) -> Target:
            return Target("cuda", 90, 32)

    module = SimpleNamespace(CudaUtils=CudaUtils, CudaDriver=CudaDriver)
    site.act_triton(module, site.read(acted_card("2080 Ti").to_text()))
    assert CudaDriver().get_current_target() == Target("cuda", 75, 32)
    utils: Any = CudaUtils()
    properties = utils.get_device_properties(0)
    assert properties == {"max_shared_mem": 64 * 1024, "multiprocessor_count": 68, "x": 1}


def test_an_older_triton_reads_its_driver_past_the_import_system(
    site: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = """
class CudaUtils:
    def __init__(self): self.get_device_properties = lambda device: {"max_shared_mem": 232448}
class CudaDriver:
    def get_current_target(self): return Target("cuda", 90, 32)
"""
    (tmp_path / "driver.py").write_text(source)
    driver = _load("driver_of_an_older_triton", str(tmp_path / "driver.py"))
    names = vars(driver)
    names["Target"] = Target
    module = SimpleNamespace(backends={"nvidia": SimpleNamespace(driver=names["CudaDriver"])})
    acted = site.read(acted_card("V100").to_text())
    monkeypatch.setitem(sys.modules, site.TRITONS_DRIVER, ModuleType("as in newer versions"))
    site.act_backends(module, acted)
    assert names["CudaDriver"]().get_current_target().arch == 90
    monkeypatch.delitem(sys.modules, site.TRITONS_DRIVER)
    site.act_backends(module, acted)
    assert names["CudaDriver"]().get_current_target().arch == 70
    assert names["CudaUtils"]().get_device_properties(0)["max_shared_mem"] == 96 * 1024
    site.act_backends(SimpleNamespace(backends={}), acted)


def test_marlins_locks_are_as_many_as_the_real_card_has_sms(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel asks the driver, and refuses fewer."""
    acted = site.read(acted_card("T4").to_text())
    cuda = SimpleNamespace(acted_real_properties=lambda device: H100)
    torch = SimpleNamespace(cuda=cuda, int="int", zeros=lambda size, **named: (size, named["device"]))
    monkeypatch.setitem(sys.modules, "torch", torch)
    newer: Any = SimpleNamespace(num_compute_units=lambda device_id=0: 40)
    site.act_marlin(newer, acted)
    assert newer.num_compute_units() == 132
    older: Any = SimpleNamespace(marlin_make_workspace_new=lambda device, blocks=1: None)
    site.act_marlin(older, acted)
    assert older.marlin_make_workspace_new("cuda:0", 4) == (528, "cuda:0")
    oldest = SimpleNamespace()
    site.act_marlin(oldest, acted)
    assert vars(oldest) == {}


def test_vllms_own_questions_for_attributes(site: Any) -> None:
    ops = SimpleNamespace(
        get_max_shared_memory_per_block_device_attribute=lambda device: 232448,
        get_device_attribute=lambda attribute, device: 1000 + attribute,
    )
    site.act_ops(ops, site.read(acted_card("3090").to_text()))
    assert ops.get_max_shared_memory_per_block_device_attribute(0) == 99 * 1024
    assert [ops.get_device_attribute(number, 0) for number in (75, 76, 97, 10)] == [8, 6, 99 * 1024, 1010]


PACKAGES = {
    "torch/__init__.py": "import torch.cuda as cuda\n",
    "torch/cuda/__init__.py": "from types import SimpleNamespace\n"
    "from torch.cuda.memory import mem_get_info\n"
    "def get_device_properties(device=None): return SimpleNamespace(major=9, minor=0, total_memory=2**40)\n"
    "def get_device_capability(device=None): return (9, 0)\n"
    "def get_device_name(device=None): return 'H100'\n"
    "def _lazy_call(call): pass\n",
    "torch/cuda/memory.py": "def mem_get_info(device=None): return (2**40, 2**40)\n",
    "vllm/__init__.py": "",
    "vllm/third_party/__init__.py": "",
    "vllm/third_party/pynvml.py": "def nvmlDeviceGetName(h): return 'H100'\n"
    "def nvmlDeviceGetMemoryInfo(h): return None\n",
}
PROGRAM = """
import json, multiprocessing as m, sys
import torch, vllm.third_party.pynvml as nvml
def ask(_): import torch; return torch.cuda.get_device_capability()
if __name__ == "__main__":
    with m.get_context("spawn").Pool(1) as pool:
        child = pool.map(ask, [0])[0]
    print(json.dumps([torch.cuda.get_device_capability(), torch.cuda.mem_get_info()[1], nvml.nvmlDeviceGetName(0),
        child, torch.cuda.__spec__.name]))
"""


def test_every_process_is_acted_from_its_start(tmp_path: Path) -> None:
    """As Python itself does it: by sitecustomize on PYTHONPATH, also in processes that are spawned."""
    for name, text in PACKAGES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "program.py").write_text(PROGRAM)
    card, told = acted_card("T4"), tmp_path / "told"
    env = {
        "PYTHONPATH": f"{FOLDER}:{tmp_path}",
        "CARDSTOCK_ACTED": card.to_text(),
        "CARDSTOCK_ACTED_TOLD": str(told),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = process.run([sys.executable, str(tmp_path / "program.py")], env=env, timeout=60)
    assert json.loads(done.out) == [[7, 5], card.memory, "Tesla T4", [7, 5], "torch.cuda"]
    lines = [line.split(" ", 1) for line in told.read_text().splitlines()]
    assert {name for _, name in lines} == {"torch.cuda", "torch.cuda.memory", "vllm.third_party.pynvml"}
    assert len({pid for pid, _ in lines}) == 2


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("--gpu-name=sm_75", "--gpu-name=sm_90"),
        ("-arch=sm_75", "-arch=sm_90"),
        ("--gpu-name=sm_80", "--gpu-name=sm_80"),
        ("--version", "--version"),
        ("/tmp/sm_75.ptx", "/tmp/sm_75.ptx"),
    ],
)
def test_ptxas_is_asked_for_the_real_cards_code(ptxas: Any, word: str, wanted: str) -> None:
    assert ptxas.rewritten(["-v", word], "75", "90") == ["-v", wanted]


def test_the_wrapper_becomes_ptxas(tmp_path: Path) -> None:
    real = tmp_path / "ptxas"
    real.write_text('#!/bin/sh\necho "$@"\n')
    real.chmod(0o755)
    env = {"CARDSTOCK_PTXAS": str(real), "CARDSTOCK_ACTED_TARGETS": "75 90"}
    words = [sys.executable, "-IS", str(FOLDER / "ptxas"), "-v", "--gpu-name=sm_75", "in.ptx", "-o", "out"]
    assert process.run(words, env=env, timeout=30).out.split() == ["-v", "--gpu-name=sm_90", "in.ptx", "-o", "out"]


def test_memory_is_told_in_bytes() -> None:
    assert acted_card("T4").memory == 15095 * MIB
