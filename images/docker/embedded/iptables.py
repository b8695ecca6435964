"""iptables for the embedded engine, where the host has none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from images.core import EngineUnreachable, Layout, process


def iptables_script(prefix: Path, flavour: str, tool: str) -> str:
    """A script that runs the prefix's iptables with the prefix's libraries (no other program needs them)."""
    lib = f"{prefix}/usr/lib/{os.uname().machine}-linux-gnu"
    return (
        "#!/bin/sh\n"
        f"LD_LIBRARY_PATH='{lib}' XTABLES_LIBDIR='{lib}/xtables' \\\n"
        f"exec '{prefix}/usr/sbin/xtables-{flavour}-multi' {tool} \"$@\"\n"
    )


def write_iptables(layout: Layout) -> None:
    """Bring iptables where the host has none: the flavour that this kernel answers to."""
    folder = layout.root / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("iptables", path=layout.path):
        return
    folder.mkdir()
    tails = []
    for flavour in ("nft", "legacy"):
        for tool in ("iptables", "ip6tables"):
            script = folder / tool
            script.write_text(iptables_script(layout.prefix, flavour, tool), encoding="utf-8")
            script.chmod(0o755)
        probe = process.run([str(folder / "iptables"), "-w", "-t", "nat", "-S"], check=False, timeout=30)
        if probe.code == 0:
            return
        tails.append(f"{flavour}: {probe.err.strip()}")
    raise EngineUnreachable(
        "the kernel has no usable packet filter, so containers could not reach the network",
        cause="; ".join(tails),
        do="load nf_tables or ip_tables with NAT (modprobe nf_tables), or set DOCKER_HOST to another engine",
    )
