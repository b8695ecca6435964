"""Prove an image: run the smoke levels on it with pytest, and return the record."""

from __future__ import annotations

import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from images.core import CardstockError, Report, process, work_folder
from images.proof.smoke.expectation import Expectation
from images.proof.smoke.record import ProofRecord

ROOT = Path(__file__).parents[3]
LEVELS = Path(__file__).parent / "levels"
FILES = {
    1: ("test_1_audit.py", "test_1b_kernels.py"),
    2: ("test_2_stack.py",),
    3: ("test_3_canary.py",),
    4: ("test_4_server.py",),
}
# pytest: 0 is all passed, 1 is some failed; both leave a record. Anything else is no verdict on the image.
VERDICTS = (0, 1)
# Start of a server with real weights on a slow disk, three times over.
LIMIT = 5400.0
# What the environment adds to pytest is not for this run.
OWN_ENV = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_ADDOPTS": "",
    "PYTHONDONTWRITEBYTECODE": "1",
}
HEAD = ("platform ", "rootdir:", "configfile:", "plugins:", "collecting ", "cachedir:", "hypothesis profile", "=====")


def prove_image(
    image: str,
    expectation: Expectation,
    *,
    engine_env: Mapping[str, str],
    model: str | None = None,
    gpus: str | None = None,
    levels: Iterable[int] = (1, 2, 3, 4),
    report: Report | Callable[[str], None] | None = None,
    checkpoint: Path | None = None,
    health_limit: float = 900.0,
    stop_limit: float = 30.0,
) -> ProofRecord:
    """The record of ``image``, also when a level failed (see ``Record.ok``).

    ``engine_env`` is added to the environment (DOCKER_HOST and the like); ``model`` is a folder or a hub's id;
    ``gpus`` is "all" or None; ``health_limit`` and ``stop_limit`` are seconds that a server may take to get healthy
    and to end. Containers and volumes of the run are gone afterwards, also after a crash. Raises CardstockError when
    the levels could not be run: that says nothing about the image.
    """
    run = uuid.uuid4().hex[:12]
    say = report.line if isinstance(report, Report) else report or (lambda _: None)
    env = {**engine_env, **OWN_ENV}
    with work_folder("smoke") as folder:
        promised, record = folder / "expectation.json", folder / "record.json"
        promised.write_text(expectation.to_json())
        options = {
            "--image": image,
            "--expectation": promised,
            "--record": record,
            "--run": run,
            "--model": model,
            "--gpus": gpus,
            "--checkpoint": checkpoint,
            "--health-limit": health_limit,
            "--stop-limit": stop_limit,
        }
        whole = False
        try:
            _pytest(_arguments(sorted(levels), options), env, say, record)
            whole = True
        except process.ProcessFailed as error:
            raise CardstockError(
                f"the smoke levels could not be run on {image}",
                cause=error.tail,
                do="see that the engine answers and the image is there, then run it again",
                where=str(LEVELS.relative_to(ROOT)),
            ) from error
        finally:
            if not whole:  # a run that came to its end has removed what it made before it wrote its record
                clean = [sys.executable, "-m", "images.docker.temporary_containers", run]
                process.run(clean, cwd=ROOT, env=env, check=False, timeout=120)
        return ProofRecord.from_json(record.read_text(), image)


def _arguments(levels: list[int], options: Mapping[str, object]) -> list[str]:
    argv = [sys.executable, "-m", "pytest", "-c", str(LEVELS / "pytest.ini"), "--rootdir", str(LEVELS), "-v"]
    argv += [str(LEVELS / file) for level in levels for file in FILES[level]]
    for name, value in options.items():
        argv += [name, str(value)] if value is not None else []
    return argv


def _pytest(argv: list[str], env: Mapping[str, str], say: Callable[[str], None], record: Path) -> None:
    """Run it and show its lines, save its own head. Raises ProcessFailed with the last lines when it left no record."""
    last: deque[str] = deque(maxlen=process.TAIL_LINES)

    def on_line(line: str) -> None:
        last.append(line)
        if line.strip() and not line.startswith(HEAD):
            say(line)

    code = process.stream(argv, on_line, cwd=ROOT, env=env, check=False, timeout=LIMIT)
    if code not in VERDICTS or not record.is_file():
        last.append(f"pytest ended with {code} and left no record")
        raise process.ProcessFailed(argv, code, "\n".join(last))
