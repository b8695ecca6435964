"""The embedded engine's daemon.json, and how much build cache it keeps."""

from __future__ import annotations

import json

from images.core import Layout

GB = 1000**3
LIVE_RESTORE = "live-restore"


# Build cache that the engine keeps by itself (what images share with it is not counted): one CUDA stack takes 15-20 GB.
CACHE_BYTES = 32 * GB


def render_config(layout: Layout, *, mtu: int, firewall: bool) -> str:
    """daemon.json: all paths private, overlay2 without the containerd store (exports would compress), CDI read.

    ``live-restore``: containers outlive a crash of the engine, and the next start takes them over. Without it, the
    engine ends them when it starts, and takes that for somebody's wish: "unless-stopped" does not bring them back
    (seen with 26.1.5).
    """
    settings = {
        "bridge": layout.bridge,
        "builder": {"gc": {"enabled": True, "policy": _collection()}},
        "data-root": str(layout.data),
        "exec-root": str(layout.exec),
        "features": {"cdi": True, "containerd-snapshotter": False},
        "hosts": [layout.endpoint],
        "ip6tables": False,
        LIVE_RESTORE: True,
        "iptables": firewall,
        "log-driver": "json-file",
        "log-opts": {"max-file": "2", "max-size": "10m"},
        "mtu": mtu,
        "pidfile": str(layout.pidfile),
        "storage-driver": "overlay2",
    }
    return json.dumps(settings, indent=1, sort_keys=True) + "\n"


def without_live_restore(config: str) -> str:
    """The same settings for an engine that is to end its containers when it ends."""
    return json.dumps({**json.loads(config), LIVE_RESTORE: False}, indent=1, sort_keys=True) + "\n"


def _collection() -> list[dict[str, object]]:
    """What BuildKit drops by itself: layers beyond their share, unshared ones first, and contexts.

    Its own rules would drop cache mounts too, and with them the kernels' compiler cache, which bounds itself.
    """
    layers: dict[str, object] = {"filter": ["type=regular"], "keepStorage": f"{CACHE_BYTES // GB}GB"}
    contexts: dict[str, object] = {"filter": ["type=source.local"], "keepStorage": f"{CACHE_BYTES // GB}GB"}
    return [contexts, layers, layers | {"all": True}]
