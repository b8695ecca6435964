"""Containers of two images side by side on a host with cards: programs run to their end, engines asked in turns.

Standard library only, beyond this repository: a GPU host has no more.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from images.core import process
from images.docker import ContainerSpec, Gpus, Mount, docker_words
from images.proof.lighter.compare import calls_told
from images.proof.on_card.runs import NO_MULTICAST, Failed, process_tree

PLACE, CHECKOUT, CACHE = "/proof", "/checkout", "/cache"
LIGHT, UNTOUCHED = "light", "untouched"
START_LIMIT, RUN_LIMIT = 240.0, 300.0
ALWAYS = {
    **NO_MULTICAST,
    "PYTHONPATH": CHECKOUT,
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    # The root is read-only, and FlashInfer, which untouched packages have, writes to its home folder.
    "HOME": "/tmp",
    # The engine in the asking process: no other process's turn decides which requests are computed together.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # A container without a network has its own loopback alone.
    "VLLM_HOST_IP": "127.0.0.1",
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}


@dataclass(frozen=True)
class Host:
    """The host's folders, how its engine gives cards, and variables that it needs in every container.

    ``scratch`` is written to by the containers and by this process; ``gpus`` are all cards: CUDA_VISIBLE_DEVICES
    chooses among them, as a CDI specification may name all of them only.
    """

    scratch: Path
    checkout: Path
    gpus: Gpus
    env: Mapping[str, str] = field(default_factory=dict)

    def spec(self, image: str, name: str, words: Sequence[str], cards: str) -> ContainerSpec:
        """A container named ``name`` of a program (its module, and words); ``cards`` such as "0" or "0,1"."""
        own = {"CUDA_VISIBLE_DEVICES": cards, "CARDSTOCK_STAND_IN_CALLS": f"{PLACE}/{name}.calls"}
        return ContainerSpec(
            image,
            ("-m", "images.proof.on_card.inside.start", *words),
            name=container_name(name),
            entrypoint=("/opt/venv/bin/python",),
            env=tuple({**ALWAYS, **own, **self.env}.items()),
            mounts=(
                Mount(str(self.checkout), CHECKOUT),
                Mount(str(self.scratch), PLACE, read_only=False),
                Mount(str(self.scratch / "cache"), CACHE, read_only=False),
            ),
            gpus=self.gpus,
            shm=8,
            network="none",
            workdir=CHECKOUT,
            healthcheck=False,
        )

    def prepare(self) -> None:
        """The folders, open to the images' user."""
        for folder in (self.scratch, self.scratch / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)

    def run(self, image: str, name: str, words: Sequence[str], cards: str) -> dict[str, Any]:
        """Run a program to its end and read the JSON that it writes to --out. Raises Failed with the end of its log."""
        out = self.scratch / f"{name}.json"
        out.unlink(missing_ok=True)
        code = self._log(image, name, [*words, "--out", f"{PLACE}/{name}.json"], cards)
        if code or not out.is_file():
            raise Failed(f"{name} ended with {code}: {self.tail(name)}")
        told: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return told

    def hear(self, image: str, name: str, words: Sequence[str], cards: str) -> dict[str, Any]:
        """Run a program that prints its JSON as one line, whatever it ends with. Raises Failed without that line."""
        code = self._log(image, name, words, cards)
        lines = (self.scratch / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        for line in reversed(lines):
            with suppress(ValueError):
                if isinstance(told := json.loads(line), dict):
                    return told
        raise Failed(f"{name} ended with {code}: {self.tail(name)}")

    def _log(self, image: str, name: str, words: Sequence[str], cards: str) -> int:
        """Run a container to its end, its output in a file; its exit code."""
        (self.scratch / f"{name}.calls").unlink(missing_ok=True)
        argv = docker_words(self.spec(image, name, words, cards), foreground=True)
        with (self.scratch / f"{name}.log").open("w", encoding="utf-8") as log:
            try:
                return process.stream(argv, lambda line: print(line, file=log), check=False, timeout=RUN_LIMIT)
            except process.ProcessFailed:
                remove(name)
                raise

    def tail(self, name: str, size: int = 1200) -> str:
        """The end of a container's log."""
        with suppress(OSError):
            return (self.scratch / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-size:]
        return ""

    def calls(self, name: str) -> list[str]:
        """Calls of stand-ins that a container's run has counted, and those that its log tells of."""
        counted: list[str] = []
        with suppress(OSError):
            counted = (self.scratch / f"{name}.calls").read_text(encoding="utf-8", errors="replace").splitlines()
        with suppress(OSError):
            counted += calls_told((self.scratch / f"{name}.log").read_text(errors="replace").splitlines())
        return counted


class Engine:
    """A worker.py in a container; vLLM is imported there from the beginning, and asked once it listens."""

    def __init__(self, host: Host, image: str, name: str, cards: str) -> None:
        self.host, self.name = host, name
        self.code: int | None = None
        self._socket = host.scratch / f"{name}.sock"
        self._socket.unlink(missing_ok=True)
        (host.scratch / f"{name}.calls").unlink(missing_ok=True)
        self._connection: Connection | None = None
        words = ["images.proof.lighter.worker", "--socket", f"{PLACE}/{name}.sock"]
        self._argv = docker_words(host.spec(image, name, words, cards), foreground=True)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        code = 126  # what a docker that cannot be run ends with
        try:
            with (self.host.scratch / f"{self.name}.log").open("w", encoding="utf-8") as log:
                code = process.stream(self._argv, lambda line: print(line, file=log, flush=True), check=False)
        finally:
            self.code = code

    def ask(self, do: str, limit: float = START_LIMIT, **arguments: Any) -> dict[str, Any]:
        """Ask it, and wait for the answer. Raises Failed when it has ended, tells an error or takes too long."""
        connection = self._connect(limit)
        try:
            connection.send_bytes(json.dumps({"do": do, **arguments}).encode())
            if not connection.poll(limit):
                raise Failed(f"{self.name}: no answer to {do} after {limit:.0f} s: {self.host.tail(self.name)}")
            answer: dict[str, Any] = json.loads(connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise Failed(f"{self.name} ended while it was asked to {do}: {self.host.tail(self.name)}") from error
        if "error" in answer:
            raise Failed(f"{self.name}: {do}: {answer['error']}")
        return answer

    def _connect(self, limit: float) -> Connection:
        begun = time.monotonic()
        while self._connection is None:
            if self.code is not None or time.monotonic() - begun > limit:
                raise Failed(f"{self.name} does not listen: {self.host.tail(self.name)}")
            try:
                self._connection = Client(str(self._socket), "AF_UNIX")
            except OSError:
                time.sleep(0.1)
        return self._connection

    def processes(self) -> list[int]:
        """Its processes' ids on the host."""
        argv = ["docker", "inspect", "--format", "{{.State.Pid}}", container_name(self.name)]
        told = process.run(argv, check=False, timeout=20).out.strip()
        return process_tree(int(told)) if told.isdecimal() and told != "0" else []

    def close(self) -> None:
        """Hang up, wait for its end, remove what is left."""
        if self._connection is not None:
            self._connection.close()
        self._thread.join(timeout=20 if self._connection else 0.1)
        if self._thread.is_alive():
            remove(self.name)
            self._thread.join(timeout=20)


def container_name(name: str) -> str:
    """Of this run alone: one that was killed may have left its own."""
    return f"cardstock-lighter-{name}-{os.getpid()}"


def remove(name: str) -> None:
    """End a container whose `docker run` is no longer waited for."""
    process.run(["docker", "rm", "--force", container_name(name)], check=False, timeout=60)
