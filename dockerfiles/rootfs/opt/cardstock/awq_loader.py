"""Load a Qwen-VL, AWQ-quantised or not, with torch and transformers alone: no compiler, no kernel package.

AWQ "gemm" weights stay packed in memory and are unpacked at each use (`AwqLinear`), or once while loading
(``dequantise``). Works across transformers 4.49 to 5.x, whose module names differ, for one file or many shards.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from checkpoint_files import (  # type: ignore[import-not-found,unused-ignore]
    NAMES_SHOWN,
    LoadError,
    refuse_code,
    shards,
)
from torch import nn

# Nibble n of a word holds column ORDER[n] of its eight.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
QUANTISED = ("qweight", "qzeros", "scales")


def unpack(words: torch.Tensor) -> torch.Tensor:
    """Packed int32 [rows, words] to 4-bit values, int8 [rows, words * 8]."""
    rows, columns = words.shape
    out = torch.empty((rows, columns, 8), dtype=torch.int8, device=words.device)
    for nibble, column in enumerate(ORDER):
        out[:, :, column] = (words >> (4 * nibble)) & 15
    return out.view(rows, columns * 8)


def _scaled(values: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """int8 values [groups, group, out] times ``scales`` [groups, out], as [in, out]; worked in the scales' precision
    or better, so that only the last step rounds."""
    working = torch.float32 if dtype == torch.float32 else scales.dtype
    return (values * scales.to(working).unsqueeze(1)).view(-1, scales.shape[1]).to(dtype)


def dequantise(qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights [in, out] in ``dtype``: (q - zero) * scale.

    ``qweight`` int32 [in, out / 8], ``qzeros`` int32 [groups, out / 8], ``scales`` [groups, out].
    """
    groups, columns = scales.shape
    return _scaled(unpack(qweight).view(groups, -1, columns) - unpack(qzeros).unsqueeze(1), scales, dtype)


class AwqLinear(nn.Module):  # type: ignore[misc,unused-ignore]
    """A linear whose weights stay 4-bit in memory; each forward unpacks them, so it costs time instead of memory.

    The nibbles are kept in an order of their own: byte j of a row holds columns j and j + out / 2, so that unpacking
    reads and writes runs of memory. AWQ's own order would scatter single weights.
    """

    packed: torch.Tensor
    zeros: torch.Tensor
    scales: torch.Tensor

    def __init__(self, qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = qweight.shape[0], scales.shape[1]
        low, high = unpack(qweight).view(torch.uint8).chunk(2, dim=1)
        self.register_buffer("packed", low | (high << 4))
        self.register_buffer("zeros", unpack(qzeros))
        self.register_buffer("scales", scales)
        self.register_parameter("bias", None)

    def weight_in(self, dtype: torch.dtype) -> torch.Tensor:
        """The weights [in, out] in ``dtype``."""
        groups, columns = self.scales.shape
        values = torch.empty((groups, self.in_features // groups, columns), dtype=torch.int8, device=self.packed.device)
        halves = (self.packed & 15, self.packed >> 4)
        for half, out, zero in zip(halves, values.chunk(2, dim=2), self.zeros.chunk(2, dim=1), strict=True):
            torch.sub(half.view(torch.int8).view(out.shape), zero.unsqueeze(1), out=out)
        return _scaled(values, self.scales, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight_in(x.dtype).t(), self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules made inside have parameters without storage, and real buffers (rotary tables are made, not loaded)."""
    register: Callable[..., None] = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.data.to("meta"), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = on_meta  # type: ignore[assignment,method-assign,unused-ignore]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign,unused-ignore]


def tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the checkpoint, one at a time, on the CPU."""
    from safetensors import safe_open

    for path in shards(folder):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                yield name, file.get_tensor(name)


def renamer(model: nn.Module) -> Callable[[str], str]:
    """A function from any of the checkpoint's spellings of a tensor's name to this model's own.

    Checkpoints say ``model.layers.0``, ``visual.blocks.0`` (the published ones) or ``model.language_model.layers.0``,
    ``model.visual.blocks.0`` (saved by transformers 4.52 and later); models changed the same way in 4.52.
    """
    new = any(name == "model.language_model" for name, _ in model.named_modules())
    text, vision = ("model.language_model.", "model.visual.") if new else ("model.", "visual.")

    def rename(name: str) -> str:
        for old in ("model.visual.", "visual."):
            if name.startswith(old):
                return vision + name.removeprefix(old)
        for old in ("model.language_model.", "language_model.model.", "model."):
            if name.startswith(old):
                return text + name.removeprefix(old)
        return name.removeprefix("language_model.")

    return rename


def vision_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """float32 for float16 on a card below 8.0: the 3B vision tower overflows float16, and bfloat16 is not there."""
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float32 if old and dtype == torch.float16 else dtype


def _is_vision(name: str) -> bool:
    return name.startswith(("visual.", "model.visual."))


def _config(folder: Path) -> tuple[Any, bool]:
    """The model's config without its quantisation, and whether it is AWQ. Raises LoadError for another kind."""
    from transformers import AutoConfig

    refuse_code(json.loads((folder / "config.json").read_text()), folder)
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    found = getattr(config, "quantization_config", None)
    if found is None:
        return config, False
    quant = found if isinstance(found, dict) else found.to_dict()
    kind = (quant.get("quant_method"), quant.get("bits"), str(quant.get("version", "gemm")).lower())
    if kind != ("awq", 4, "gemm"):
        raise LoadError(f"only AWQ of 4 bits in the gemm layout can be read, {folder} has {kind}")
    del config.quantization_config
    return config, True


def _skeleton(config: Any, attention: str) -> nn.Module:
    from transformers import AutoModelForImageTextToText

    with parameters_on_meta():
        model = AutoModelForImageTextToText.from_config(config, attn_implementation=attention, trust_remote_code=False)
    return model.eval()  # type: ignore[no-any-return,unused-ignore]


def placement(model: nn.Module, devices: Sequence[torch.device]) -> Callable[[str], torch.device]:
    """Where each tensor goes: decoder layers in equal runs over ``devices``, the rest on the first or the last."""
    layers = sum(1 for name, _ in model.named_modules() if name.endswith(".input_layernorm"))
    run = math.ceil(layers / len(devices))

    def place(name: str) -> torch.device:
        parts = name.split(".")
        if not _is_vision(name) and "layers" in parts:
            index = int(parts[parts.index("layers") + 1]) // run
            return devices[min(index, len(devices) - 1)]  # a layer too many is told of later, by name
        if name.startswith("lm_head") or (not _is_vision(name) and name.split(".")[-2:-1] == ["norm"]):
            return devices[-1]
        return devices[0]

    return place


class _Filler:
    """Puts tensors into a model of parameters without storage, and keeps count of what came."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, vision: torch.dtype, keep_packed: bool) -> None:
        self.model, self.dtype, self.vision, self.keep_packed = model, dtype, vision, keep_packed
        self.rename = renamer(model)
        self.wanted = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
        self.unexpected: list[str] = []
        self.pending: dict[str, dict[str, torch.Tensor]] = {}

    def take(self, raw: str, tensor: torch.Tensor, place: Callable[[str], torch.device]) -> None:
        name = self.rename(raw)
        path, _, leaf = name.rpartition(".")
        device = place(name)
        if leaf in QUANTISED:
            parts = self.pending.setdefault(path, {})
            parts[leaf] = tensor.to(device)
            if len(parts) == len(QUANTISED):
                self._quantised(raw, path, self.pending.pop(path))
        elif name in self.wanted:
            dtype = self.vision if _is_vision(name) else self.dtype
            self._set(raw, name, tensor.to(device, dtype))
        elif not leaf.endswith("inv_freq"):  # tables that old checkpoints carry and models make for themselves
            self.unexpected.append(raw)

    def _set(self, raw: str, name: str, tensor: torch.Tensor) -> None:
        if tensor.shape != self.wanted[name]:
            raise LoadError(f"{raw} has shape {list(tensor.shape)}, the model wants {list(self.wanted[name])}")
        del self.wanted[name]
        path, _, leaf = name.rpartition(".")
        self.model.get_submodule(path)._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)

    def _quantised(self, raw: str, path: str, parts: dict[str, torch.Tensor]) -> None:
        if f"{path}.weight" not in self.wanted:
            self.unexpected.append(raw)
            return
        if not self.keep_packed:
            weight = dequantise(parts["qweight"], parts["qzeros"], parts["scales"], self.dtype)
            self._set(raw, f"{path}.weight", weight.t().contiguous())
            return
        outputs, inputs = self.wanted.pop(f"{path}.weight")
        if (parts["qweight"].shape[0], parts["scales"].shape[1]) != (inputs, outputs):
            raise LoadError(f"{raw} is for {tuple(parts['qweight'].shape)}, the model wants {inputs} x {outputs}")
        old = self.model.get_submodule(path)
        linear = AwqLinear(**parts)
        linear.bias = old.bias  # filled already, or still to come under the same name
        parent, _, leaf = path.rpartition(".")
        setattr(self.model.get_submodule(parent), leaf, linear)

    def finish(self, folder: Path) -> None:
        missing = [*self.wanted, *(f"{path} (only {', '.join(parts)})" for path, parts in self.pending.items())]
        for label, names in (("lacks", missing), ("has unexpected", self.unexpected)):
            if names:
                more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
                raise LoadError(f"{folder} {label} {len(names)} tensors: {', '.join(names[:NAMES_SHOWN])}{more}")


def _tie(model: nn.Module, filler: _Filler) -> None:
    """Tied embeddings: the head is the embedding table, whether or not the checkpoint repeats it."""
    embed = model.get_input_embeddings().weight  # type: ignore[operator,unused-ignore]
    model.lm_head.weight = embed  # type: ignore[union-attr,unused-ignore]
    filler.wanted.pop("lm_head.weight", None)


def device_map(model: nn.Module, place: Callable[[str], torch.device]) -> dict[str, torch.device]:
    """Device of each decoder layer, as a whole (its inputs travel together), and of each leaf outside of them."""
    layers = [name.removesuffix(".input_layernorm") for name, _ in model.named_modules() if "input_layernorm" in name]
    leaves = [
        name
        for name, module in model.named_modules()
        if name and not any(module.children()) and not name.startswith(tuple(f"{layer}." for layer in layers))
    ]
    return {name: place(f"{name}.weight") for name in [*layers, *leaves]}


def _spread(model: nn.Module, devices: Sequence[torch.device], place: Callable[[str], torch.device]) -> None:
    """Put the made buffers where their module's tensors went; over several devices, let accelerate carry inputs."""
    if len(devices) == 1:
        model.to(devices[0])
        return
    from accelerate import dispatch_model

    dispatch_model(model, device_map(model, place), main_device=devices[0])


def leave_cudnn() -> None:
    """Compute convolutions and attention without cuDNN, which some images have a stand-in for: torch has its own."""
    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    attention: str = "sdpa",
    devices: Sequence[str] = ("cpu",),
    dequantised: bool = False,
    vision: torch.dtype | None = None,
) -> Any:
    """The model in ``folder``, ready to generate.

    ``dtype`` is that of text weights and activations; ``vision`` that of the vision tower (None: see
    `vision_dtype`). Several ``devices`` share the decoder layers, in order. ``dequantised`` turns AWQ weights into
    plain ones while loading. Raises LoadError (missing, unexpected or misshapen tensors, another quantisation).
    """
    from transformers import GenerationConfig

    if os.environ.get("CARDSTOCK_CUDNN") == "0":
        leave_cudnn()
    places = [torch.device(name) for name in devices]
    config, awq = _config(folder)
    model = _skeleton(config, attention)
    place = placement(model, places)
    filler = _Filler(model, dtype, vision or vision_dtype(dtype, places[0]), awq and not dequantised)
    with torch.no_grad():
        for name, tensor in tensors(folder):
            filler.take(name, tensor, place)
        if getattr(config, "tie_word_embeddings", False):
            _tie(model, filler)
        filler.finish(folder)
        _spread(model, places, place)
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(str(folder))
    return model
