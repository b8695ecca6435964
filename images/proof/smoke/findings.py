"""What level 2 finds out about an image: the engine's view of it, and what was seen inside. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from images.proof.smoke.expectation import Expectation


@dataclass(frozen=True)
class ImageConfig:
    """What the engine says of an image: user, environment, labels, entry point, health check, history (commands)."""

    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Sequence[str] = ()
    healthcheck: Sequence[str] = ()
    history: Sequence[str] = ()
    volumes: Sequence[str] = ()
    ports: Sequence[int] = ()

    @staticmethod
    def of(attributes: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> ImageConfig:
        """From the engine's answers to an image inspect and an image history."""
        config = attributes.get("Config") or {}
        test = list((config.get("Healthcheck") or {}).get("Test") or ())
        return ImageConfig(
            user=config.get("User") or "",
            env=dict(pair.partition("=")[::2] for pair in config.get("Env") or ()),
            labels=dict(config.get("Labels") or {}),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            healthcheck=_health_command(test),
            history=tuple(str(step.get("CreatedBy") or "") for step in history),
            volumes=tuple(config.get("Volumes") or ()),
            ports=tuple(int(port.partition("/")[0]) for port in config.get("ExposedPorts") or ()),
        )


def _health_command(test: Sequence[str]) -> tuple[str, ...]:
    if not test or test[0] == "NONE":
        return ()
    return tuple(shlex.split(test[1])) if test[0] == "CMD-SHELL" else tuple(test[1:])


@dataclass(frozen=True)
class Findings:
    """All that level 2 judges.

    ``probe`` is the output of inside/probe.py; ``torch`` holds ``version`` and ``cuda`` as torch tells them;
    ``xformers_info`` the lines of ``python -m xformers.info`` as a mapping; ``imports`` module to "" or the end of
    its traceback; ``private_cas`` SHA-256 of certificates that only this host trusts.
    """

    expectation: Expectation
    config: ImageConfig
    probe: Mapping[str, Any]
    torch: Mapping[str, Any] = field(default_factory=dict)
    xformers_info: Mapping[str, str] = field(default_factory=dict)
    imports: Mapping[str, str] = field(default_factory=dict)
    private_cas: frozenset[str] = frozenset()


# What the wheel of an attention package is imported as.
KERNEL_MODULES = {
    "xformers": "xformers.ops",
    "flash-attn": "flash_attn",
    "flashinfer-jit-cache": "flashinfer_jit_cache",
}


def required_modules(expectation: Expectation) -> tuple[str, ...]:
    """What must be importable each by itself: the backend and what its server stands on.

    What the server imports beyond that (``expectation.modules``) is imported in one process.
    """
    if expectation.backend == "transformers":
        names = [
            "transformers",
            "accelerate",
            "fastapi",
            "PIL",
            "prometheus_client",
            "pydantic",
            "safetensors",
            "uvicorn",
        ]
    else:
        names = ["vllm", "vllm.entrypoints.openai.api_server", "transformers"]
    if expectation.kernel:
        names.append(KERNEL_MODULES[expectation.kernel.package])
    return tuple(name for name in names if name not in expectation.modules)


def command_paths(config: ImageConfig) -> list[str]:
    """Programs and files that entry point and health check name: their first words, and all absolute paths."""
    out: dict[str, None] = {}
    for words in (config.entrypoint, config.healthcheck):
        for at, text in enumerate(words):
            if at == 0 or text.startswith("/"):
                out[text] = None
    return list(out)
