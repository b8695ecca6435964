"""docker-py, imported in one place, and its errors as Cardstock's own.

docker-py imports paramiko for engines behind ssh, which takes half of its own time; it is loaded when it is used.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

import requests.exceptions
import urllib3.exceptions

from images.core import CardstockError, EngineUnreachable, import_when_used
from images.docker.refusals import disk_full, is_disk_full

import_when_used("paramiko")
import docker  # noqa: E402
import docker.errors  # noqa: E402
import docker.types  # noqa: E402

__all__ = ["API_SECONDS", "BROKEN_OFF", "SAVE_SECONDS", "SILENT", "docker", "translated"]

# Within which the next bytes of an answer must come; SAVE_SECONDS where an engine copies an image before the first.
API_SECONDS, SAVE_SECONDS = 120, 1800
# An answer that breaks off comes as urllib3's error, or as words that end in the middle: docker-py reads streams raw.
BROKEN_OFF = (
    docker.errors.DockerException,
    docker.errors.StreamParseError,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
)
# What docker-py raises when nobody answers; a ValueError comes from an address that it cannot read.
SILENT = (*BROKEN_OFF, OSError, ValueError)


@contextmanager
def translated(what: str, where: str = "") -> Iterator[None]:
    """Turn docker-py's errors into Cardstock's: no answer is EngineUnreachable, a refusal a CardstockError."""
    try:
        yield
    except docker.errors.APIError as error:
        said = str(error.explanation or error)
        if is_disk_full(said):
            raise disk_full(what, said) from error
        raise CardstockError(what, cause=f"the engine says: {said}", where=where) from error
    except BROKEN_OFF as error:
        raise EngineUnreachable(
            what,
            cause=f"the engine does not answer: {error}",
            do="see that it runs (docker info), then run again",
            where=where,
        ) from error
