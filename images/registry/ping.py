"""Whether a registry's host answers, before anything is asked of it."""

from __future__ import annotations

from pathlib import Path

from images.core import RegistryFailure
from images.registry.address import api_url
from images.registry.retry import TransientError
from images.registry.transport import Transport


def answer(host: str, *, ca: Path | None = None, seconds: float = 10.0) -> int:
    """The HTTP status with which a registry's host answers to "are you one" (200 and 401 say yes); no login, one try.

    Raises RegistryFailure where none answers within ``seconds``.
    """
    url = api_url(host)
    try:
        with Transport(ca).send("GET", url, timeout=(seconds, seconds)) as told:
            return told.status
    except TransientError as error:
        raise RegistryFailure(f"{host} does not answer", cause=str(error), where=url) from error
