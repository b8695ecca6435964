"""The doctor before a real engine, and before none: it starts nothing and leaves nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from images.core import process
from images.docker.engine import Engine
from images.run.doctor.facts import EngineFacts
from images.run.doctor.gather import gather_facts

ROOT = Path(__file__).parents[2]


def test_what_the_engine_says_is_what_the_doctor_sees(engine: Engine) -> None:
    facts = gather_facts(ROOT, []).engine
    assert isinstance(facts, EngineFacts), facts
    assert facts.endpoint == engine.endpoint
    assert facts.host.version == engine.version
    assert facts.host.architecture == "x86_64"
    assert "runc" in facts.host.runtimes
    assert facts.host.memory > 0
    assert facts.buildx == engine.buildx_version()


def doctor(env: dict[str, str]) -> tuple[int, dict[str, Any]]:
    argv = [sys.executable, "-m", "images.commands.program", "doctor", "--json"]
    done = process.run(argv, cwd=ROOT, env=env, check=False, timeout=120)
    return done.code, json.loads(done.out)


def test_without_an_engine_it_says_so_and_starts_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    nowhere = f"unix://{tmp_path / 'none.sock'}"
    code, result = doctor({"CARDSTOCK_HOME": str(home), "DOCKER_HOST": nowhere})
    states = {check["name"]: check for check in result["checks"]}
    assert (code, result["ok"]) == (1, False)
    assert states["engine"]["state"] == "wrong"
    assert nowhere in states["engine"]["what"]
    assert states["engine"]["do"]
    assert not home.exists()
