"""What a killed engine leaves running, found in a /proc of a test's own."""

from __future__ import annotations

from pathlib import Path

from images.core.home import Layout
from images.docker.embedded.processes import left_running


def add(proc: Path, pid: int, parent: int, *words: str) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    (folder / "stat").write_text(f"{pid} (a) b) S {parent} 0 0")


def test_its_shims_and_what_runs_in_its_containers(tmp_path: Path) -> None:
    layout, proc = Layout(tmp_path / "home"), tmp_path / "proc"
    shim = "/p/usr/bin/containerd-shim-runc-v2"
    add(proc, 10, 1, shim, "-namespace", "moby", "-address", f"{layout.exec}/containerd/containerd.sock")
    add(proc, 11, 10, "sleep", "1000")
    add(proc, 20, 1, shim, "-namespace", "moby", "-address", "/run/containerd/containerd.sock")
    add(proc, 21, 20, "python", "server")
    add(proc, 30, 1, "vim", f"{layout.exec}/containerd-shim")
    (proc / "40").mkdir()  # ends while this looks
    assert left_running(layout, proc) == (11, 10)
    assert left_running(Layout(tmp_path / "other"), proc) == ()
