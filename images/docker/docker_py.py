"""docker-py, imported in one place, and its errors as Cardstock's own.

docker-py imports paramiko for engines behind ssh, which takes half of its own time; it is loaded when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests.exceptions

from images.core import CardstockError, EngineUnreachable, import_when_used

import_when_used("paramiko")
import docker  # noqa: E402
import docker.errors  # noqa: E402
import docker.types  # noqa: E402

__all__ = ["API_SECONDS", "SILENT", "docker", "translated"]

API_SECONDS = 120
# What docker-py raises when nobody answers; a ValueError comes from an address that it cannot read.
SILENT = (docker.errors.DockerException, requests.exceptions.RequestException, OSError, ValueError)


@contextmanager
def translated(what: str, where: str = "") -> Iterator[None]:
    """Turn docker-py's errors into Cardstock's: no answer is EngineUnreachable, a refusal a CardstockError."""
    try:
        yield
    except docker.errors.APIError as error:
        raise CardstockError(what, cause=f"the engine says: {error.explanation or error}", where=where) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise EngineUnreachable(
            what,
            cause=f"the engine does not answer: {error}",
            do="see that it runs (docker info), then run again",
            where=where,
        ) from error
