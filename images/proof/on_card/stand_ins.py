"""On a card: no step called a stand-in, and what the stand-ins stand in for says so when it is called on purpose."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from images.core import process
from images.device_code.stand_ins.made import DISTRIBUTION, Made, stand_ins_of
from images.device_code.stand_ins.source import CALLS
from images.proof.on_card.inside import call_stand_ins
from images.proof.on_card.runs import Failed, NotRun, Run
from images.proof.smoke import Call, StandInCalls, said_beyond

PROGRAM = Path(call_stand_ins.__file__)
_MOST_LOG = 64 << 20  # bytes of one server's log


def site_of(run: Run, content: str) -> Path | None:
    """Where the content's packages are; inside an image the folder of its stand-ins, None where it has none."""
    if run.sites.get(content):
        return run.sites[content]
    found = next(iter(metadata.distributions(name=DISTRIBUTION)), None)
    return Path(str(found.locate_file(""))) if found else None


def stand_ins_in(run: Run, content: str) -> Made:
    """The content's stand-ins. Raises NotRun where it has none."""
    site = site_of(run, content)
    made = stand_ins_of(site) if site else Made()
    if not made.stand_ins:
        raise NotRun(f"no stand-ins are among the packages of {content}")
    return made


def calls_of(run: Run, content: str) -> tuple[Call, ...]:
    """By the file that every process of the content was told of."""
    file = run.calls_file(content)
    if not file.is_file():
        return ()
    with file.open(encoding="utf-8", errors="replace") as lines:
        counted = Counter(line.strip() for line in lines)
    return tuple(Call(*line.partition(" ")[::2], count) for line, count in counted.most_common())


def none_called(run: Run, content: str) -> Mapping[str, Any]:
    """How often the steps before this one called one: 0, or Failed with who was called."""
    made = stand_ins_in(run, content)
    counted = calls_of(run, content)
    calls = list(counted)
    for log in sorted(run.scratch.glob("server-*.log")):
        with log.open("rb") as file:
            text = file.read(_MOST_LOG).decode(errors="replace")
        calls += said_beyond(counted, text)
    told = StandInCalls(tuple(calls), tuple((one.file, one.used_for) for one in made.stand_ins))
    facts = {"stand-ins called": told.fact, "stand-ins": [one.file for one in made.stand_ins]}
    facts["calls"] = [f"{call.library} {call.function} {call.count}" for call in calls]
    if complaint := told.complaint():
        raise Failed(complaint, facts)
    return facts


def called_on_purpose(run: Run, content: str) -> Mapping[str, Any]:
    """torch must raise, and the stand-in say its sentence; counted in a file of their own."""
    stand_ins_in(run, content)
    env = run.env(content, **{CALLS: str(run.scratch / "stand-in-calls-on-purpose")})
    # -P: the program's own folder is not searched, whose modules would hide the standard library's of the same name.
    done = process.run([sys.executable, "-P", str(PROGRAM)], env=env, check=False, timeout=400)
    if done.code == call_stand_ins.NO_CARD:
        raise NotRun("torch sees no card")
    try:
        facts: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Failed(f"{PROGRAM.name} ended with {done.code}: {(done.err or done.out)[-600:]}") from error
    if wrong := {name: row["verdict"] for name, row in facts["cases"].items()} if not facts["ok"] else {}:
        raise Failed("; ".join(f"{name}: {verdict}" for name, verdict in wrong.items()), facts)
    return facts
