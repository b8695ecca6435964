"""Recorded answers of NVML as a library that gives them: what preflight loads instead of libnvidia-ml.so.1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parents[1] / "recorded" / "nvml"
TOO_SHORT, NOT_SUPPORTED = 7, 3


@dataclass(frozen=True)
class RecordedCard:
    code: int
    capability: tuple[int, int]
    uuid: str
    name: str


class Library:
    """The functions that preflight calls, with C's way of giving back: into what a reference points to."""

    def __init__(self, text: str) -> None:
        self.init, self.driver, self.cuda = 0, "", 0
        self.cards: list[RecordedCard] = []
        self.mode: dict[int, int] = {}
        self.fabric: dict[int, int] = {}
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "card":
                code, capability, uuid, name = value.split(" ", 3)
                major, minor = capability.split(".")
                self.cards.append(RecordedCard(int(code), (int(major), int(minor)), uuid, name))
            elif key in ("mode", "fabric"):
                at, state = map(int, value.split())
                getattr(self, key)[at] = state
            elif key == "driver":
                self.driver = value
            else:
                setattr(self, {"init": "init", "cuda": "cuda"}[key], int(value))

    def nvmlInitWithFlags(self, flags: Any) -> int:
        assert flags.value == 1
        return self.init

    def nvmlSystemGetDriverVersion(self, buffer: Any, size: Any) -> int:
        return _put(self.driver, buffer, size)

    def nvmlSystemGetCudaDriverVersion(self, number: Any) -> int:
        number._obj.value = self.cuda
        return 0 if self.cuda else NOT_SUPPORTED

    def nvmlDeviceGetCount_v2(self, number: Any) -> int:
        number._obj.value = len(self.cards)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1  # a handle is no null pointer
        return int(self.cards[index.value].code)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:
        major._obj.value, minor._obj.value = self.cards[handle.value - 1].capability
        return 0

    def nvmlDeviceGetComputeMode(self, handle: Any, mode: Any) -> int:
        mode._obj.value = self.mode.get(handle.value - 1, 0)
        return 0

    def nvmlDeviceGetGpuFabricInfo(self, handle: Any, info: Any) -> int:
        info._obj.state = self.fabric.get(handle.value - 1, 0)
        return 0

    def nvmlDeviceGetName(self, handle: Any, buffer: Any, size: Any) -> int:
        return _put(self.cards[handle.value - 1].name, buffer, size)

    def nvmlDeviceGetUUID(self, handle: Any, buffer: Any, size: Any) -> int:
        return _put(self.cards[handle.value - 1].uuid, buffer, size)


def _put(text: str, buffer: Any, size: Any) -> int:
    if len(text) >= size.value:
        return TOO_SHORT
    buffer.value = text.encode()
    return 0 if text else NOT_SUPPORTED


def recorded(name: str) -> Library:
    """The library of tests/recorded/nvml/NAME.txt."""
    return Library((RECORDED / f"{name}.txt").read_text(encoding="utf-8"))
