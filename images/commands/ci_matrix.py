"""What CI's workflows run one job for each of: `./inv plan --json` and `./inv kernels --json` as job matrices.

    ./inv plan --all --json | .venv/bin/python -m images.commands.ci_matrix images
    ./inv plan --all --json | .venv/bin/python -m images.commands.ci_matrix stacks
    ./inv kernels --list --json --wheels REPO | .venv/bin/python -m images.commands.ci_matrix kernels 'cu124-*'

The last takes a glob on ids of variants (or of kernels), as `--only` does.
Each prints one line, ``name=JSON``, as $GITHUB_OUTPUT takes it. Pure but for that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from images.core import UsageError, print_error

# A matrix makes at most 256 jobs (GitHub, "Running variations of jobs in a workflow").
MOST_JOBS = 250
Row = Mapping[str, Any]


def images(rows: Iterable[Row]) -> list[list[dict[str, Any]]]:
    """The variants that may be published (their stack is locked), in lists that a matrix takes."""
    found = [_image(row) for row in rows if row["state"] == "locked"]
    return [found[start : start + MOST_JOBS] for start in range(0, len(found), MOST_JOBS)]


def stacks(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One variant for each locked stack and engine, the one for the fewest cards: does it still build?"""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["stack"], row["engine"])
        if row["state"] == "locked" and (key not in first or _weight(row) < _weight(first[key])):
            first[key] = row
    return _within([_image(row) for row in first.values()])


def kernels(rows: Iterable[Row], only: str = "*") -> list[dict[str, Any]]:
    """The kernel wheels of some variants that are nowhere yet; one without a key is of a stack that is not locked."""
    return _within(
        [
            {"id": row["id"], "archs": " ".join(row["archs"])}
            for row in rows
            if row["where"] == "not built" and any(fnmatchcase(name, only) for name in (row["id"], *row["variants"]))
        ]
    )


def _image(row: Row) -> dict[str, Any]:
    return {"id": row["id"], "tag": row["tags"][0], "archs": " ".join(row["archs"])}


def _weight(row: Row) -> tuple[int, int]:
    """Fewest cards first, and of those the one whose kernel compiles soonest."""
    return len(row["archs"]), [None, "flashinfer", "xformers", "flash-attn"].index(row["kernel"])


def _within(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(found) > MOST_JOBS:
        raise UsageError(
            f"{len(found)} jobs are more than a workflow's matrix takes",
            cause=f"it makes at most {MOST_JOBS}",
            do="select fewer, with --only",
        )
    return found


KINDS: dict[str, Callable[..., object]] = {"images": images, "stacks": stacks, "kernels": kernels}


def main(words: Sequence[str], text: str) -> str:
    """The line for ``words`` (one of KINDS, and its globs) and the JSON of an invoke task. Raises UsageError."""
    kind, *more = words or [""]
    if kind not in KINDS or len(more) > (kind == "kernels"):
        raise UsageError(f"which jobs? {' '.join(words)!r} is none", do=f"one of: {', '.join(KINDS)}")
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise UsageError("what came in is no JSON", cause=str(error), do="./inv plan --all --json | …") from error
    return f"{kind}={json.dumps(KINDS[kind](rows, *more), separators=(',', ':'))}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:], sys.stdin.read()))
    except UsageError as mistake:
        sys.exit(print_error(mistake))
