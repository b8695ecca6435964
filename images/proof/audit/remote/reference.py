"""The name of an image in a registry: "docker.io/vllm/vllm-openai:v0.8.5", "…@sha256:…"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from images.core import UsageError
from images.registry import parse_repository

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST = 1000


@dataclass(frozen=True)
class ImageName:
    """``text`` as it was typed; ``repository`` with its host, and the tag or digest in it."""

    text: str
    repository: str
    reference: str


def parse_image_name(text: str) -> ImageName | None:
    """The image that ``text`` names in a registry; None where it names no registry's host.

    A digest comes before a tag, if both are said; without either it is "latest". Raises UsageError for a name with a
    host that is none.
    """
    host = text.partition("/")[0]
    if "/" not in text or not (set(host) & set(".:") or host == "localhost") or host in (".", ".."):
        return None
    name, at, digest = text.partition("@")
    place, colon, tag = name.rpartition(":")
    tagged = bool(colon) and "/" not in tag
    if not tagged:
        place, tag = name, ""
    if len(text) > _LONGEST or (at and not _DIGEST.fullmatch(digest)) or (tagged and not _TAG.fullmatch(tag)):
        raise UsageError(
            f"{text[:200]!r} is no image's name",
            cause="a tag has letters, digits, '.', '_' and '-'; a digest is sha256: and 64 hexadecimal digits",
            do="write it as docker.io/vllm/vllm-openai:v0.8.5",
        )
    parse_repository(place)
    return ImageName(text, place, digest or tag or "latest")
