"""The breakdown of starts without an engine: what is compared, in which order, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench import start_breakdown
from bench.start_breakdown import BEFORE, Breakdown, Host, Plan, Settings, Started, make_plan, read_plan
from images.core.errors import UsageError
from images.docker.container_spec import NO_CARDS, Gpus
from images.proof.on_card.records.record import GpuRecord
from images.proof.on_card.runs.run import Failed, Run
from images.proof.on_card.runs.server import Streamed
from tests.helpers.contexts import context

AFTER = "after"
PLAN = Plan(
    "tiny",
    "v",
    4,
    {BEFORE: Settings(("--x",), {}), AFTER: Settings(("--x", "--y"), {"A": "1"})},
    {"VLLM_FORCE_AOT_LOAD": "1"},
)
LOG = {"empty": "Compiling a graph for compile range x takes 1 s", "kept": "Directly load AOT compilation from path x"}


@dataclass(frozen=True)
class FakeHost(Host):
    """A host whose containers are lines."""

    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    broken: str = ""

    @contextmanager
    def served(self, name: str, settings: Settings, cache: Path, more: Mapping[str, str]) -> Iterator[Started]:
        self.asked.append((name, cache.name, {**settings.environment, **more}))
        if self.broken and self.broken in name:
            raise Failed("it ended with 1")
        kind = "kept" if any(cache.iterdir()) else "empty"
        (cache / "compiled").write_text("x", encoding="utf-8")
        server = Started(self.port, 0.0, [(0.5, "preflight: fits"), (1.0, LOG[kind])], 2.0)
        yield server


def run_of(folder: Path) -> Run:
    record = GpuRecord("a card", "9.0", 0, "1", "2026-11-28T00:00:00+00:00", "image", "v", "h", {}, ())
    return Run(record, folder / "record.json", folder, {})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What servers say and how fast they are; a test changes it."""
    state: dict[str, Any] = {"answers": {"q": {"tokens": ["1"], "logprobs": [-0.5]}}, "speeds": {}}
    speeds = {"decode, batch 1": [100.0], "first token, picture": [0.5], "first token, text of 20 words": [0.02]}
    state["speeds"] = {0: speeds}
    number = iter(range(1000))
    monkeypatch.setattr(start_breakdown, "stream", lambda *_: Streamed(((3.0, 1),), "x"))
    monkeypatch.setattr(start_breakdown, "all_answers", lambda *_: state["answers"])
    monkeypatch.setattr(start_breakdown, "speeds", lambda *_: state["speeds"].get(next(number), speeds))
    return state


def breakdown(folder: Path, **more: Any) -> tuple[Breakdown, FakeHost]:
    host = FakeHost("an/image:x", folder, folder, NO_CARDS, **more)
    return Breakdown(run_of(folder), host, PLAN, 2, True, 10), host


def steps(folder: Path) -> dict[str, dict[str, Any]]:
    data = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return {step["name"]: step for step in data["steps"]}


def test_each_setting_starts_empty_and_then_with_what_it_has_left(told: dict[str, Any], tmp_path: Path) -> None:
    made, host = breakdown(tmp_path)
    made.go()
    # In turns, and the last start of each is told to end where compiled code is not read.
    assert [name for name, _, _ in host.asked] == [
        f"cardstock-start-{name}-{number}"
        for number, order in ((0, (BEFORE, AFTER)), (1, (BEFORE, AFTER)), (2, (AFTER, BEFORE)))
        for name in order
    ]
    assert {cache for name, cache, _ in host.asked if BEFORE in name} == {"before-0"}
    checked = [name for name, _, env in host.asked if "VLLM_FORCE_AOT_LOAD" in env]
    assert checked == ["cardstock-start-after-2", "cardstock-start-before-2"]
    assert all(env.get("A") == "1" for name, _, env in host.asked if AFTER in name)
    seen = steps(tmp_path)
    assert {step["verdict"] for step in seen.values()} == {"passed"}
    assert seen["start: before, kept caches, 1"]["facts"]["stages"] == {
        "container": 0.5, "healthy": 1.5, "first token": 1.0,
    }  # fmt: skip
    assert seen["decode within 2 %"]["facts"] == {"ratios": {AFTER: {"decode, batch 1": 1.0}}}
    figures = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["figures"]
    whole = [one for one in figures if one["name"] == "start to first token"]
    assert {(one["of"]["settings"], one["of"]["caches"], len(one["runs"])) for one in whole} == {
        (BEFORE, "empty", 1), (AFTER, "empty", 1), (BEFORE, "kept", 2), (AFTER, "kept", 2),
    }  # fmt: skip


def test_a_run_goes_on_where_it_was_ended(told: dict[str, Any], tmp_path: Path) -> None:
    first, _ = breakdown(tmp_path)
    first._once(BEFORE, "empty", 0)
    host = FakeHost("an/image:x", tmp_path, tmp_path, NO_CARDS)
    second = Breakdown(Run(first.run.record, tmp_path / "record.json", tmp_path, {}), host, PLAN, 1, True, 10)
    second.go()
    assert [name for name, _, _ in host.asked] == [f"cardstock-start-{n}" for n in ("after-0", "before-1", "after-1")]
    assert steps(tmp_path)["tokens the same, logprobs near"]["facts"]["against"] == "start: before, empty caches, 0"


def test_other_tokens_fail(told: dict[str, Any], tmp_path: Path) -> None:
    made, _ = breakdown(tmp_path)
    made._once(BEFORE, "empty", 0)
    told["answers"] = {"q": {"tokens": ["2"], "logprobs": [-0.5]}}
    made._once(AFTER, "empty", 0)
    with pytest.raises(Failed, match="other tokens"):
        made.same_answers()
    far, _ = breakdown(tmp_path)
    far._once(BEFORE, "empty", 0)
    told["answers"] = {"q": {"tokens": ["2"], "logprobs": [-0.9]}}
    far._once(AFTER, "empty", 0)
    with pytest.raises(Failed, match="farther than"):
        far.same_answers()


def test_a_server_that_was_started_otherwise_is_held_against_the_record(told: dict[str, Any], tmp_path: Path) -> None:
    made, _ = breakdown(tmp_path)
    start_breakdown.ask(made.run, 1, "fetched code", tiny=True)
    name = "tokens the same, logprobs near: fetched code"
    assert steps(tmp_path)[name]["verdict"] == "not run"
    made._once(BEFORE, "empty", 0)
    start_breakdown.ask(made.run, 1, "fetched code", tiny=True)
    seen = steps(tmp_path)[name]
    assert seen["verdict"] == "passed" and seen["facts"]["against"] == "start: before, empty caches, 0"
    assert seen["facts"]["starts"]["fetched code"]["same tokens"] is True
    told["answers"] = {"q": {"tokens": ["2"], "logprobs": [-0.5]}}
    start_breakdown.ask(made.run, 1, "fetched code", tiny=True)
    assert steps(tmp_path)[name]["verdict"] == "failed"


@pytest.mark.parametrize(
    ("slow", "failed"),
    [
        ({"decode, batch 1": [97.0], "first token, picture": [0.5]}, "decode within 2 %"),
        ({"decode, batch 1": [99.0], "first token, picture": [0.52]}, "first token of a picture within 2 %"),
        # Short texts are told and decide nothing: fit says that their graphs are left out.
        ({"decode, batch 1": [99.0], "first token, text of 20 words": [0.9], "first token, picture": [0.5]}, ""),
    ],
)
def test_slower_than_before_fails(told: dict[str, Any], tmp_path: Path, slow: dict[str, Any], failed: str) -> None:
    told["speeds"] = dict.fromkeys((1, 2), slow)
    made, _ = breakdown(tmp_path)
    made.go()
    assert [name for name, step in steps(tmp_path).items() if step["verdict"] == "failed"] == (
        [failed] if failed else []
    )


def test_runs_that_are_far_apart_cannot_tell_two_percent(told: dict[str, Any], tmp_path: Path) -> None:
    apart = {"decode, batch 1": [97.0, 88.0, 99.0]}
    told["speeds"] = dict.fromkeys((1, 2), apart)
    made, _ = breakdown(tmp_path)
    made.go()
    seen = steps(tmp_path)["decode within 2 %"]
    assert seen["verdict"] == "not run"
    assert seen["reason"] == f"2 % cannot be told: {AFTER}: decode, batch 1 0.97, and runs of one start are 11 % apart"


def test_what_was_not_measured_is_not_passed(told: dict[str, Any], tmp_path: Path) -> None:
    # The tiny checkpoint reads no picture for a speed.
    told["speeds"] = {number: {"first token, text of 20 words": [0.1]} for number in range(9)}
    made, _ = breakdown(tmp_path)
    made.go()
    seen = steps(tmp_path)
    assert seen["first token of a picture within 2 %"]["verdict"] == seen["decode within 2 %"]["verdict"] == "not run"
    assert "first token, text of 20 words" in seen["first token of a picture within 2 %"]["facts"]["ratios"][AFTER]


def test_a_start_that_ends_is_told_and_the_rest_goes_on(told: dict[str, Any], tmp_path: Path) -> None:
    made, host = breakdown(tmp_path, broken="after-1")
    made.go()
    seen = steps(tmp_path)
    assert seen["start: after, kept caches, 1"]["verdict"] == "failed" and len(host.asked) == 6
    assert seen["kept compiled code is read"]["verdict"] == "passed"


def test_compiling_with_kept_caches_fails(
    told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOG, "kept", LOG["empty"])
    made, _ = breakdown(tmp_path)
    made.go()
    assert "not all of it was read" in steps(tmp_path)["kept compiled code is read"]["reason"]


def test_the_container_is_serves_own_but_for_its_network(tmp_path: Path) -> None:
    host = Host("an/image:x", tmp_path, tmp_path / "model", Gpus(1, cdi=True), 1234, {"B": "2"})
    spec = host.spec("n", PLAN.settings[AFTER], tmp_path / "c", {"C": "3"})
    assert spec.read_only and spec.network == "host" and spec.gpus.cdi
    assert dict(spec.env) | {"A": "1", "B": "2", "C": "3", "CARDSTOCK_PORT": "1234"} == dict(spec.env)
    assert spec.arguments == ("--served-model-name", "measured", "--x", "--y", "--host", "127.0.0.1")


def test_a_plan_has_what_fit_sets_and_nothing_of_it_before(tmp_path: Path) -> None:
    plan = make_plan(context(), "3b-awq", "H200", "cu130-vllm0.33.0-flash-attn-sm90")
    before, seen, named = plan.settings.values()
    assert not {"--cudagraph-capture-sizes", "--kv-cache-memory-bytes", "--additional-config"} & set(before.flags)
    assert "VLLM_ENABLE_STARTUP_PLAN" not in before.environment
    assert "--kv-cache-memory-bytes" in seen.flags and "VLLM_ENABLE_STARTUP_PLAN" in named.environment
    assert seen.flags[: len(before.flags)] == named.flags[: len(before.flags)] == before.flags
    assert (plan.seqs, plan.check) == (64, {"VLLM_FORCE_AOT_LOAD": "1"})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    assert read_plan(tmp_path / "plan.json") == plan
    old = make_plan(context(), "7b-awq", "2080 Ti", "")
    assert list(old.settings) == [BEFORE] and old.check == {}  # V0: nothing of it is given


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"settings": 1}', PLAN.to_json().replace('"before"', '"x"'), PLAN.to_json().replace("4", "0")]
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="no plan of starts"):
        read_plan(tmp_path / "plan.json")
