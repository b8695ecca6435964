"""Limits of the guard before vLLM's server, read from the environment. Standard library only: the entrypoint reads them
first, so that a wrong value ends a container at once and not after the model was loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import fetch  # type: ignore[import-not-found,unused-ignore]
import hosts  # type: ignore[import-not-found,unused-ignore]

MEGABYTE = 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Whole:
    """A variable with a whole number above 0: its default, and what one unit of it is."""

    name: str
    default: int
    unit: int = 1


# Field of GuardSettings: its variable. docs/serve.md has a line for each; a test compares them.
NUMBERS = {
    "body": Whole("CARDSTOCK_MAX_BODY_MB", 64, MEGABYTE),
    "bodies": Whole("CARDSTOCK_MAX_BODIES_MB", 256, MEGABYTE),
    "body_seconds": Whole("CARDSTOCK_BODY_TIMEOUT", 60),
    "header_seconds": Whole("CARDSTOCK_HEADER_TIMEOUT", 10),
    "connections": Whole("CARDSTOCK_MAX_CONNECTIONS", 1024),
    "elements": Whole("CARDSTOCK_MAX_ELEMENTS", 10_000),
    "token_ids": Whole("CARDSTOCK_MAX_TOKEN_IDS", 200_000),
    "depth": Whole("CARDSTOCK_MAX_DEPTH", 64),
    "text": Whole("CARDSTOCK_MAX_TEXT_MB", 2, MEGABYTE),
    "schema": Whole("CARDSTOCK_MAX_SCHEMA_KB", 64, 1024),
    "choices": Whole("CARDSTOCK_MAX_CHOICES", 500),
    "stops": Whole("CARDSTOCK_MAX_STOPS", 16),
    "stop_length": Whole("CARDSTOCK_MAX_STOP_LENGTH", 256),
    "answers": Whole("CARDSTOCK_MAX_ANSWERS", 64),
    "images": Whole("CARDSTOCK_MAX_IMAGES", 8),
    "image_pixels": Whole("CARDSTOCK_MAX_IMAGE_MEGAPIXELS", 50, 10**6),
    "request_pixels": Whole("CARDSTOCK_MAX_REQUEST_MEGAPIXELS", 100, 10**6),
    "pixels": Whole("CARDSTOCK_MAX_OPEN_MEGAPIXELS", 128, 10**6),
}
# Field of GuardSettings: the variable that opens what is closed, by "1".
SWITCHES = {
    "video": "CARDSTOCK_VIDEO",
    "embeds": "CARDSTOCK_EMBEDS",
    "chat_template": "CARDSTOCK_CHAT_TEMPLATE",
    "processor_kwargs": "CARDSTOCK_PROCESSOR_KWARGS",
}
# Closes, by "0", regular expressions and grammars as the form of an answer: images whose vLLM compiles them without an
# end have it so (matrix.yaml).
RULES = "CARDSTOCK_RULES"


@dataclass(frozen=True)
class GuardSettings:
    """What is let in. Sizes in bytes, times in seconds, pictures in pixels; ``hosts`` and ``origins`` beside those that
    are always allowed, "*" for all; ``fetch`` says from where pictures are fetched, and how large one may be;
    ``rules`` whether regular expressions and grammars may be the form of an answer.
    """

    keys: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    body: int = 0
    bodies: int = 0
    body_seconds: int = 0
    header_seconds: int = 0
    connections: int = 0
    elements: int = 0
    token_ids: int = 0
    depth: int = 0
    text: int = 0
    schema: int = 0
    choices: int = 0
    stops: int = 0
    stop_length: int = 0
    answers: int = 0
    images: int = 0
    image_pixels: int = 0
    request_pixels: int = 0
    pixels: int = 0
    formats: tuple[str, ...] = FORMATS
    fetch: fetch.Limits = field(default_factory=fetch.Limits)
    video: bool = False
    embeds: bool = False
    chat_template: bool = False
    processor_kwargs: bool = False
    rules: bool = True


def read(environment: Mapping[str, str]) -> GuardSettings:
    """The settings. Raises ValueError, with the variable and what it takes, for a value that makes no sense."""
    found: dict[str, int | bool] = {field: _whole(environment, one) for field, one in NUMBERS.items()}
    found |= {field: switched(environment, name, False) for field, name in SWITCHES.items()}
    formats = sorted(hosts.read_list(environment.get("CARDSTOCK_IMAGE_FORMATS", "")))
    settings = GuardSettings(
        keys=_keys(environment),
        hosts=hosts.read_list(environment.get("CARDSTOCK_ALLOWED_HOSTS", "")),
        origins=hosts.read_list(environment.get("CARDSTOCK_ALLOWED_ORIGINS", "")),
        # A redirect may lead anywhere, and pictures seldom need one.
        fetch=replace(fetch.limits_from(environment), redirects=0),
        formats=tuple(name.upper() for name in formats) or FORMATS,
        rules=switched(environment, RULES, True),
        **found,  # type: ignore[arg-type]
    )
    if settings.bodies < settings.body:
        raise ValueError("CARDSTOCK_MAX_BODIES_MB must not be below CARDSTOCK_MAX_BODY_MB")
    if not settings.image_pixels <= settings.request_pixels <= settings.pixels:
        raise ValueError(
            "CARDSTOCK_MAX_IMAGE_MEGAPIXELS must not be above CARDSTOCK_MAX_REQUEST_MEGAPIXELS, nor that above "
            "CARDSTOCK_MAX_OPEN_MEGAPIXELS"
        )
    return settings


def switched(environment: Mapping[str, str], name: str, default: bool) -> bool:
    """Whether a variable says 1 (or on, true, yes). Raises ValueError for anything but those and their opposites."""
    value = environment.get(name, "").strip().lower()
    if value in ("1", "on", "true", "yes"):
        return True
    if value in ("0", "off", "false", "no"):
        return False
    if value:
        raise ValueError(f"{name} must be 1 or 0, not {value!r}")
    return default


def _whole(environment: Mapping[str, str], one: Whole) -> int:
    value = environment.get(one.name) or str(one.default)
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 10**9):
        raise ValueError(f"{one.name} must be a whole number above 0, not {value!r}")
    return int(value) * one.unit


def _keys(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Those of --api-key, which the entrypoint hands on as a JSON list, else the variable's; none: none is asked."""
    given = json.loads(environment.get("CARDSTOCK_GUARD_KEYS") or "[]")
    other = environment.get("VLLM_API_KEY") or environment.get("CARDSTOCK_API_KEY") or ""
    return tuple(given) or ((other,) if other else ())
