"""Where a start goes, for real: vLLM 0.32.0 in the image for the CPU, without and with what fit tells 0.33.0's server.

It computes nothing by these settings, for it captures no graphs; but its parser, its configuration and its server take
them, as a server on a card would.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import start_breakdown
from bench.start_breakdown import BEFORE, Plan, Settings
from images.docker.connection import connect
from images.run.fit.choose import fit
from images.run.fit.start import start_settings
from tests.engine.cpu_server import docker, free_port
from tests.helpers.fits import ask
from tests.helpers.matrices import matrix

CPU = "cpu-vllm0.32.0-sdpa"
LENGTH = ("--max-model-len", "2048")


@pytest.mark.timeout(1800)  # two starts, on a machine that may be busy
def test_a_server_starts_with_the_settings_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect()
    image = f"{matrix().image}:{CPU}"
    if engine.inspect(image) is None:
        pytest.skip(f"{image} is not built: ./inv build --only '{CPU}'")
    for name, value in engine.cli_env().items():
        monkeypatch.setenv(name, value)
    made = start_settings(fit(ask("3b-awq", "H200", by="cu130-vllm0.33.0-flash-attn-sm90")))
    after = Settings((*LENGTH, *made.flags), dict(made.environment))
    plan = Plan("tiny", CPU, 2, {BEFORE: Settings(LENGTH, {}), "after": after}, {})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    words = ["run", "--image", image, "--model", "tiny", "--by", "none", "--rounds", "0", "--decoded", "8"]
    words += ["--port", str(free_port()), "--plan", str(tmp_path / "plan.json"), "--scratch", str(tmp_path)]
    start_breakdown.main([*words, "--only", "start: *", "--only", "tokens*", "--out", str(tmp_path / "record.json")])
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    seen = {step["name"]: step for step in record["steps"]}
    assert {name: step["verdict"] for name, step in seen.items()} == {
        "start: before, empty caches, 0": "passed",
        "start: after, empty caches, 0": "passed",
        "tokens the same, logprobs near": "passed",
    }, [step["reason"] for step in seen.values()]
    stages = seen["start: after, empty caches, 0"]["facts"]["stages"]
    assert {"container", "server's imports", "server's start", "healthy", "first token"} <= set(stages)
    assert docker(engine, ["ps", "--all", "--filter", "name=cardstock-start-", "--quiet"]).strip() == ""
