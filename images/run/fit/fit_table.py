"""A fit as it is shown: lines for people, JSON for scripts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from images.run.fit.choose import Fit
from images.run.fit.settings import environment, pixel_limits, server_flags, setting_choices, shm_gigabytes, unverified
from images.run.fit.usable_memory import GIB


def fit_lines(fit: Fit) -> list[str]:
    """For people: the model and the cards, each choice with its reason and source, the memory of the fullest card."""
    ask, total = fit.ask, fit.sum
    out = [f"{ask.model.name} on {ask.cards}: {ask.variant.id}"]
    out += [f"  unverified: {what}" for what in unverified(fit)]
    out += [f"  {one.name}: {one.value}. {one.why} [{one.source}]" for one in setting_choices(fit)]
    out.append("memory of a card" if fit.split.pp == 1 else f"memory of the fullest card, stage {total.stage + 1}")
    out += [f"  {line.bytes / GIB:7.2f} GiB  {line.name}: {line.why}" for line in total.lines]
    out.append(f"  {total.used / GIB:7.2f} GiB  together, of {total.usable / GIB:.2f} GiB that a program can have")
    if fit.backend.vllm:
        out.append(f"  {total.loaded / GIB:7.2f} GiB  of it once the model is loaded, as vLLM logs it")
    return out


def fit_json(fit: Fit, lines: Sequence[str]) -> dict[str, Any]:
    """For scripts."""
    ask, load, split, total = fit.ask, fit.load, fit.split, fit.sum
    least, most = pixel_limits(fit)
    return {
        "model": ask.model.name,
        "unverified": unverified(fit),
        "card": ask.card,
        "cards": [{"name": card.name, "arch": card.arch.capability, "memory_gb": card.memory} for card in ask.on.cards],
        "devices": list(ask.on.devices),
        "arch": ask.arch.capability,
        "count": ask.count,
        "nodes": ask.nodes,
        "variant": ask.variant.id,
        "engine": fit.backend.name,  # as scripts know it
        "dtype": fit.backend.dtype,
        "kernel": fit.backend.kernel,
        "tensor_parallel_size": split.tp,
        "pipeline_parallel_size": split.pp,
        "max_model_len": load.length,
        "max_num_seqs": load.seqs,
        "images": load.images,
        "video": load.video,
        "image_tokens": load.image_tokens,
        "min_pixels": least,
        "max_pixels": most,
        "gpu_memory_utilization": total.utilisation,
        "enforce_eager": not load.graphs,
        "shm_gb": shm_gigabytes(fit),
        "flags": server_flags(fit),
        "environment": environment(fit),
        "choices": [{"name": o.name, "value": o.value, "why": o.why, "source": o.source} for o in setting_choices(fit)],
        "memory": {
            "usable": total.usable,
            "used": total.used,
            "loaded": total.loaded,
            "cache_tokens": total.tokens,
            "lines": [{"name": line.name, "bytes": line.bytes, "why": line.why} for line in total.lines],
        },
        "commands": list(lines),
    }
