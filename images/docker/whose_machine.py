"""Whether an engine runs on this machine: a socket that is a file may lead into a virtual one, or to another."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from images.docker.facts import HostFacts

_FILES = ("unix://", "npipe://")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Share of the memory that may differ: containers of some kinds see a little less than the machine has.
_NEARLY = 0.02


@dataclass(frozen=True)
class ThisMachine:
    """What tells one machine from another: kernel ("6.8.0-45-generic"), bytes of memory, name."""

    kernel: str
    memory: int
    name: str


def this_machine(told: Path = Path("/proc/meminfo")) -> ThisMachine:
    """The machine that this runs on. Its memory is read where engines read it: in LXC that is a container's share."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError, StopIteration):
        lines = told.read_text(encoding="ascii").splitlines()
        memory = int(next(line for line in lines if line.startswith("MemTotal:")).split()[1]) * 1024
    return ThisMachine(platform.release(), memory, platform.node())


def is_local(endpoint: str, host: HostFacts, here: ThisMachine | None = None) -> bool:
    """Whether the engine shares this machine's kernel. Docker Desktop on Linux does not, and in WSL2 it does.

    An engine that does not say its kernel is taken at its address: a socket is local.
    """
    here = here or this_machine()
    near = endpoint.startswith(_FILES) or urlsplit(endpoint).hostname in _LOOPBACK
    if not host.kernel or not here.kernel:
        return endpoint.startswith(_FILES) and not host.desktop
    same = host.kernel == here.kernel and abs(host.memory - here.memory) <= _NEARLY * here.memory
    return near and same and (endpoint.startswith(_FILES) or host.name == here.name)


def free_below(root: Path) -> int | None:
    """Free bytes on the disk of a folder that may be closed to this user; None where there is no such folder."""
    for path in (root, *root.parents):
        try:
            return shutil.disk_usage(path).free
        except PermissionError:
            continue
        except OSError:
            return None
    return None
