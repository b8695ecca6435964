"""A fit as it is shown: lines for people, JSON for scripts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from images.run.fit.choose import Fit
from images.run.fit.settings import environment, pixel_limits, server_flags, setting_choices, shm_gigabytes, unverified
from images.run.fit.usable_memory import GIB


def fit_lines(found: Fit) -> list[str]:
    """For people: what on what, each choice in a sentence with its source, the sum of the fullest card."""
    ask, total = found.ask, found.sum
    out = [f"{ask.model.name} on {ask.cards}: {ask.variant.id}"]
    out += [f"  unverified: {what}" for what in unverified(found)]
    out += [f"  {one.name}: {one.value}. {one.why} [{one.source}]" for one in setting_choices(found)]
    out.append("memory of a card" if found.split.pp == 1 else f"memory of the fullest card, stage {total.stage + 1}")
    out += [f"  {line.bytes / GIB:7.2f} GiB  {line.name}: {line.why}" for line in total.lines]
    out.append(f"  {total.used / GIB:7.2f} GiB  together, of {total.usable / GIB:.2f} GiB that a program can have")
    return out


def fit_json(found: Fit, lines: Sequence[str]) -> dict[str, Any]:
    """For scripts."""
    ask, load, split, total = found.ask, found.load, found.split, found.sum
    least, most = pixel_limits(found)
    return {
        "model": ask.model.name,
        "unverified": unverified(found),
        "card": ask.card,
        "arch": ask.arch.capability,
        "count": ask.count,
        "nodes": ask.nodes,
        "variant": ask.variant.id,
        "backend": found.backend.name,
        "dtype": found.backend.dtype,
        "kernel": found.backend.kernel,
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
        "shm_gb": shm_gigabytes(found),
        "flags": server_flags(found),
        "environment": environment(found),
        "choices": [
            {"name": o.name, "value": o.value, "why": o.why, "source": o.source} for o in setting_choices(found)
        ],
        "memory": {
            "usable": total.usable,
            "used": total.used,
            "cache_tokens": total.tokens,
            "lines": [{"name": line.name, "bytes": line.bytes, "why": line.why} for line in total.lines],
        },
        "commands": list(lines),
    }
