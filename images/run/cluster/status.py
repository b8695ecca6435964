"""What `ray status` says, read: how much of each resource the cluster has. Pure.

`ray status` needs nothing but Ray's core; `ray list nodes` asks the dashboard, which the images have not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from images.core import CheckFailed
from images.run.cluster.hosts import Host
from images.run.cluster.nodes import resource

_USAGE = re.compile(r"^ (?P<used>[\d.]+)/(?P<whole>[\d.]+) (?P<name>\S+)")
_PART = re.compile(r"^(?P<title>[A-Z][A-Za-z_ ]*):\s*$")


@dataclass(frozen=True)
class RayStatus:
    """Nodes that are alive, and of each resource (used, whole); memory, which is told in words, is left out."""

    nodes: int
    resources: dict[str, tuple[float, float]]

    @property
    def slots(self) -> int:
        """Parts of a model that it has a place for."""
        return int(self.resources.get("GPU", (0.0, 0.0))[1])

    @property
    def taken(self) -> int:
        """Those that are taken."""
        return int(self.resources.get("GPU", (0.0, 0.0))[0])

    def joined(self, hosts: Iterable[Host]) -> frozenset[str]:
        """Names of the hosts that are in it."""
        return frozenset(host.name for host in hosts if self.resources.get(resource(host), (0, 0))[1] > 0)


def read_status(text: str) -> RayStatus:
    """`ray status` of Ray 2.40 to 2.60. Raises CheckFailed for a text that is none."""
    if "No cluster status" in text:  # Ray's head has come up, and has not counted yet
        return RayStatus(0, {})
    part, nodes, resources = "", 0, dict[str, tuple[float, float]]()
    seen = False
    for line in text.splitlines():
        if title := _PART.match(line):
            part = title["title"]
            seen = seen or part == "Active"
        elif not line.strip():
            part = ""
        elif part in ("Active", "Idle") and (count := re.match(r"^ (\d+) \S", line)):
            nodes += int(count[1])
        elif part in ("Usage", "Total Usage") and (usage := _USAGE.match(line)):
            resources[usage["name"]] = (float(usage["used"]), float(usage["whole"]))
    if not seen:
        raise CheckFailed("ray status says something unexpected", cause=text.strip()[-400:] or "nothing at all")
    return RayStatus(nodes, resources)
