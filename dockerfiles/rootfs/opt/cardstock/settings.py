"""What is served and within which limits: the command line and the environment. See server.py for what each means."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import fetch  # type: ignore[import-not-found,unused-ignore]
from hosts import read_list  # type: ignore[import-not-found,unused-ignore]

MEGABYTE = 2**20
MILLION = 10**6


@dataclass(frozen=True)
class Settings:
    """``max_body`` and ``max_text`` of one request, ``max_bodies`` of all, in bytes; ``max_queue`` requests that wait;
    ``max_open_pixels`` of all requests' pictures together; times in seconds; ``max_connections`` at a time.

    ``hosts`` and ``origins`` are those that are answered besides addresses, localhost and the server's own.
    """

    models: tuple[str, ...]
    api_key: str | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    max_images: int = 8
    max_body: int = 64 * MEGABYTE
    max_text: int = 2 * MEGABYTE
    max_bodies: int = 128 * MEGABYTE
    max_open_pixels: int = 128 * MILLION
    max_queue: int = 16
    queue_seconds: int = 60
    header_seconds: int = 10
    body_seconds: int = 60
    max_connections: int = 256
    fetch: fetch.Limits = field(default_factory=fetch.Limits)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, in the spirit of vLLM's."""
    parser = argparse.ArgumentParser(description="Serve Qwen2.5-VL on transformers over the OpenAI API.")
    parser.add_argument("--model", required=True, help="a folder, or a repository on the Hub")
    parser.add_argument("--served-model-name", nargs="+", default=None)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104  (a container's own network)
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--dtype", default="auto",
                        choices=["auto", "half", "float16", "bfloat16", "float", "float32"])  # fmt: skip
    parser.add_argument("--max-model-len", type=int, default=None)
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1; default: the first card, else the CPU")
    parser.add_argument("--pipeline-parallel-size", type=int, default=1, help="cards that share the layers")
    parser.add_argument(
        "--dequantise", action="store_true", help="unpack AWQ weights once: four times the memory, faster"
    )
    parser.add_argument("--api-key", default=None)
    return parser.parse_args(arguments)


def positive(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number above 0. Raises SystemExit for anything else."""
    value = environment.get(name) or str(default)
    if not value.isdigit() or int(value) < 1:
        raise SystemExit(f"{name} must be a whole number above 0, not {value!r}")
    return int(value)


def pixels(environment: Mapping[str, str], name: str) -> int | None:
    """The same, or None where the variable is not set."""
    return positive(environment, name, 1) if environment.get(name) else None


def settings(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Limits from the environment. Raises SystemExit for a value that makes no sense."""

    def number(name: str, default: int) -> int:
        return positive(environment, f"CARDSTOCK_{name}", default)

    try:
        limits = fetch.limits_from(environment)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    return Settings(
        models=tuple(args.served_model_name or [args.model]),
        api_key=args.api_key or environment.get("CARDSTOCK_API_KEY") or None,
        hosts=read_list(environment.get("CARDSTOCK_ALLOWED_HOSTS") or ""),
        origins=read_list(environment.get("CARDSTOCK_ALLOWED_ORIGINS") or ""),
        max_images=number("MAX_IMAGES", 8),
        max_body=number("MAX_BODY_MB", 64) * MEGABYTE,
        max_text=number("MAX_TEXT_MB", 2) * MEGABYTE,
        max_bodies=number("MAX_BODIES_MB", 128) * MEGABYTE,
        max_open_pixels=number("MAX_OPEN_MEGAPIXELS", 128) * MILLION,
        max_queue=number("MAX_QUEUE", 16),
        queue_seconds=number("QUEUE_TIMEOUT", 60),
        header_seconds=number("HEADER_TIMEOUT", 10),
        body_seconds=number("BODY_TIMEOUT", 60),
        max_connections=number("MAX_CONNECTIONS", 256),
        fetch=limits,
    )
