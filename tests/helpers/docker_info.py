"""Answers of engines to `docker info`, as `HostFacts`."""

from __future__ import annotations

import json
from pathlib import Path

from images.docker.facts import HostFacts, host_of
from images.docker.whose_machine import ThisMachine

RECORDED = Path(__file__).parents[1] / "recorded" / "docker_info"
# The machine that those engines are asked from: all but the virtual ones run on it.
HERE = ThisMachine("6.8.0-60-generic", 67281080320, "gpu-host")


def docker_info(name: str) -> HostFacts:
    """The engine of tests/recorded/docker_info/NAME.json."""
    return host_of(json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8")))
