"""A server's health as Docker reports it, and the likely cause where the server does not get healthy. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOG_LINES = 60


@dataclass(frozen=True)
class Cause:
    """A pattern in a server's log, what it likely means, and what to do."""

    pattern: str
    cause: str
    do: str


# The first whose pattern is in the log is taken; a group of the pattern is shown.
CAUSES = (
    Cause(
        r"preflight: (.* (?:has no code for|is too old for|needs an NVIDIA card).*)",
        "the image does not fit this machine",
        "do what its log says: it names the image that fits",
    ),
    Cause(
        r"no kernel image is available",
        "the image holds no code for this card",
        "take the image made for this card: ./inv plan --card NAME",
    ),
    Cause(
        r"driver version is insufficient|CUDA_ERROR_COMPAT_NOT_SUPPORTED|forward compatibility was attempted",
        "the host's NVIDIA driver is too old for this CUDA",
        "update the driver, or take an image of an older CUDA",
    ),
    Cause(
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver",
        "no GPU is visible in the container",
        "install the NVIDIA container toolkit and pass --gpus all, or by CDI --device nvidia.com/gpu=all",
    ),
    Cause(
        r"invalid literal for int\(\) with base 10: '((?:GPU|MIG)-[^']*)'",
        "this vLLM cannot read a UUID in CUDA_VISIBLE_DEVICES",
        "leave the variable out, and name the cards: ./inv serve --gpus device=…",
    ),
    Cause(
        r"Error 802|system not yet initialized|cudaErrorSystemNotReady",
        "the NVLink fabric of these cards is not up",
        "on the host: sudo systemctl enable --now nvidia-fabricmanager",
    ),
    Cause(
        r"CUDA-capable device\(s\) is/are busy or unavailable",
        "another program has the card for itself, or its compute mode lets none use it",
        "stop the other program, or sudo nvidia-smi -c DEFAULT",
    ),
    Cause(
        r"Failed to initialize NVML|NVMLError_(?:Unknown|GpuIsLost)",
        "the driver does not answer in the container",
        "start it anew; ./inv doctor says how the cards of the host are",
    ),
    Cause(
        r"CUDA out of memory|OutOfMemoryError",
        "the card's memory is too small",
        "lower --max-model-len or --gpu-memory-utilization",
    ),
    Cause(r"Bfloat16 is only supported", "bfloat16 needs a card of 8.0 or newer", "start it with --dtype half"),
    Cause(
        r"GatedRepoError|RepositoryNotFoundError|401 Client Error|403 Client Error",
        "the hub has no such repository, or not for this token",
        "correct the model's name, or set HF_TOKEN",
    ),
    Cause(
        r"couldn't connect to|failure in name resolution|LocalEntryNotFoundError|Max retries exceeded with url",
        "the hub cannot be reached from the container",
        "set HTTPS_PROXY, or HF_ENDPOINT for a mirror; or serve a folder that was downloaded elsewhere",
    ),
    Cause(
        r"Read-only file system",
        "it writes outside of /tmp and its volumes",
        "point that cache to /cache in the image",
    ),
    Cause(
        r"Permission denied",
        "a file or folder does not belong to the container's user",
        "give it to that user in the build",
    ),
    Cause(
        r"(No module named \S+|ImportError: .*)",
        "a package is missing or broken",
        "run level 2 alone: it names the package",
    ),
    Cause(
        r"(unrecognized arguments: .*|error: argument .*)",
        "the server does not know an argument",
        "compare the image's CMD with the server's --help",
    ),
    Cause(r"address already in use", "its port is taken", "stop what listens there"),
)


@dataclass(frozen=True)
class Health:
    """A container's state: "running" or "exited"; its health, "none" without a check; its last check's output."""

    status: str
    health: str
    exit_code: int
    oom: bool
    last_check: str

    @staticmethod
    def of(attributes: Mapping[str, Any]) -> Health:
        """From the engine's answer to a container inspect."""
        state = attributes.get("State") or {}
        health = state.get("Health") or {}
        checks = health.get("Log") or [{}]
        return Health(
            status=state.get("Status") or "unknown",
            health=health.get("Status") or "none",
            exit_code=int(state.get("ExitCode") or 0),
            oom=bool(state.get("OOMKilled")),
            last_check=str(checks[-1].get("Output") or "").strip(),
        )

    @property
    def verdict(self) -> bool | None:
        """True: healthy. False: it will not become so. None: wait."""
        if self.health == "healthy":
            return True
        if self.status in ("exited", "dead") or self.health in ("unhealthy", "none"):
            return False
        return None


def likely_cause(health: Health, log: str) -> tuple[str, str]:
    """Why it is not healthy, and what to do about it."""
    if health.oom or (health.status == "exited" and health.exit_code == 137):
        return "it was killed for want of memory", "give the engine more memory, or serve a smaller model"
    for known in CAUSES:
        if match := re.search(known.pattern, log, re.IGNORECASE):
            return (f"{known.cause}: {match[1]}" if match.groups() else known.cause), known.do
    if health.health == "none":
        return "the image has no health check", "give it a HEALTHCHECK"
    if health.status == "exited":
        return "the server ended while starting", "read the end of its log"
    if health.health == "unhealthy":
        return f"its health check fails: {health.last_check or 'it says nothing'}", "run the health check by hand in it"
    return "it is still starting", "give it more time, or read its log"


def tail(log: str, lines: int = LOG_LINES) -> str:
    """The last lines of a log."""
    return "\n".join(log.splitlines()[-lines:])


def unhealthy_text(health: Health, log: str, waited: float) -> tuple[str, str, str]:
    """What happened (with the end of the log), likely cause, what to do."""
    state = f"state {health.status}, health {health.health}"
    if health.status == "exited":
        state += f", exit code {health.exit_code}"
    cause, do = likely_cause(health, log)
    what = f"the container did not get healthy within {waited:.0f} s: {state}"
    end = tail(log)
    return what, f"{cause}\nlast {min(LOG_LINES, len(end.splitlines()))} lines of its log:\n{end or '(empty)'}", do
