"""Running bake: all of its output into a log, what people want to see of it on the screen, and why it broke."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from images import process
from images.errors import CheckFailed
from images.report import Report

LOGS = "build/logs"

# BuildKit's plain progress: "#12 [venv 3/5] RUN …", "#12 DONE 3.2s", "#12 CACHED", and what kernel-build says.
_STAGE = re.compile(r"#\d+ \[(?P<stage>[^\]]+)\] (?P<what>.+)")
_KERNEL = re.compile(r"#\d+ [\d.]+ kernel-build: (?P<said>.+)")


def run_bake(
    root: Path,
    files: Sequence[Path | str],
    targets: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    report: Report,
    *,
    broke: str = "the build broke; nothing was tagged",
) -> None:
    """`docker buildx bake` of ``targets`` in ``root``, its output in ``log``. Raises CheckFailed, told as ``broke``."""
    argv = ["docker", "buildx", "bake", "--progress=plain"]
    argv += [word for file in files for word in ("-f", str(file))]
    log.parent.mkdir(parents=True, exist_ok=True)
    shown: set[str] = set()
    with log.open("w", encoding="utf-8", buffering=1) as out:

        def on_line(line: str) -> None:
            out.write(line + "\n")
            if (text := interesting(line)) and text not in shown:
                shown.add(text)
                report.line(text)

        try:
            process.stream([*argv, *targets], on_line, cwd=root, env=env)
        except process.ProcessFailed as error:
            raise CheckFailed(
                broke,
                cause=last_error(error.tail),
                do="mend the cause and run the same again: finished steps are kept",
                where=f"{log.relative_to(root)} (all of its output)",
            ) from error


def interesting(line: str) -> str | None:
    """The line of BuildKit's progress as people should see it, None for most."""
    if match := _KERNEL.match(line):
        return f"kernel: {match['said']}"
    match = _STAGE.match(line)
    if match is None or match["stage"].startswith("internal"):
        return None
    return f"[{match['stage']}] {match['what'][:100]}"


def last_error(tail: str) -> str:
    """The part of a broken build's last lines that says why."""
    lines = [line for line in tail.splitlines() if line.strip()]
    said = [line for line in lines if re.search(r"error|failed|no space|killed", line, re.IGNORECASE)]
    return "\n".join((said or lines)[-12:])
