"""What of a model's folder is read: safetensors, and a config that names no code of others. Standard library only.

A weight file of another kind (.bin, .pt, .pth) is a pickle: opening it can run what is hidden in it, which torch below
2.10 does not keep out with ``weights_only`` either (CVE-2026-24747).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES_SHOWN = 8
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class LoadError(Exception):
    """The folder does not hold what the model needs; the message names the tensors or the setting."""


def shards(folder: Path) -> list[Path]:
    """The weight files, in order, safetensors only. Raises LoadError when one is missing, of another kind, or there is
    none.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    missing = [name for name in names if not (folder / name).is_file()]
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if foreign or (missing and pickled):
        raise LoadError(
            f"{folder} has its weights in {', '.join((foreign or pickled)[:NAMES_SHOWN])}: only safetensors files of "
            "the folder itself are read, because opening a .bin, .pt or .pth file can run code that is hidden in it; "
            "save the model anew with transformers' save_pretrained, or take a repository with safetensors"
        )
    if missing:
        raise LoadError(f"{folder} lacks {', '.join(missing[:NAMES_SHOWN])}: only safetensors are read")
    return [folder / name for name in names]


def refuse_code(config: Any, folder: Path) -> None:
    """Code from a model's repository never runs: neither its own classes, nor kernels that its config names.

    transformers takes classes named by ``auto_map`` only when told to trust them, which it never is here; an attention
    or experts implementation of the form OWNER/NAME it would fetch. Raises LoadError for that one.
    """
    if isinstance(config, list):
        for one in config:
            refuse_code(one, folder)
    if isinstance(config, dict):
        for name, value in config.items():
            if name.endswith("_implementation") and isinstance(value, str) and "/" in value:
                raise LoadError(f"the config of {folder} asks for code of another repository ({name}: {value[:80]!r})")
            refuse_code(value, folder)
