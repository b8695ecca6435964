"""Makes Python's packages believe that this machine's card is another one: CARDSTOCK_ACTED says which.

images/proof/acting/containers.py mounts it beside a server and puts its folder first on PYTHONPATH, so that every
process of the server imports it at its start. It changes modules when they are imported, and imports none itself:
torch's answers about the device, pynvml's (also vLLM's own copy), Triton's target and the shared memory that it may
use. What compiled libraries ask the driver themselves is not changed: their machine code is this machine's card's, too.

CARDSTOCK_ACTED_SHARED=1: several containers act at once on this card, and each counts what it has itself as used.
CARDSTOCK_ACTED_TOLD: a file that gets a line for each module that was changed. Standard library only.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

VARIABLE, SHARED, TOLD = "CARDSTOCK_ACTED", "CARDSTOCK_ACTED_SHARED", "CARDSTOCK_ACTED_TOLD"
# What a process has on a card beside what torch counts, where it is not measured: its context.
CONTEXT = 512 * 2**20


class Acted(NamedTuple):
    """The card as `ActedCard.to_text` writes it; sizes in bytes."""

    major: int
    minor: int
    memory: int
    sms: int
    block: int
    block_optin: int
    sm: int
    threads: int
    name: str


def read(text: str) -> Acted:
    """Raises ValueError for another form."""
    capability, *numbers, name = text.split(";", 7)
    major, minor = capability.split(".")
    memory, sms, block, block_optin, sm, threads = map(int, numbers)
    return Acted(int(major), int(minor), memory, sms, block, block_optin, sm, threads, name)


class Properties:
    """Another device's properties: what is acted, and of the real ones the rest."""

    def __init__(self, real: Any, acted: Acted) -> None:
        self._real = real
        self._own = {
            "major": acted.major,
            "minor": acted.minor,
            "name": acted.name,
            "total_memory": min(acted.memory, real.total_memory),
            "multi_processor_count": acted.sms,
            "shared_memory_per_block": acted.block,
            "shared_memory_per_block_optin": acted.block_optin,
            "shared_memory_per_multiprocessor": acted.sm,
            "max_threads_per_multi_processor": acted.threads,
        }

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._own[name] if name in self._own else getattr(self._real, name)

    def __repr__(self) -> str:
        return f"Properties({', '.join(f'{name}={value!r}' for name, value in self._own.items())})"


def memory(acted: Acted, free: int, total: int, own: int | None = None) -> tuple[int, int]:
    """Free and total bytes of a card of the acted size on which as much is in use; ``own``: on which this much is."""
    size = min(acted.memory, total)
    used = total - free if own is None else own
    return max(0, min(size - used, free)), size


def act_torch(module: Any, acted: Acted) -> None:
    """torch.cuda: properties, capability, name; torch may allocate no more than the card would have."""
    real = module.get_device_properties

    @functools.wraps(real)
    def get_device_properties(device: Any = None) -> Properties:
        return Properties(real(device), acted)

    @functools.wraps(module.get_device_capability)
    def get_device_capability(device: Any = None) -> tuple[int, int]:
        return acted.major, acted.minor

    @functools.wraps(module.get_device_name)
    def get_device_name(device: Any = None) -> str:
        return acted.name

    def limit() -> None:
        total = real(0).total_memory
        module.set_per_process_memory_fraction(min(1.0, acted.memory / total), 0)

    module.acted_real_properties = real
    module.get_device_properties = get_device_properties
    module.get_device_capability = get_device_capability
    module.get_device_name = get_device_name
    module._lazy_call(limit)


def act_memory(name: str, module: Any, acted: Acted) -> None:
    """torch.cuda.memory.mem_get_info, torch.accelerator.memory.get_memory_info (which not every torch has)."""
    real = getattr(module, name, None)
    if real is None:
        return

    @functools.wraps(real)
    def info(*arguments: Any, **named: Any) -> tuple[int, int]:
        free, total = real(*arguments, **named)
        own = None
        if os.environ.get(SHARED) == "1":
            own = sys.modules["torch"].cuda.memory_reserved() + CONTEXT
        return memory(acted, free, total, own)

    setattr(module, name, info)


def act_nvml(module: Any, acted: Acted) -> None:
    """Pynvml, NVIDIA's and vLLM's copy: as nvml_front.c answers, for where that is not in front of the library."""
    real = module.nvmlDeviceGetMemoryInfo

    def memory_info(*arguments: Any, **named: Any) -> Any:
        info = real(*arguments, **named)
        if info.total > acted.memory:  # else the front has answered
            info.free, info.total = memory(acted, info.free, info.total)
        return info

    module.nvmlDeviceGetName = lambda handle: acted.name
    module.nvmlDeviceGetCudaComputeCapability = lambda handle: (acted.major, acted.minor)
    module.nvmlDeviceGetMemoryInfo = memory_info


def act_triton(module: Any, acted: Acted) -> None:
    """Triton's driver: the target that it compiles for, and the shared memory and SMs that its kernels may have."""
    real_target, real_init = module.CudaDriver.get_current_target, module.CudaUtils.__init__

    def get_current_target(self: Any) -> Any:
        target = real_target(self)
        return type(target)(target.backend, acted.major * 10 + acted.minor, target.warp_size)

    def init(self: Any) -> None:
        real_init(self)
        ask = self.get_device_properties
        own = {"max_shared_mem": acted.block_optin, "multiprocessor_count": acted.sms}
        self.get_device_properties = lambda device: {**ask(device), **own}

    module.CudaDriver.get_current_target = get_current_target
    module.CudaUtils.__init__ = init


TRITONS_DRIVER = "triton.backends.nvidia.driver"


def act_backends(module: Any, acted: Acted) -> None:
    """Triton before 3.3 reads its drivers' files past the import system: theirs is changed once they are found."""
    found = getattr(module, "backends", {}).get("nvidia")
    if found is None or TRITONS_DRIVER in sys.modules:
        return
    names = found.driver.get_current_target.__globals__
    act_triton(SimpleNamespace(CudaDriver=found.driver, CudaUtils=names["CudaUtils"]), acted)
    tell(TRITONS_DRIVER)


def act_marlin(module: Any, acted: Acted) -> None:
    """vLLM's Marlin: its compiled kernel asks the driver for the SMs, and refuses locks that are fewer than those."""

    def real_sms() -> int:
        properties = sys.modules["torch"].cuda.acted_real_properties(0)
        return int(properties.multi_processor_count)

    if hasattr(module, "num_compute_units"):
        module.num_compute_units = lambda device_id=0: real_sms()
    elif hasattr(module, "marlin_make_workspace_new"):

        def workspace(device: Any, max_blocks_per_sm: int = 1) -> Any:
            torch = sys.modules["torch"]
            return torch.zeros(real_sms() * max_blocks_per_sm, dtype=torch.int, device=device, requires_grad=False)

        module.marlin_make_workspace_new = workspace


# cudaDeviceAttr of driver_types.h: shared memory of a block, SMs, capability, shared memory of a SM and by opt-in.
ATTRIBUTES = {8: "block", 75: "major", 76: "minor", 81: "sm", 97: "block_optin"}


def act_ops(module: Any, acted: Acted) -> None:
    """vLLM's own question for a device's attributes."""
    if hasattr(module, "get_max_shared_memory_per_block_device_attribute"):
        module.get_max_shared_memory_per_block_device_attribute = lambda device: acted.block_optin
    if hasattr(module, "get_device_attribute"):
        real = module.get_device_attribute
        module.get_device_attribute = lambda attribute, device: (
            getattr(acted, ATTRIBUTES[attribute]) if attribute in ATTRIBUTES else real(attribute, device)
        )


CHANGES: dict[str, Callable[[Any, Acted], None]] = {
    "torch.cuda": act_torch,
    "torch.cuda.memory": functools.partial(act_memory, "mem_get_info"),
    "torch.accelerator.memory": functools.partial(act_memory, "get_memory_info"),
    "pynvml": act_nvml,
    "vllm.third_party.pynvml": act_nvml,
    "triton.backends": act_backends,
    TRITONS_DRIVER: act_triton,
    "vllm.model_executor.layers.quantization.utils.marlin_utils": act_marlin,
    "vllm._custom_ops": act_ops,
}


def tell(name: str) -> None:
    """Note that a module was changed, in one write: many processes share the file."""
    place = os.environ.get(TOLD)
    if place:
        file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, f"{os.getpid()} {name}\n".encode())
        finally:
            os.close(file)


class Finder(MetaPathFinder):
    """Finds what others find, and changes the modules of CHANGES once they are loaded."""

    def __init__(self, acted: Acted) -> None:
        self.acted = acted

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of CHANGES; None for any other."""
        if fullname not in CHANGES:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find and finder is not self else None
            if spec is not None and spec.loader is not None:
                self._change_when_loaded(spec.loader, fullname)
                found: ModuleSpec = spec
                return found
        return None

    def _change_when_loaded(self, loader: Any, name: str) -> None:
        real = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            real(module)
            CHANGES[name](module, self.acted)
            tell(name)

        loader.exec_module = exec_module


if os.environ.get(VARIABLE):
    sys.meta_path.insert(0, Finder(read(os.environ[VARIABLE])))
