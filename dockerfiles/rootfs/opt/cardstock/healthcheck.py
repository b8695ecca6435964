"""Exit 0 when the server in this container says it is healthy, else 1. Standard library only.

The port is that of the container's own command line (``--port``), else ``CARDSTOCK_PORT``, else 8000.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS = 8.0


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
    connection = http.client.HTTPConnection("127.0.0.1", number, timeout=SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException) as error:
        print(f"port {number}: {error}", file=sys.stderr)
        return False
    finally:
        connection.close()


def _command() -> list[str]:
    """The command line of the container's first process, which was started with the user's flags."""
    try:
        return Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(0 if healthy(port(_command(), os.environ)) else 1)
