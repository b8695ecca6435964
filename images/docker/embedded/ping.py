"""Whether an engine answers on a Unix socket, asked with the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path


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
    connection = _UnixHTTP(path, timeout)
    try:
        connection.request("GET", "/version")
        answer = connection.getresponse()
        return str(json.loads(answer.read())["Version"]) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()
