"""A repository's config.json, asked of the hub: what a model is, before anything of its weights is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from images.core import RegistryFailure, UsageError, parse_json

# Bytes of a config.json.
MOST = 1 << 20
HUB = "https://huggingface.co"
SECONDS = 20


def read_config(repository: str, environment: Mapping[str, str], ca: Path | None = None) -> dict[str, Any]:
    """The settings of OWNER/NAME as ``HF_ENDPOINT`` has them, with ``HF_TOKEN`` where there is one.

    ``ca`` is the bundle that the hub's certificate is held against. Raises RegistryFailure where no answer comes,
    UsageError for a repository that is not there, not open to this token, or no model's.
    """
    hub = environment.get("HF_ENDPOINT") or HUB
    url = f"{hub.rstrip('/')}/{repository}/resolve/main/config.json"
    token = environment.get("HF_TOKEN")
    try:
        answer = requests.get(
            url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=SECONDS,
            verify=str(ca) if ca else True,
            stream=True,
        )
    except requests.exceptions.RequestException as error:
        raise RegistryFailure(
            f"{repository} could not be looked up",
            cause=f"{hub} does not answer: {type(error).__name__}",
            do="see that this machine reaches it (HTTPS_PROXY, or HF_ENDPOINT for a mirror); or give a folder, or one "
            "of the published models (3b-awq), which need no look",
        ) from error
    if answer.status_code == 404 and answer.headers.get("X-Error-Code") == "EntryNotFound":
        raise UsageError(
            f"{repository} has no config.json",
            cause="it holds no whole model: adapters (LoRA) and GGUF files come without one",
            do="name the model that it was made of",
        )
    if answer.status_code in (401, 403, 404):
        raise UsageError(
            f"{hub} has no repository {repository}, or not for this token",
            cause=f"it answered {answer.status_code}",
            do="correct the name, or set HF_TOKEN for one that is not open",
        )
    try:
        answer.raise_for_status()
        body = _read(answer)
    except requests.exceptions.RequestException as error:
        raise RegistryFailure(f"{repository} could not be looked up", cause=str(error), do="try again later") from error
    if len(body) > MOST:
        raise UsageError(
            f"what {hub} gives as the config.json of {repository} is too large",
            cause=f"it has more than {MOST} bytes, and such files have some thousand",
            do="see that HF_ENDPOINT is a hub; or --config FILE",
        )
    data = parse_json(body, f"the config.json of {repository}", "see that HF_ENDPOINT is a hub; or --config FILE")
    if not isinstance(data, dict):
        raise UsageError(f"the config.json of {repository} holds no settings", do="name another repository")
    return data


def _read(answer: requests.Response) -> bytes:
    """The body, or so much of it that it is seen to be too long."""
    body = b""
    for piece in answer.iter_content(1 << 16):
        body += piece
        if len(body) > MOST:
            break
    return body
