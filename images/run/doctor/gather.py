"""Asks this machine: every question at once, each with a time limit. Nothing is started or changed."""

from __future__ import annotations

import os
import platform
import queue
import shutil
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from images.cards import SWITCHES, WSL, addresses, read_machine
from images.core import CardstockError, default_layout, process, read_site
from images.docker import base_image as bases
from images.docker import cdi_folders, connect, gpu_tools
from images.docker.embedded import packages as home
from images.registry import answer
from images.run.doctor.facts import Authorities, EngineFacts, Facts, RegistryReach, ThisHost, Unknown

SECONDS = 20.0
# NVIDIA's fabric manager as /proc writes it: 15 letters of nv-fabricmanager.
FABRIC_MANAGER = "nv-fabricmanage"
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
T = TypeVar("T")


class PendingAnswer(Generic[T]):
    """A question that a thread is asking, with a time limit in seconds from now.

    A thread that never comes back (a driver that hangs, a dead name server) is left behind.
    """

    def __init__(
        self,
        what: str,
        question: Callable[[], T],
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._seconds, self._clock = what, seconds, clock
        self._end = clock() + seconds
        self._queue: queue.Queue[T | Unknown] = queue.Queue()
        threading.Thread(target=lambda: self._queue.put(_answer_or_unknown(what, question)), daemon=True).start()

    def answer(self) -> T | Unknown:
        """The answer, or why there is none."""
        try:
            return self._queue.get(timeout=max(0.0, self._end - self._clock()))
        except queue.Empty:
            return Unknown(f"{self._what} did not answer within {self._seconds:g} s")


def _answer_or_unknown(what: str, question: Callable[[], T]) -> T | Unknown:
    try:
        return question()
    except CardstockError as error:
        return Unknown(error.what, error.cause, error.do)
    except Exception as error:  # every failure is reported, also one that nobody expected
        return Unknown(f"{what}: {type(error).__name__}", str(error))


def gather_facts(root: Path, registries: Sequence[str], *, seconds: float = SECONDS) -> Facts:
    """Facts of this machine, with the site.yaml of ``root``; what takes longer than ``seconds`` is Unknown."""
    authorities = PendingAnswer("the CA bundle", lambda: _authorities(root, os.environ), seconds)
    cards = PendingAnswer("the NVIDIA driver", read_machine, seconds)
    engine = PendingAnswer("the Docker engine", _engine, seconds)
    embeddable = PendingAnswer("this host's package manager", _embeddable, seconds)
    tools = PendingAnswer("this host", gpu_tools, seconds)
    index = PendingAnswer("the package index", lambda: _index(seconds), seconds)
    trusted = authorities.answer()
    bundle = trusted.bundle if isinstance(trusted, Authorities) else None
    reached = [(host, PendingAnswer(host, _ask_registry(host, bundle, seconds / 2), seconds)) for host in registries]
    why = embeddable.answer()
    found, own = engine.answer(), tools.answer()
    if isinstance(found, EngineFacts) and found.local and found.host.cdi:
        own = gpu_tools(cdi_folders(found.host))
    return Facts(
        this_host=_this_host(),
        cards=cards.answer(),
        engine=found,
        embeddable=why.what if isinstance(why, Unknown) else why,
        tools=own,
        authorities=trusted,
        index=index.answer(),
        registries=tuple(RegistryReach(host, one.answer()) for host, one in reached),
    )


def _this_host() -> ThisHost:
    layout = default_layout()
    existing = next(path for path in (layout.home, *layout.home.parents) if path.is_dir())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return ThisHost(platform.machine(), memory, layout.home, shutil.disk_usage(existing).free, *_devices())


def _devices() -> tuple[int, int, bool, bool]:
    """Cards and NVSwitches on the PCI bus, whether the fabric manager runs, whether this is WSL2."""
    switches = len(addresses(SWITCHES))
    return len(addresses()), switches, switches > 0 and runs(FABRIC_MANAGER), WSL.exists()


def runs(name: str, processes: Path = Path("/proc")) -> bool:
    """Whether a process of this name (15 letters at most) can be seen."""
    for process_name in processes.glob("[0-9]*/comm"):
        with suppress(OSError):
            if process_name.read_text(encoding="utf-8", errors="replace").strip() == name:
                return True
    return False


def _engine() -> EngineFacts:
    engine = connect(start=False)
    try:
        host, free = engine.host(), engine.free_bytes()
        return EngineFacts(engine.endpoint, engine.embedded, host, engine.found_buildx(), free, engine.local)
    finally:
        engine.close()


def _embeddable() -> str:
    layout = default_layout()
    try:
        home.can_carry(layout)
    except CardstockError as error:
        return error.cause
    return ""


def _authorities(root: Path, environment: Mapping[str, str]) -> Authorities:
    bundle = bases.ca_bundle(read_site(root, environment).ca, environment)
    named = {name: environment.get(name, "") for name in bases.CA_VARIABLES}
    missing = tuple(f"{name}={value}" for name, value in named.items() if value and not Path(value).is_file())
    proxy = next((name for name in PROXIES if environment.get(name)), "")
    return Authorities(bundle, certificates(bundle) if bundle else 0, missing, proxy)


def certificates(bundle: Path) -> int:
    """How many certificate authorities a PEM file holds; 0 for what is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=bundle)
    except (OSError, ssl.SSLError):
        return 0
    return len(context.get_ca_certs())


def _index(seconds: float) -> str:
    """The newest pip that the configured index has: pip's own settings (index, proxy, CA) are what installs use."""
    argv = [sys.executable, "-m", "pip", "index", "versions", "pip", "--disable-pip-version-check", "--retries", "0"]
    output = process.run([*argv, "--timeout", f"{seconds / 4:g}"], timeout=seconds * 0.9).out
    return output.splitlines()[0] if output else ""


def _ask_registry(host: str, ca: Path | None, seconds: float) -> Callable[[], int]:
    return lambda: answer(host, ca=ca, seconds=seconds)
