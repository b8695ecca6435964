"""The proof on a card, as far as it goes without one: what is asked, how it is judged, how it is started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from images.cards.this_machine import LocalCard, LocalMachine
from images.core.errors import CheckFailed, NothingSelected
from images.docker.container_spec import ALL_CARDS, Mount
from images.docker.gpu_access import Way
from images.matrix.arch import Arch
from images.proof.on_card import backends, wrong_arch
from images.proof.on_card.backends import compare_speed, judge_speed, ratio
from images.proof.on_card.proof import Subject, card_of, make_spec, prove
from images.proof.on_card.prove import open_record, read_words
from images.proof.on_card.records.reading import read_gpu_record
from images.proof.on_card.records.record import Figure, GpuRecord, Step
from images.proof.on_card.runs.run import Failed, NotRun, Run
from tests.helpers.card_runs import bare_record


def test_a_machine_without_a_card_says_so() -> None:
    with pytest.raises(NothingSelected) as error:
        card_of(LocalMachine(why="no NVIDIA driver: libnvidia-ml.so.1 is not there"))
    assert "libnvidia-ml" in str(error.value)
    assert error.value.exit_code == 3
    assert card_of(LocalMachine(cards=(LocalCard("Tesla T4", "GPU-1", Arch(7, 5), 1),))) == "Tesla T4"


def test_the_container_gets_the_card_the_checkout_and_what_the_image_is() -> None:
    labels = {"dev.cardstock.variant": "cu130-x-sm90", "dev.cardstock.input": "ab"}
    subject = Subject("cardstock/x:y", labels)
    spec = make_spec(subject, Path("/repo"), Path("/out"), ["vllm*"])
    assert (spec.gpus, spec.network, spec.read_only, spec.entrypoint) == (ALL_CARDS, "none", True, ("python",))
    assert spec.mounts == (Mount("/repo", "/checkout"), Mount("/out", "/proof", read_only=False))
    assert spec.arguments[:2] == ("-m", "images.proof.on_card.prove")
    assert spec.arguments[-2:] == ("--only", "vllm*")
    assert spec.arguments[spec.arguments.index("--variant") + 1] == "cu130-x-sm90"


@pytest.mark.parametrize(("way", "given", "cdi"), [("cdi", "cdi", True), ("nvidia", "gpus", False)])
def test_the_record_names_image_engine_and_how_the_card_was_given(
    tmp_path: Path, way: Way, given: str, cdi: bool
) -> None:
    labels = {"dev.cardstock.variant": "cu130-x-sm90", "dev.cardstock.input": "ab" * 32}
    image, manifest = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    subject = Subject("cardstock/x:y", labels, image, manifest, "Docker 29.1.0", way)
    spec = make_spec(subject, Path("/repo"), tmp_path, [])
    assert spec.gpus.cdi is cdi
    seen = {"name": "NVIDIA H200", "capability": "9.0", "memory": 1, "driver": "580.159.04"}
    record = open_record(read_words(["--out", str(tmp_path / "none.json"), *spec.arguments[4:]]), seen)
    assert (record.variant, record.input_hash) == ("cu130-x-sm90", "ab" * 32)
    assert (record.image_id, record.image_digest, record.engine, record.given) == (
        image,
        manifest,
        "Docker 29.1.0",
        given,
    )
    told = tmp_path / "told.json"
    told.write_text(record.to_json())
    assert read_gpu_record(told) == replace(record, name="told")


def test_an_image_of_an_engine_is_named_by_its_one_digest() -> None:
    facts: Any = SimpleNamespace(id="sha256:1", labels={}, digests=("a.example/x@sha256:2", "b.example/x@sha256:2"))
    engine: Any = SimpleNamespace(version="5.4", way_to_cards="cdi", host=lambda: SimpleNamespace(podman=True))
    subject = Subject.of("x:y", facts, engine)
    assert (subject.id, subject.digest, subject.engine) == ("sha256:1", "sha256:2", "Podman 5.4")
    facts.digests = ("a.example/x@sha256:2", "b.example/x@sha256:3")
    engine.host = lambda: SimpleNamespace(podman=False)
    assert (Subject.of("x:y", facts, engine).digest, Subject.of("x:y", facts, engine).engine) == ("", "Docker 5.4")


def test_an_image_has_no_other_cards_code_to_refuse(tmp_path: Path) -> None:
    run = Run(replace(bare_record(), place="image"), tmp_path / "record.json", tmp_path, {"image": None})
    with pytest.raises(NotRun, match="slimmed for its own cards already"):
        wrong_arch.slim_for_other(run)
    with pytest.raises(NotRun, match="no content for another card"):
        wrong_arch.skipped(run, tmp_path)


@pytest.mark.parametrize(("engine", "flags"), [("transformers", "[]"), ("vllm", '["--dtype", "half"]')])
def test_the_other_engine_of_an_image_does_not_get_its_flags(
    engine: str, flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSTOCK_ENGINE", "vllm")
    monkeypatch.setenv("CARDSTOCK_DEFAULT_ARGS", '["--dtype", "half"]')
    monkeypatch.setattr(backends, "run_server", lambda entrypoint, words, env, *rest: dict(env))
    run = Run(replace(bare_record(), place="image"), tmp_path / "record.json", tmp_path, {"image": None})
    given: Any = backends.start(run, "image", engine, tmp_path)
    assert given["CARDSTOCK_DEFAULT_ARGS"] == flags
    assert given["CARDSTOCK_ENGINE"] == engine


@pytest.mark.parametrize(("pictures", "left_out"), [(1, ["pictures-green-yellow"]), (8, [])])
def test_a_server_is_not_asked_about_more_pictures_than_a_request_may_hold(
    pictures: int, left_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_question = {json.dumps(one.messages): one for one in backends.GOLDEN}

    def chat(request: Mapping[str, Any]) -> Any:
        golden = by_question[json.dumps(request["messages"])]
        return SimpleNamespace(text=golden.text, logprobs=golden.logprobs)

    for name, value in (("greatest_distance", 0.0), ("why_degenerate", ""), ("why_not_golden", "")):
        monkeypatch.setattr(backends, name, lambda *_, value=value: value)
    server: Any = SimpleNamespace(client=SimpleNamespace(chat=chat))
    facts, wrong = backends.check_tiny(server, token_ids=True, pictures=pictures)
    assert (list(facts.get("not asked", {})), wrong) == (left_out, [])
    assert [*facts["said"], *left_out] == [one.name for one in backends.GOLDEN]


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([100.0, 100.4, 99.6, 100.1, 99.9], "within"),
        ([110.0, 110.4, 109.6, 110.1, 109.9], "outside"),
        ([90.0, 130.0, 100.0, 70.0, 105.0], "open"),
    ],
)
def test_speed_is_the_same_or_not_or_cannot_be_told(ours: list[float], verdict: str) -> None:
    assert ratio(ours, [100.0, 100.2, 99.8, 100.1, 99.9])["verdict"] == verdict


def test_what_only_ever_slows_a_run_does_not_count_against_it() -> None:
    steady = [100.0 + step / 100 for step in range(40)]
    disturbed = [one * (0.6 if step % 4 == 0 else 1.0) for step, one in enumerate(steady)]
    assert ratio(disturbed, steady, 0.75)["verdict"] == "within"
    assert ratio([one * 0.95 for one in disturbed], steady, 0.75)["verdict"] == "outside"
    figures = [
        Figure("prefill in the engine", 1.0, "tokens/s", {"batch": "1", "content": content}, tuple(runs))
        for content, runs in (("slimmed", disturbed), ("untouched", steady))
    ]
    assert compare_speed(figures, "slimmed", "untouched")["prefill in the engine, batch 1"]["verdict"] == "within"


def test_judged_speed_fails_outside_and_is_not_run_where_open() -> None:
    def figures(ours: float) -> list[Figure]:
        kind = {"batch": "1"}
        runs = tuple(ours + step / 10 for step in range(5))
        theirs = tuple(100 + step / 10 for step in range(5))
        return [
            Figure("decode", ours, "tokens/s", {**kind, "content": "slimmed"}, runs),
            Figure("decode", 100.0, "tokens/s", {**kind, "content": "untouched"}, theirs),
        ]

    good = {"speed": compare_speed(figures(100.0), "slimmed", "untouched")}
    assert list(judge_speed(good, "decode")) == ["decode, batch 1"]
    with pytest.raises(Failed):
        judge_speed({"speed": compare_speed(figures(90.0), "slimmed", "untouched")}, "decode")
    good["speed"]["decode, batch 1"] |= {"verdict": "open", "range": [0.9, 1.1]}
    with pytest.raises(NotRun, match=r"0\.90 to 1\.10"):
        judge_speed(good, "decode")
    with pytest.raises(NotRun):
        judge_speed({}, "prefill")


# -- the container's run, and a step's own programs

DOCKER = """#!/bin/sh
echo "$*" >"$SEEN"
for word in "$@"; do
    case "$word" in *,target=/proof) out="${word#*source=}" ;; esac
done
out="${out%%,*}"
[ -z "$RECORD" ] || cp "$RECORD" "$out/record.json"
exit "${CODE:-0}"
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A stand-in for docker run: it leaves ``$RECORD`` where the container would, and ends with ``$CODE``."""
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin", "SEEN": str(tmp_path / "seen"), "RECORD": ""}


def _proven(tmp_path: Path, docker: dict[str, str], *steps: Step) -> tuple[Path, GpuRecord]:
    if steps:
        record = replace(bare_record(), variant="cu130-x-sm90", steps=steps)
        (tmp_path / "left.json").write_text(record.to_json())
        docker["RECORD"] = str(tmp_path / "left.json")
    labels = {"dev.cardstock.variant": "cu130-x-sm90"}
    return prove(Subject("cardstock/x:y", labels), Path("/repo"), tmp_path / "kept", docker, lambda _: None)


def test_the_record_of_the_container_is_kept_by_card_and_variant(tmp_path: Path, docker: dict[str, str]) -> None:
    kept, record = _proven(tmp_path, docker, Step("vllm", "passed", "", 1.0, {}))
    assert kept == tmp_path / "kept/nvidia-h200-cu130-x-sm90.json"
    assert read_gpu_record(kept).steps == record.steps == (Step("vllm", "passed", "", 1.0, {}),)
    assert (tmp_path / "seen").read_text().startswith("run ")


def test_a_failed_step_is_told_and_its_record_is_kept(tmp_path: Path, docker: dict[str, str]) -> None:
    steps = (Step("audit", "passed", "", 1.0, {}), Step("vllm", "failed", "NaN", 1.0, {}))
    with pytest.raises(CheckFailed, match="failed on NVIDIA H200: vllm") as caught:
        _proven(tmp_path, docker, *steps)
    assert read_gpu_record(Path(caught.value.where)).steps == steps


def test_a_container_that_leaves_no_record_is_told_with_its_code(tmp_path: Path, docker: dict[str, str]) -> None:
    docker["CODE"] = "125"
    with pytest.raises(CheckFailed, match="the proof left no record: docker run ended with 125"):
        _proven(tmp_path, docker)
