"""Whose a container or volume of a run is: the process that made it, told by a label, and whether it still lives.

A process id alone says nothing: ids are used again, engines are shared by machines, and containers have ids of their
own. So an owner is a machine's boot, a namespace of process ids, an id, and when that process began.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

RUN_LABEL = "dev.cardstock.run"
OWNER_LABEL = "dev.cardstock.owner"
_PROC = Path("/proc")
_OLD = 86400.0  # seconds; nothing that a run makes is of use to anyone for so long once it has ended


def _began(process: str, proc: Path) -> str:
    """When a process began, in clock ticks since the boot; empty where there is none. proc(5), stat, field 22."""
    with suppress(OSError, IndexError):
        fields = (proc / process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    return ""


def _here(proc: Path) -> str:
    """This machine since its boot, and this namespace of process ids; empty where the kernel does not say."""
    with suppress(OSError):
        boot = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(proc / 'self/ns/pid').readlink()}"
    return ""


def this_process(proc: Path = _PROC) -> str:
    """The label's value for what this process makes; empty where it could not be judged later."""
    here, began = _here(proc), _began("self", proc)
    return f"{here} {os.getpid()} {began}" if here and began else ""


def is_dead(owner: str, proc: Path = _PROC) -> bool:
    """Whether the process that an owner's label names is known to have ended.

    False for one of another machine, which cannot be judged from here. What an earlier boot of this machine made is
    another machine's by its label: an engine that came up again has ended those containers, see `Engine.cleanup`.
    """
    place, _, rest = owner.partition(" ")
    process, _, began = rest.partition(" ")
    if not place or place != _here(proc) or not process.isdigit():
        return False
    return _began(process, proc) != began


def run_labels(run: str) -> dict[str, str]:
    """The labels of what a run makes: its id, and the process that it belongs to."""
    return {RUN_LABEL: run, OWNER_LABEL: this_process()}


def is_left(labels: Mapping[str, str], created: object, now: float, *, idle: bool) -> bool:
    """Whether a container or volume of a run is a leftover: its process has ended, or it has been ``idle`` for a day.

    ``created`` is RFC 3339 as the engine has it, ``now`` Unix seconds.
    """
    owner = labels.get(OWNER_LABEL, "")
    if owner and owner.partition(" ")[0] == _here(_PROC):
        return is_dead(owner)
    return idle and now - (_seconds(created) or now) > _OLD


def _seconds(created: object) -> float | None:
    """Unix seconds; the engine writes nanoseconds, which Python does not read."""
    text = re.sub(r"\.\d+", "", created).replace("Z", "+00:00") if isinstance(created, str) else ""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
