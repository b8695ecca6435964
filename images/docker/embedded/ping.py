"""Whether an engine answers on a Unix socket, asked with the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class _UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def engine_version(path: Path, timeout: float = 5.0) -> str | None:
    """The version of the engine that answers on this socket; None where none does."""
    version = _ask(path, "/version", timeout).get("Version")
    return None if version is None else str(version)


def restores_live(path: Path, timeout: float = 5.0) -> bool:
    """Whether the engine that answers on this socket would leave its containers running when it ends."""
    return bool(_ask(path, "/info", timeout).get("LiveRestoreEnabled"))


def _ask(path: Path, what: str, timeout: float) -> dict[str, Any]:
    """The answer to a GET, an object of JSON; empty where there is none."""
    connection = _UnixHTTP(path, timeout)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        content = json.loads(answer.read()) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        content = None
    finally:
        connection.close()
    return content if isinstance(content, dict) else {}
