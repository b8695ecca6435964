"""The proof on a card, as far as it goes without one: what is asked, how it is judged, how it is started."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from images.cards.this_machine import LocalCard, LocalMachine
from images.core import process
from images.core.errors import CheckFailed, NothingSelected
from images.docker.container_spec import ALL_CARDS, Mount
from images.docker.gpu_access import Way
from images.matrix.arch import Arch
from images.proof.on_card import backends, wrong_arch
from images.proof.on_card.backends import compare_speed, judge_speed, ratio, start_figures
from images.proof.on_card.inside.prefill import prefill
from images.proof.on_card.proof import Subject, card_of, make_spec, prove
from images.proof.on_card.prove import open_record, read_words
from images.proof.on_card.records.reading import read_gpu_record
from images.proof.on_card.records.record import Figure, GpuRecord, Step
from images.proof.on_card.runs.run import Failed, NotRun, Run, read_env
from images.proof.on_card.runs.server import StartedServer, Streamed
from images.proof.on_card.shaped.answers import CASES, answer, messages, noise_message, picture_bytes
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

# What starts on a bare host with a card, or in an image, where there is not all that this project needs.
PROGRAMS = (
    "acting.__main__",
    "acting.worker",
    "lighter.__main__",
    "memory.with_vllm",
    "on_card.inside.seal_logits",
    "on_card.inside.start",
    "on_card.prove",
    "tracing.__main__",
)
# Started by its path, without this project beside it.
ALONE = ("on_card/inside/call_stand_ins.py", "on_card/packages/slim_worker.py")

LOG = [
    (14.6, "(APIServer pid=1) INFO 11-21 16:23:49 [api_utils.py:273] non-default args: {'port': 8100}"),
    (
        30.1,
        "(EngineCore pid=2) INFO 11-21 16:24:04 [core.py:114] Initializing a V1 LLM engine (v0.25.1) with config: x",
    ),
    (32.5, "(EngineCore pid=2) INFO 11-21 16:24:07 [model_runner.py:302] Model loading took 3.86 GiB and 2.14 seconds"),
    (58.9, "(EngineCore pid=2) INFO 11-21 16:24:33 [monitor.py:53] torch.compile took 25.53 s in total"),
]


def _record() -> GpuRecord:
    return GpuRecord("NVIDIA H200", "9.0", 1, "580", "", "packages", "", "", {}, ())


def _run(tmp_path: Path) -> Run:
    return Run(_record(), tmp_path / "record.json", tmp_path, {"image": None})


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


def test_every_step_is_in_the_record_at_once(tmp_path: Path) -> None:
    run = _run(tmp_path)

    def broken() -> dict[str, object]:
        assert [step.name for step in read_gpu_record(run.out).steps] == ["good"]
        raise Failed("it is wrong", {"said": "!!!!"})

    def impossible() -> dict[str, object]:
        raise NotRun("no time")

    run.step("good", lambda: {"checks": 3})
    run.step("bad", broken)
    run.step("odd", lambda: {"x": 1 / 0})
    run.step("none", impossible)
    found = {step.name: step for step in read_gpu_record(run.out).steps}
    assert [step.verdict for step in found.values()] == ["passed", "failed", "failed", "not run"]
    assert found["bad"].facts == {"said": "!!!!"}
    assert "ZeroDivisionError" in found["odd"].reason
    run.step("bad", dict)
    assert [step.verdict for step in read_gpu_record(run.out).steps if step.name == "bad"] == ["passed"]


def test_an_image_has_no_other_cards_code_to_refuse(tmp_path: Path) -> None:
    run = Run(replace(_record(), place="image"), tmp_path / "record.json", tmp_path, {"image": None})
    with pytest.raises(NotRun, match="slimmed for its own cards already"):
        wrong_arch.slim_for_other(run)
    with pytest.raises(NotRun, match="no content for another card"):
        wrong_arch.skipped(run, tmp_path)


@pytest.mark.parametrize(("engine", "flags"), [("transformers", "[]"), ("vllm", None)])
def test_the_other_engine_of_an_image_does_not_get_its_flags(
    engine: str, flags: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSTOCK_ENGINE", "vllm")
    monkeypatch.setattr(backends, "run_server", lambda entrypoint, words, env, *rest: dict(env))
    run = Run(replace(_record(), place="image"), tmp_path / "record.json", tmp_path, {"image": None})
    given: Any = backends.start(run, "image", engine, tmp_path)
    assert given.get("CARDSTOCK_DEFAULT_ARGS") == flags
    assert given["CARDSTOCK_ENGINE"] == engine


def test_a_figure_taken_again_gives_way(tmp_path: Path) -> None:
    run = _run(tmp_path)
    run.add([Figure("decode", 1.0, "tokens/s", {"batch": "1"}), Figure("decode", 2.0, "tokens/s", {"batch": "16"})])
    run.add([Figure("decode", 3.0, "tokens/s", {"batch": "1"})])
    assert sorted(one.value for one in read_gpu_record(run.out).figures) == [2.0, 3.0]


def test_the_steps_asked_for_are_run(tmp_path: Path) -> None:
    run = replace(_run(tmp_path), only=("vllm*",))
    run.step("canary", dict)
    run.step("vllm: tiny", dict)
    assert [step.name for step in run.record.steps] == ["vllm: tiny"]


def test_the_taught_answers_differ_from_picture_to_picture() -> None:
    assert messages("picture-red") != messages("picture-blue")
    assert answer("picture-red")[:1] != answer("picture-blue")[:1]
    assert len({len(set(answer(name))) - len(answer(name)) for name in CASES}) == 1  # no token twice in an answer
    assert picture_bytes("text") == []
    assert picture_bytes("picture-red")[0].startswith(b"\x89PNG")
    assert noise_message(1) == noise_message(1) != noise_message(2)


def test_stages_are_read_from_the_log() -> None:
    server = StartedServer(8100, LOG, healthy=75.0)
    assert server.stages() == {
        "server's imports": 14.6,
        "engine's process and imports": 30.1,
        "weights": 32.5,
        "compilation": 58.9,
        "healthy": 75.0,
    }
    figures = {one.name: one.value for one in start_figures(server, {}, 1.5)}
    assert figures["start: compilation"] == pytest.approx(26.4)
    assert figures["start to first token"] == 76.5
    parts = [value for name, value in figures.items() if name.startswith("start: ")]
    assert sum(parts) == pytest.approx(76.5)
    assert not any("config:" in line for line in server.timing_lines())


def test_tokens_between_two_moments_are_counted() -> None:
    found = Streamed(((0.1, 1), (0.2, 2), (0.4, 5), (0.5, 6)), "")
    assert (found.first, found.last) == (0.1, 0.5)
    assert found.between(0.1, 0.45) == 4
    assert found.between(0.0, 0.05) == 0


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


def test_prefill_counts_from_the_first_that_is_taken_to_the_last_first_token() -> None:
    asked: list[Any] = []

    class Engine:
        def chat(self, conversations: list[Any], params: object, *, use_tqdm: bool) -> list[SimpleNamespace]:
            asked.extend(conversations)
            spans = [(10.0, 10.5), (10.25, 11.0)]
            metrics = [SimpleNamespace(scheduled_ts=taken, first_token_ts=first) for taken, first in spans]
            return [SimpleNamespace(metrics=one, prompt_token_ids=[0] * 100) for one in metrics]

    assert prefill(Engine(), None, 2, 7) == (1.0, 200)
    first, second = asked
    assert first != second
    assert first == noise_message(7)


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


def test_the_image_says_of_itself_what_preflight_asks() -> None:
    env = read_env("cu130-transformers5.24.0-sdpa-sm75")
    assert env["CARDSTOCK_ARCHS"] == "7.5"
    assert env["CARDSTOCK_ENGINE"] == "transformers"
    assert "-sm90" in env["CARDSTOCK_IMAGES"]
    assert not [name for name in env if "PATH" in name or "CACHE" in name]


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
        record = replace(_record(), variant="cu130-x-sm90", steps=steps)
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


def test_a_steps_program_uses_the_packages_of_its_content(tmp_path: Path) -> None:
    site = tmp_path / "slimmed"
    site.mkdir()
    (site / "whose.py").write_text("import json, sys\njson.dump({'path': __file__}, open(sys.argv[-1], 'w'))\n")
    run = Run(_record(), tmp_path / "record.json", tmp_path, {"slimmed": site, "untouched": None})
    assert run.worker("slimmed", ["whose"]) == {"path": str(site / "whose.py")}
    with pytest.raises(Failed, match=r"-m ended with 1: .*No module named whose"):
        run.worker("untouched", ["whose"])
    assert run.env("slimmed")["TRITON_CACHE_DIR"] != run.env("untouched")["TRITON_CACHE_DIR"]


def test_the_programs_need_nothing_that_a_bare_host_with_a_card_lacks() -> None:
    missing = ("pydantic", "rich", "docker", "testcontainers", "jinja2", "yaml", "requests")
    for program in nonempty(PROGRAMS):
        own = f"import images.proof.{program} as p; p.main"
        script = f"import sys; sys.modules.update(dict.fromkeys({missing})); {own}"
        assert process.run([sys.executable, "-c", script], cwd=ROOT, check=False).err == ""


def test_what_is_started_by_its_path_alone_needs_pythons_own_library_alone() -> None:
    for program in nonempty(ALONE):
        script = (
            f"import runpy; assert runpy.run_path({str(ROOT / 'images/proof' / program)!r}, run_name='read')['main']"
        )
        done = process.run([sys.executable, "-I", "-S", "-c", script], cwd=Path("/"), check=False)
        assert (done.code, done.err) == (0, ""), program
