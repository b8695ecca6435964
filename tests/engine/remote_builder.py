"""A second engine's BuildKit as a builder of buildx's driver `remote`, with a store of its own.

No BuildKit comes by itself among Debian's packages. An engine has one, and lets it be spoken to where it is asked to
change from HTTP to gRPC (POST /grpc); `Door` does that for each connection. The engine keeps images in containerd's
store, so that its BuildKit has the exporters that one by itself has.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from images.core import process
from images.core.home import Layout
from images.docker.embedded import daemon as embedded
from images.docker.embedded import daemon_config
from images.docker.engine import Engine
from tests.helpers.own_engine import take_programs

_UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


class Door:
    """Listens on a free port of loopback, and hands each connection to the BuildKit of an engine's socket."""

    def __init__(self, engine: Path) -> None:
        self._engine = engine
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        engine = socket.socket(socket.AF_UNIX)
        self._open += [client, engine]
        with suppress(OSError):
            engine.connect(str(self._engine))
            engine.sendall(_UPGRADE)
            told = b""
            while not told.endswith(b"\r\n\r\n"):
                if not (one := engine.recv(1)):
                    raise OSError("the engine hung up")
                told += one
            assert b" 101 " in told.split(b"\r\n")[0], told
            threading.Thread(target=_pump, args=(client, engine), daemon=True).start()
            _pump(engine, client)

    def close(self) -> None:
        """End all of it, as a builder's machine does that goes away."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._open):
            one.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(1 << 16):
            target.sendall(some)
        target.shutdown(socket.SHUT_WR)


def in_containerd(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an engine whose images lie in containerd's store."""
    features = settings["features"] | {"containerd-snapshotter": True}
    return settings | {"features": features, "storage-driver": "overlayfs"}


@contextmanager
def engine_with(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[Layout]:
    """An engine of its own, its settings changed; its programs are those of the embedded engine."""
    layout = Layout(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    take_programs(layout)
    usual = daemon_config.render_config

    def render(layout: Layout, *, mtu: int, firewall: bool) -> str:
        return json.dumps(change(json.loads(usual(layout, mtu=mtu, firewall=firewall))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "render_config", render)
        embedded.start(layout, firewall=False, say=print)
    try:
        yield layout
    finally:
        embedded.stop(layout)
        shutil.rmtree(layout.home)


def add_builder(engine: Engine, port: int) -> str:
    """Tell buildx of the builder at a port of loopback; its name."""
    name = f"far-{uuid.uuid4().hex[:8]}"
    words = ["docker", "buildx", "create", "--name", name, "--driver", "remote", f"tcp://127.0.0.1:{port}"]
    process.run(words, env=engine.cli_env())
    return name
