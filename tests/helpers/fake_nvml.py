"""A stand-in for the module pynvml: the cards of a machine as NVML tells them, lost ones too."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml


class FakeNvml:
    """As pynvml answers on a machine with these cards; one with "lost" answers with that error alone.

    ``fails`` maps a function's name to the error it gives.
    """

    NVMLError = pynvml.NVMLError

    def __init__(self, *cards: dict[str, Any], fails: dict[str, int] | None = None) -> None:
        self._cards = cards
        self._fails = fails or {}
        self.ended = False
        self.driver = "535.104.05"

    def __getattribute__(self, name: str) -> Any:
        return (
            self._failing(name) if name.startswith("nvml") and name in self._fails else super().__getattribute__(name)
        )

    def _failing(self, name: str) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise pynvml.NVMLError(self._fails[name])

        return fail

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        self.ended = True

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12020

    def nvmlDeviceGetCount(self) -> int:
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        if code := self._cards[index].get("lost"):
            raise pynvml.NVMLError(code)
        return self._cards[index]

    def nvmlDeviceGetName(self, card: dict[str, Any]) -> str | bytes:
        name: str | bytes = card["name"]
        return name

    def nvmlDeviceGetUUID(self, card: dict[str, Any]) -> str:
        return str(card.get("uuid") or f"GPU-{card['name']}")

    def nvmlDeviceGetCudaComputeCapability(self, card: dict[str, Any]) -> tuple[int, int]:
        major, minor = card["arch"]
        return major, minor

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, Any]) -> SimpleNamespace:
        if "memory" not in card:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=card["memory"])

    def nvmlDeviceGetMigMode(self, card: dict[str, Any]) -> tuple[int, int]:
        if "mig" not in card:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return card["mig"], card["mig"]

    def nvmlDeviceGetMaxMigDeviceCount(self, card: dict[str, Any]) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: dict[str, Any], index: int) -> dict[str, Any]:
        if index >= len(card["slices"]):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        part: dict[str, Any] = card["slices"][index]
        return part

    def nvmlDeviceGetPciInfo(self, card: dict[str, Any]) -> SimpleNamespace:
        return SimpleNamespace(busId=card.get("address", "00000000:01:00.0").encode())

    def nvmlDeviceGetComputeMode(self, card: dict[str, Any]) -> int:
        return int(card.get("mode", 0))

    def c_nvmlGpuFabricInfo_t(self) -> Any:
        return pynvml.c_nvmlGpuFabricInfo_t()

    def nvmlDeviceGetGpuFabricInfo(self, card: dict[str, Any], info: Any) -> None:
        if "fabric" not in card:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        info._obj.state, info._obj.status = card["fabric"]
