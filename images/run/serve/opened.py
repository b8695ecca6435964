"""What a server lets in beyond its guard's defaults, as the flags of `serve` and `cluster` say it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from images.core import UsageError
from images.docker import read_memory

# What the guard of an image reads.
HOSTS = "CARDSTOCK_ALLOWED_HOSTS"
# A host's name or address, "*.example.org" for those below one, "*" for all.
_NAME = re.compile(r"\*|(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]{2,45}")


@dataclass(frozen=True)
class Opened:
    """``hosts``: names that the server is asked by; ``domains``: those that it fetches pictures from."""

    hosts: Sequence[str] = ()
    domains: Sequence[str] = ()

    def environment(self) -> dict[str, str]:
        """Variables of the container: dockerfiles/rootfs/opt/cardstock/guard_settings.py. Raises UsageError."""
        named = ((HOSTS, self.hosts, "--allow-host"),
                 ("CARDSTOCK_MEDIA_DOMAINS", self.domains, "--allow-media-domain"))  # fmt: skip
        return {name: ",".join(_check(one, flag) for one in given) for name, given, flag in named if given}


NOTHING = Opened()


def video_flag(count: int) -> list[str]:
    """What opens videos on an image that uses no card, as one text; with a card it is among the fit's flags."""
    limits = json.dumps({"image": 8, "video": count})
    return [f"--limit-mm-per-prompt '{limits}'"] if count else []


def memory_of(typed: str, summed: int) -> int:
    """Bytes that the container may have: what is typed (0: "none"), else the sum. Raises UsageError."""
    return read_memory(typed) if typed else summed


def _check(name: str, flag: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{flag} {name!r} is no name of a host", do=f"{flag} gpu.example.org, or '*' for every name")
    return name
