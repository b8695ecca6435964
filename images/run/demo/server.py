"""The server behind the page: its address as people type it, and whether it answers."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import requests

from images.core import CheckFailed, UsageError

KEY = "OPENAI_API_KEY"
_SECONDS = 10.0
_START = "start one (./inv serve --model MODEL), or name another: --server URL"


def parse_address(text: str) -> str:
    """``text`` as http://HOST:PORT, without /v1 at its end. Raises UsageError."""
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a port that is no number raises here
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is not a server's address", do="write it as http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_model(server: str, wanted: str = "", environment: Mapping[str, str] | None = None) -> str:
    """The model that ``server`` serves: ``wanted``, or its first.

    Raises CheckFailed when it does not answer as the OpenAI API does, UsageError when it has no such model.
    """
    where = f"{server}/v1/models"
    session = requests.Session()
    # No proxy leads to this machine's own loopback.
    session.trust_env = not is_loopback(urlsplit(server).hostname or "")
    key = (os.environ if environment is None else environment).get(KEY)
    try:
        answer = session.get(where, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=_SECONDS)
    except requests.RequestException as error:
        raise CheckFailed(f"no server answers at {server}", cause=_cause(error), do=_START, where=where) from error
    if answer.status_code in (401, 403):
        raise CheckFailed(
            f"the server wants a key (status {answer.status_code})",
            do=f"put it into ${KEY}, then run again",
            where=where,
        )
    models = _models(answer)
    if not models:
        raise CheckFailed(
            f"what answers at {server} does not speak the OpenAI API",
            cause=f"status {answer.status_code}: {answer.text[:200].strip() or 'nothing'}",
            do=_START,
            where=where,
        )
    if wanted and wanted not in models:
        raise UsageError(f"the server has no model {wanted!r}", do=f"--model {models[0]}", where=", ".join(models))
    return wanted or models[0]


def _models(answer: requests.Response) -> list[str]:
    try:
        return [str(row["id"]) for row in answer.json()["data"]] if answer.status_code == 200 else []
    except (ValueError, KeyError, TypeError):
        return []


def _cause(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"it said nothing for {_SECONDS:g} s; a server that loads its model answers later"
    if "refused" in str(error):
        return "nothing listens there; a server that loads its model may not listen yet"
    return f"{type(error).__name__}: {error}"
