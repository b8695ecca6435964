"""Levels 3 and 4: was a stand-in called? Read inside the container, told outside. Pure, but for `calls_in`.

A stand-in appends a line "LIBRARY FUNCTION" to the file that CARDSTOCK_STAND_IN_CALLS names for each call, and says
once in a process on stderr that it was called. Both are looked for: a process may not have had the variable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from images.core import CheckFailed
from images.device_code.stand_ins.source import CALLS, SAID

if TYPE_CHECKING:  # a host with a card alone has no docker-py
    from images.docker import TemporaryContainer

# The place is a tmpfs of every container of the proof.
FILE = "/tmp/cardstock-stand-in-calls"  # noqa: S108  (a path in the container)
COUNT_CALLS: Mapping[str, str] = {CALLS: FILE}
_MOST = 200  # functions told apart; calls beyond are counted together
_LONGEST = 300

# Prints one JSON object: "calls" as [line, count], "stand-ins" as [path below site-packages, what for].
READ_SCRIPT = f"""
import collections, importlib.metadata as m, json, os, sys
counts = collections.Counter()
if os.path.exists(sys.argv[1]):
    with open(sys.argv[1], errors="replace") as file:
        for line in iter(lambda: file.readline({_LONGEST}), ""):
            line = line.strip()
            counts[line if line in counts or len(counts) < {_MOST} else "others"] += 1
rows = []
for found in m.distributions(name="cardstock-stand-ins"):
    rows += json.loads(found.read_text("stand_ins.json") or "{{}}").get("stand_ins", [])
print(json.dumps({{"calls": counts.most_common(), "stand-ins": [[row["file"], row["used_for"]] for row in rows]}}))
"""


@dataclass(frozen=True)
class Call:
    """Calls of one function: the library by its SONAME, and how often."""

    library: str
    function: str
    count: int = 1


@dataclass(frozen=True)
class StandInCalls:
    """What was called, and the stand-ins that are there: path below site-packages and what the library is for."""

    calls: tuple[Call, ...] = ()
    stand_ins: tuple[tuple[str, str], ...] = ()

    @property
    def fact(self) -> str:
        """ "0 calls of 5 stand-ins"."""
        count = sum(call.count for call in self.calls)
        there = len(self.stand_ins)
        return f"{count} call{'s' * (count != 1)} of {there} stand-in{'s' * (there != 1)}"

    def complaint(self) -> str:
        """Why the proof fails: who was called, for what, what to do; "" where nobody was."""
        if not self.calls:
            return ""
        told = [f"{one.function} of {one.library}{self._for(one)}, {_times(one.count)}" for one in self.calls[:5]]
        more = f"; and {len(self.calls) - 5} more functions" if len(self.calls) > 5 else ""
        return (
            f"a stand-in was called: {'; '.join(told)}{more}. This image leaves that library out, and serving needs "
            "it: the row of matrix.yaml (stand_ins) is wrong for this stack. Correct its `when`, or build with --whole"
        )

    def _for(self, call: Call) -> str:
        used_for = next((use for file, use in self.stand_ins if fnmatchcase(file, f"*/{call.library}")), "")
        return f" ({used_for})" if used_for else ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def calls_in(container: TemporaryContainer, log: str) -> StandInCalls:
    """What was called in a container that runs, by its file and ``log``. Raises CheckFailed where it does not say."""
    finished = container.run(["python", "-c", READ_SCRIPT, FILE])
    return read_calls(finished.out if not finished.code else finished.tail, log)


def read_calls(printed: str, log: str = "") -> StandInCalls:
    """What `READ_SCRIPT` printed, and what a log has of sentences that no line of the file stands for.

    Raises CheckFailed where it printed something else.
    """
    try:
        told = json.loads(printed.strip().splitlines()[-1])
        counted = [_call(str(line), int(count)) for line, count in told["calls"]]
        stand_ins = tuple((str(file), str(use)) for file, use in told["stand-ins"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckFailed(
            "whether a stand-in was called cannot be told",
            cause=f"the image's Python printed {printed.strip()[-200:]!r}",
            do="see that it starts: docker run --rm --entrypoint python IMAGE -c 'print(1)'",
        ) from error
    return StandInCalls((*counted, *said_beyond(counted, log)), stand_ins)


def said_beyond(counted: Iterable[Call], log: str) -> list[Call]:
    """The calls that a log tells of and no line of the file stands for."""
    known = {(call.library, call.function) for call in counted}
    return [call for call in said_in(log) if (call.library, call.function) not in known]


def said_in(log: str) -> Sequence[Call]:
    """The calls that sentences in a log tell of, each once: "… stand-in called: FUNCTION of LIBRARY, for …"."""
    found: dict[tuple[str, str], Call] = {}
    for line in log.splitlines():
        _, marker, rest = line.partition(SAID)
        if marker:
            function, _, library = rest.partition(" of ")
            name = library.partition(",")[0].strip()
            found.setdefault((name, function), Call(name or "a library", function[:_LONGEST]))
    return list(found.values())


def _call(line: str, count: int) -> Call:
    library, _, function = line.partition(" ")
    return Call(library, function or "others", count)
