"""Exit 0 when the server in this container says it is healthy, else 1. Standard library only.

It runs every other second while the server starts, so it speaks HTTP by a socket: http.client is slow to import. The
port is that of the container's own command line (``--port``), else ``CARDSTOCK_PORT``, else 8000.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS = 8.0
MOST_LINE = 1024  # bytes of a status line


def port(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The port the server listens on. Raises ValueError for one that is no number."""
    for at, word in enumerate(command):
        if word.startswith("--port="):
            return int(word.partition("=")[2])
        if word == "--port" and at + 1 < len(command):
            return int(command[at + 1])
    return int(environment.get("CARDSTOCK_PORT") or 8000)


def healthy(number: int) -> bool:
    """Whether GET /health answers 200 in time."""
    try:
        with socket.create_connection(("127.0.0.1", number), timeout=SECONDS) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            with connection.makefile("rb") as answer:
                status = answer.readline(MOST_LINE).split()
    except OSError as error:
        print(f"port {number}: {error}", file=sys.stderr)
        return False
    return len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1] == b"200"


def _command() -> list[str]:
    """The command line of the container's first process, which was started with the user's flags."""
    try:
        return Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(0 if healthy(port(_command(), os.environ)) else 1)
