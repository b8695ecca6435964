"""Where a start of a server goes, read off the lines of its log and their times; answers held against answers. Pure.

Lines as vLLM 0.8.5.post1, 0.19.1, 0.32.0 and 0.33.0 write them (v1/engine/core.py, v1/worker/gpu_worker.py,
v1/worker/gpu_model_runner.py, compilation/monitor.py, backends.py, decorators.py, v1/worker/startup_plan.py).
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from images.proof.on_card.runs import MARKS

# A line with its seconds from `docker run` on.
Line = tuple[float, str]
CONTAINER, PROFILE = "container", "profile run, memory"
HEALTHY, FIRST = "healthy", "first token"
_PROFILE = (
    r"Available KV cache memory|as specified by kv_cache_memory_bytes config|Memory profiling takes|"
    r"# (?:GPU|CPU|cuda|cpu) blocks|Explicitly set .* for KV cache"
)
# As vLLM 0.8.5.post1 says the same.
_OLDER = {
    "server's imports": r"vLLM API server version",
    "engine's process and imports": r"Initializing a V0 LLM engine",
    "compilation": r"torch\.compile takes .* in total",
}
# What has ended when a line says so; "container" is over with the first line.
STAGES: Mapping[str, str] = {
    CONTAINER: "",
    **{name: "|".join(filter(None, (mark, _OLDER.get(name)))) for name, mark in MARKS.items()},
    PROFILE: _PROFILE,
}
_READ = re.compile(r"Directly load (?:AOT compilation|the (?:compiled graph|\d+-th graph))")
_MADE = re.compile(r"Compiling a graph for|Cache the graph of|Compiling model again due to a load failure")
_KEPT = re.compile(r"Applying persisted startup plan|Saved startup plan|Startup plan not applied")
_TIMED = re.compile(r" took |takes|Directly load|startup plan|KV cache|Capturing|Graph capturing|[Cc]ompil")
MOST_LINES, MOST_CHARACTERS = 40, 240


def stage_ends(lines: Sequence[Line]) -> dict[str, float]:
    """Seconds from the start to the end of each stage that the log tells; one that it does not tell is left out."""
    ends: dict[str, float] = {}
    for at, text in lines:
        for name, pattern in STAGES.items():
            if name not in ends and re.search(pattern, text):
                ends[name] = round(at, 3)
    return ends


def stage_seconds(ends: Mapping[str, float]) -> dict[str, float]:
    """Each stage's own seconds: from the end of the one before it in time."""
    out, before = {}, 0.0
    for name, at in sorted(ends.items(), key=lambda item: item[1]):
        out[name] = round(at - before, 3)
        before = at
    return out


def compiled_code(lines: Sequence[Line]) -> str:
    """ "read", "compiled", "read and compiled", or "" where the log tells of neither, as without torch.compile."""
    said = [name for name, pattern in (("read", _READ), ("compiled", _MADE)) if _any(pattern, lines)]
    return " and ".join(said)


def plan_told(lines: Sequence[Line]) -> str:
    """What the log says of vLLM's startup plan: its first line of it; "" without one."""
    return next((_plain(text) for _, text in lines if _KEPT.search(text)), "")


def timed_lines(lines: Sequence[Line]) -> list[str]:
    """The lines that tell what took how long, without vLLM's date."""
    kept = [f"{at:.2f} {_plain(text)}" for at, text in lines if _TIMED.search(text) and "config:" not in text]
    return kept[:MOST_LINES]


def _any(pattern: re.Pattern[str], lines: Sequence[Line]) -> bool:
    return any(pattern.search(text) for _, text in lines)


def _plain(text: str) -> str:
    return re.sub(r"^.*?(?:INFO|WARNING|ERROR) [\d-]+ [\d:.]+ ", "", text).strip()[:MOST_CHARACTERS]


def compare_answers(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the tokens of all answers are the same, the first that differs, and the greatest distance of logprobs.

    An answer is {"tokens": [...], "logprobs": [...]}; the distance is over the places where the tokens are the same.
    """
    differ = [name for name in first if first[name]["tokens"] != other.get(name, {}).get("tokens")]
    distance = 0.0
    for name in first.keys() & other.keys():
        pairs = (zip(one[name]["tokens"], one[name]["logprobs"], strict=True) for one in (first, other))
        for (token, told), (again, value) in zip(*pairs, strict=False):
            if token != again:
                break
            distance = max(distance, abs(told - value))
    return {"same tokens": not differ and first.keys() == other.keys(), "differ": differ, "logprob distance": distance}


def ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    """Median over median; 0 where one was not measured."""
    return round(statistics.median(ours) / statistics.median(peers), 4) if ours and peers else 0.0
