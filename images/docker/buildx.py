"""Running bake: all of its output into a log, what people want to see of it on the screen, and why it broke."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from images.core import CheckFailed, Report, human_seconds, process

LOGS = "build/logs"

# BuildKit's plain progress: "#12 [venv 3/5] RUN …", "#12 0.6 what it says", "#12 DONE 3.2s", "#12 CACHED".
_LINE = re.compile(r"#(?P<number>\d+) (?:\[(?P<stage>[^\]]+)\] (?P<what>.+)|DONE (?P<seconds>[\d.]+)s|(?P<said>.+))")
_SAYS = re.compile(r"[\d.]+ (?:kernel-build: (?P<kernel>.+))?")
_SCRIPT = re.compile(r"RUN .*\[\"/run/build/(?P<name>[\w-]+)\"(?P<words>.*)\]$")
_SHORT = 1.0  # seconds; what took less is not told


def run_bake(
    root: Path,
    files: Sequence[Path | str],
    targets: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    report: Report,
    *,
    broke: str = "the build broke; nothing was tagged",
    builder: str = "",
    metadata: Path | None = None,
) -> None:
    """`docker buildx bake` of ``targets`` in ``root``, its output in ``log``. Raises CheckFailed, told as ``broke``.

    ``builder`` is another one than the engine's own; ``metadata`` gets what it says of each target.
    """
    argv = ["docker", "buildx", "bake", "--progress=plain"]
    argv += ["--builder", builder] if builder else []
    argv += ["--metadata-file", str(metadata)] if metadata else []
    argv += [word for file in files for word in ("-f", str(file))]
    log.parent.mkdir(parents=True, exist_ok=True)
    steps = Steps()
    with log.open("w", encoding="utf-8", buffering=1) as out:

        def on_line(line: str) -> None:
            out.write(line + "\n")
            for text in steps.told(line):
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


class Steps:
    """What of BuildKit's progress people should see: the steps that really run, and how long each took.

    A step is told when it says its first word, or when it ends: one that comes from the cache does neither.
    """

    def __init__(self) -> None:
        self._titles: dict[str, str] = {}
        self._begun: set[str] = set()

    def told(self, line: str) -> Iterator[str]:
        """What one line adds, if anything."""
        match = _LINE.fullmatch(line)
        if match is None:
            return
        number = match["number"]
        if match["stage"]:
            if not match["stage"].startswith("internal") and "context " not in match["stage"]:
                self._titles.setdefault(number, title(match["stage"], match["what"]))
        elif match["seconds"]:
            took = float(match["seconds"])
            if number in self._titles and (number in self._begun or took >= _SHORT):
                yield f"done  {self._titles[number]}: {human_seconds(took)}"
        elif says := _SAYS.match(match["said"]):
            if number in self._titles and number not in self._begun:
                self._begun.add(number)
                yield f"start {self._titles[number]}"
            if says["kernel"]:
                yield f"kernel: {says['kernel']}"


def title(stage: str, what: str) -> str:
    """A step in few words: "cpu-vllm0-32-0-sdpa venv: venv-install" for BuildKit's "[… venv 1/1] RUN --mount=…"."""
    where = re.sub(r" +\d+/\d+$", "", stage)
    if match := _SCRIPT.match(what):
        words = " ".join(re.findall(r'"([^"]+)"', match["words"]))
        what = f"{match['name']} {words}".strip()
    return f"{where}: {what[:80]}"


def last_error(tail: str) -> str:
    """The part of a broken build's last lines that says why."""
    lines = [line for line in tail.splitlines() if line.strip()]
    said = [line for line in lines if re.search(r"error|failed|no space|killed", line, re.IGNORECASE)]
    return "\n".join((said or lines)[-12:])
