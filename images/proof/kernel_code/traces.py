"""What processes beside a server wrote down of Triton's compiler, as a list of kernels without twins. Pure.

Triton compiles a kernel anew for each set of types, constants and hints (an argument that is 1, or a multiple of 16),
and torch.compile writes kernels for each model. Of those that differ in hints alone, the one that needs the most shared
memory stays; of generated ones, as many as `GENERATED` for a model, the ones that need the most.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST_LINES, MOST_LENGTH = 200_000, 200_000
GENERATED = 6


def read_lines(texts: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The kernels of a run's files, and what could not be written down or read."""
    found, problems = [], []
    for count, line in enumerate(line for text in texts for line in text.splitlines()):
        if count >= MOST_LINES or len(line) > MOST_LENGTH:
            problems.append("there is more than a run of a server writes: the rest is left out")
            break
        try:
            read = json.loads(line)
        except ValueError:
            problems.append(f"no line of a trace: {line[:80]}")
            continue
        if "problem" in read:
            problems.append(str(read["problem"]))
        else:
            found.append(read)
    return found, list(dict.fromkeys(problems))


def merge(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[list[dict[str, Any]], int]:
    """Kernels of several models (model: lines of its run), the heaviest first; how many generated ones are left out.

    Each has ``models``, ``variants`` (how many of its kind were compiled), ``shared`` and ``dots`` as seen in the run.
    """
    kinds: dict[str, dict[str, Any]] = {}
    for model, lines in runs.items():
        for line in lines:
            kind = kind_of(line["entry"])
            found = kinds.setdefault(kind, {"line": line, "models": {}, "keys": set()})
            found["models"][model] = None
            found["keys"].add(line["key"])
            if line["shared"] > found["line"]["shared"]:
                found["line"] = line
    listed = sorted(kinds.values(), key=lambda one: (-one["line"]["dots"], -one["line"]["shared"]))
    out, generated = [], dict.fromkeys(runs, 0)
    left = 0
    for one in listed:
        line = one["line"]
        if line["entry"].get("source"):
            if all(generated[model] >= GENERATED for model in one["models"]):
                left += 1
                continue
            for model in one["models"]:
                generated[model] += 1
        seen = {"models": list(one["models"]), "variants": len(one["keys"])}
        out.append({**line["entry"], **seen, "shared": line["shared"], "dots": line["dots"]})
    return out, left


def kind_of(entry: Mapping[str, Any]) -> str:
    """The same for entries that differ in hints alone: an argument that is 1 counts as any other number."""
    constants = {name: value for name, value in entry["constants"].items() if value != 1 or isinstance(value, bool)}
    types = sorted(str(kind) for kind in entry["signature"].values() if str(kind).startswith("*"))
    text = re.sub(rf"\bdef {re.escape(entry['name'])}\(", "def kernel(", entry.get("source", ""))
    name = "" if text else f"{entry['module']}:{entry['name']}"
    return json.dumps([name, text, constants, types, entry["options"]], sort_keys=True)
