"""Containers of an image on a host with a card: one that prepares, and servers that are acted another card.

Standard library only, beyond this repository: a GPU host has no more.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images.core import process
from images.docker import ContainerSpec, Gpus, Mount, docker_words
from images.proof.acting.cards import ActedCard
from images.proof.on_card.runs import NO_MULTICAST, Failed, NotRun

PLACE, CHECKOUT, CACHE, CUDA_CACHE, ACTED = "/proof", "/checkout", "/cache", "/cuda-cache", "/acted"
PYTHON = "/opt/venv/bin/python"
HERE = "images.proof.acting"
START = "images.proof.on_card.inside.start"
# Beyond a server's own limit: to ask it, and to end it.
ASKING = 150.0
ALWAYS = {
    **NO_MULTICAST,
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    # A container without a network has its own loopback alone.
    "VLLM_HOST_IP": "127.0.0.1",
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
    # What the driver compiles of PTX (FlashAttention 2 has nothing else for a newer card) takes minutes: it is kept.
    "CUDA_CACHE_PATH": CUDA_CACHE,
    "CUDA_CACHE_MAXSIZE": str(2**32),
}


@dataclass(frozen=True)
class ActingHost:
    """The host's folders, how its engine gives cards, and variables for every container.

    ``scratch`` is written to by the containers and by this process. ``shared``: several containers act at once.
    """

    image: str
    scratch: Path
    checkout: Path
    gpus: Gpus
    env: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False

    @property
    def acted(self) -> Path:
        """What is mounted beside a server."""
        return self.scratch / "acted"

    def prepare(self) -> None:
        """The folders, open to the image's user, and what is mounted beside a server."""
        for folder in (self.scratch, self.acted, self.scratch / "cuda-cache"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
        for name in ("sitecustomize.py", "ptxas"):
            shutil.copyfile(Path(__file__).with_name("acted") / name, self.acted / name)
            (self.acted / name).chmod(0o755)

    def spec(self, name: str, words: Sequence[str], env: Mapping[str, str], cache: str) -> ContainerSpec:
        """A container of a program; ``cache`` is the folder below scratch that is its /cache."""
        place = self.scratch / "cache" / cache
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)
        own = {"PYTHONPATH": CHECKOUT, "CARDSTOCK_STAND_IN_CALLS": f"{PLACE}/{name}.calls"}
        return ContainerSpec(
            self.image,
            ("-m", *words),
            name=container_name(name),
            entrypoint=(PYTHON,),
            env=tuple({**ALWAYS, **own, **env, **self.env}.items()),
            mounts=(
                Mount(str(self.checkout), CHECKOUT),
                Mount(str(self.scratch), PLACE, read_only=False),
                Mount(str(place), CACHE, read_only=False),
                Mount(str(self.scratch / "cuda-cache"), CUDA_CACHE, read_only=False),
                Mount(str(self.acted), ACTED),
            ),
            gpus=self.gpus,
            shm=8,
            network="none",
            workdir=CHECKOUT,
            healthcheck=False,
        )

    def run(
        self, name: str, words: Sequence[str], limit: float, env: Mapping[str, str] | None = None, cache: str = "real"
    ) -> dict[str, Any]:
        """Run a program to its end, or to the limit in seconds, and read the JSON that it writes to --out.

        What was written before a limit counts. Raises Failed without any JSON, NotRun where the limit was the reason.
        """
        out = self.scratch / f"{name}.json"
        out.unlink(missing_ok=True)
        (self.scratch / f"{name}.told").unlink(missing_ok=True)
        argv = docker_words(
            self.spec(name, [*words, "--out", f"{PLACE}/{name}.json"], env or {}, cache), foreground=True
        )
        late = False
        with (self.scratch / f"{name}.log").open("w", encoding="utf-8") as log:
            try:
                process.stream(argv, lambda line: print(line, file=log, flush=True), check=False, timeout=limit)
            except process.ProcessFailed as error:
                late = error.code == 124
                remove(name)
        with suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
            return {**told, "unfinished": True} if late else told
        if late:
            raise NotRun(f"{name}: no end after {limit:.0f} s: {self.tail(name)}")
        raise Failed(f"{name} left nothing: {self.tail(name)}")

    def through(self, program: str, *words: str) -> list[str]:
        """The words of a program that needs the driver's libraries handed on, as a server's entry point does it."""
        return [START, program, *words]

    def tail(self, name: str, size: int = 1200) -> str:
        """The end of a container's log."""
        with suppress(OSError):
            return (self.scratch / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-size:]
        return ""


def acted_env(
    card: ActedCard, real: str, ptxas: str, name: str, image_env: Mapping[str, str], shared: bool
) -> dict[str, str]:
    """What makes a container believe in ``card``; ``real`` is the real card's capability, ``ptxas`` Triton's own."""

    def before(variable: str, *folders: str) -> str:
        return os.pathsep.join([*folders, *filter(None, [image_env.get(variable, "")])])

    env = {
        "CARDSTOCK_ACTED": card.to_text(),
        "CARDSTOCK_ACTED_TOLD": f"{PLACE}/{name}.told",
        "PYTHONPATH": before("PYTHONPATH", ACTED, CHECKOUT),
        "LD_LIBRARY_PATH": before("LD_LIBRARY_PATH", f"{ACTED}/lib"),
    }
    if ptxas:
        env |= {
            "TRITON_OVERRIDE_ARCH": f"sm{card.number}",
            "TRITON_PTXAS_PATH": f"{ACTED}/ptxas",
            "CARDSTOCK_PTXAS": ptxas,
            "CARDSTOCK_ACTED_TARGETS": f"{card.number} {real.replace('.', '')}",
        }
    return env | ({"CARDSTOCK_ACTED_SHARED": "1"} if shared else {})


def container_name(name: str) -> str:
    """Of this run alone: one that was killed may have left its own."""
    return f"cardstock-acting-{name}-{os.getpid()}"


def remove(name: str) -> None:
    """End a container whose `docker run` is no longer waited for."""
    process.run(["docker", "rm", "--force", container_name(name)], check=False, timeout=60)
