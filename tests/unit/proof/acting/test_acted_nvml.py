"""The library in front of NVML, compiled by this machine's gcc before a stand-in of the driver's: what it changes, and
that the rest is the real one's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from images.core import process
from images.proof.acting.cards import acted_card
from images.proof.acting.prepare import BEHIND, NVML, compile_front
from tests.helpers.compiled import compiled, needs_gcc
from tests.helpers.matrices import ROOT

ANSWERS = "driver 580.95.05\ncuda 13000\ncard 0 9.0 GPU-1-2 NVIDIA H100 80GB HBM3\ncard 15 9.0 GPU-3-4 lost\n"
# Of the real library what the stand-in for preflight has not: the card's memory, 3 GiB of 80 in use.
MEMORY = """
struct m { unsigned long long total, free, used; };
struct m2 { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo(void *card, struct m *out)
{ *out = (struct m){80ull << 30, 77ull << 30, 3ull << 30}; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *card, struct m2 *out)
{ out->total = 80ull << 30; out->free = 77ull << 30; out->reserved = 1ull << 30; out->used = 2ull << 30; return 0; }
"""
ASK = """
import ctypes, json, sys
sys.path.insert(0, sys.argv[1])
from nvml import read_machine
library = ctypes.CDLL("libnvidia-ml.so.1")
machine = read_machine()
class M(ctypes.Structure):
    _fields_ = [(n, ctypes.c_ulonglong) for n in ("total", "free", "used")]
class M2(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint)] + [(n, ctypes.c_ulonglong) for n in ("total", "reserved", "free", "used")]
one, two, short = M(), M2(), ctypes.create_string_buffer(4)
handle = ctypes.c_void_p()
library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
codes = [library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(one)),
         library.nvmlDeviceGetMemoryInfo_v2(handle, ctypes.byref(two)), library.nvmlDeviceGetName(handle, short, 4)]
card = machine.cards[0]
print(json.dumps({"driver": machine.driver, "cuda": machine.cuda, "name": card.name, "uuid": card.uuid,
    "unsure": machine.unsure, "capability": card.capability, "codes": codes, "memory": [one.total, one.free, one.used],
    "v2": [two.total, two.free, two.used], "cards": len(machine.cards)}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    needs_gcc()
    stand_in = (ROOT / "tests/engine/stand_in_nvml.c").read_text()
    compiled(tmp_path / BEHIND, stand_in + MEMORY, soname=NVML)  # the driver's own soname, as it is
    compile_front(tmp_path)
    (tmp_path / "answers").write_text(ANSWERS)
    return tmp_path


def ask(folder: Path, **more: str) -> dict[str, object]:
    env = {"LD_LIBRARY_PATH": str(folder), "NVML_ANSWERS": str(folder / "answers"), **more}
    rootfs = ROOT / "dockerfiles/rootfs/opt/cardstock"
    done = process.run([sys.executable, "-S", "-E", "-c", ASK, str(rootfs)], env=env, timeout=60)
    told: dict[str, object] = json.loads(done.out)
    return told


def test_preflights_reader_sees_the_acted_card_and_all_else_of_the_real_one(folder: Path) -> None:
    told = ask(folder, CARDSTOCK_ACTED=acted_card("T4").to_text())
    assert (told["name"], told["capability"]) == ("Tesla T4", [7, 5])
    assert (told["driver"], told["cuda"], told["uuid"]) == ("580.95.05", [13, 0], "GPU-1-2")
    assert told["cards"] == 1  # the lost one stays lost
    assert "NVML error 15" in str(told["unsure"])


def test_memory_is_the_acted_cards_less_what_is_in_use(folder: Path) -> None:
    card = acted_card("T4")
    told = ask(folder, CARDSTOCK_ACTED=card.to_text())
    assert told["memory"] == [card.memory, card.memory - (3 << 30), 3 << 30]
    assert told["v2"] == [card.memory, card.memory - (3 << 30), 2 << 30]
    assert told["codes"] == [0, 0, 7]  # a name that does not fit is refused as NVML refuses it


def test_without_the_variable_every_answer_is_the_real_ones(folder: Path) -> None:
    told = ask(folder)
    assert (told["name"], told["capability"]) == ("NVIDIA H100 80GB HBM3", [9, 0])
    assert told["memory"] == [80 << 30, 77 << 30, 3 << 30]


def test_a_variable_that_cannot_be_read_changes_nothing(folder: Path) -> None:
    assert ask(folder, CARDSTOCK_ACTED="Tesla T4")["capability"] == [9, 0]
