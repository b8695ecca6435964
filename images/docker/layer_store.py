"""Where an engine keeps layers: in its own data folder, or, with the containerd store, in containerd's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images.core import toml

_CONFIG = Path("/etc/containerd/config.toml")
_DEFAULT = Path("/var/lib/containerd")  # containerd's own default of `root`


def keeps_in_containerd(info: Mapping[str, Any]) -> bool:
    """Whether the engine's answer to `docker info` says that images lie in containerd's store."""
    return any(row and row[0] == "driver-type" for row in info.get("DriverStatus") or [])


def layers_folder(info: Mapping[str, Any], config: Path = _CONFIG) -> Path:
    """The folder whose disk layers are kept on, by the engine's answer to `docker info`.

    A containerd that the engine started itself keeps its data below the engine's; another one has its own place.
    """
    own = Path(str(info["DockerRootDir"]))
    if not keeps_in_containerd(info):
        return own
    address = str((info.get("Containerd") or {}).get("Address") or "")
    managed = own / "containerd" / "daemon"
    if address.endswith("/docker/containerd/containerd.sock") or managed.is_dir():
        return managed
    try:
        named = toml.loads(config.read_text(encoding="utf-8")).get("root")
    except (OSError, ValueError):
        named = None
    return Path(named) if isinstance(named, str) and named.startswith("/") else _DEFAULT
