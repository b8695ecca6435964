"""A light image against untouched packages: what differs is found, and what is the same is said to be."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from images.core import process
from images.device_code.stand_ins.source import SAID
from images.docker.container_spec import Gpus
from images.docker.container_text import docker_words
from images.proof.lighter import compare, lighter, steps
from images.proof.lighter.containers import LIGHT, UNTOUCHED, Host
from images.proof.lighter.lighter import JOBS, STEPS, Comparison
from images.proof.lighter.worker import decode_span, open_questions, reply, taught, written
from images.proof.on_card.records.reading import kept_steps, read_gpu_record
from images.proof.on_card.records.record import Figure, GpuRecord, Step
from images.proof.on_card.runs.host import NO_MULTICAST
from images.proof.on_card.runs.run import Failed, NotRun, Run

REAL = 200 * 2**20
LIBRARIES = {
    "nvidia/cufft/lib/libcufft.so.12": REAL,
    "nvidia/cudnn/lib/libcudnn_cnn.so.9": REAL,
    "torch/lib/a.so": REAL,
}
MARK = f"{SAID}cufftExecC2C of libcufft.so.12"


def _answer(tokens: list[int], *values: float) -> dict[str, Any]:
    return {"tokens": tokens, "logprobs": [[[token, value.hex()]] for token, value in zip(tokens, values, strict=True)]}


def _answers() -> dict[str, Any]:
    return {"taught": {"text": _answer([1, 2], -0.1, -0.2)}, "sampled": {"noise": _answer([7, 8, 9], -1.0, -1.5, -2.0)}}


def _told(**light: Any) -> dict[str, Any]:
    """Both images' runs; the light one's answers changed by ``light``: mode -> case -> answer."""
    mine = {**_answers(), **light}
    return {
        LIGHT: [{"answers": deepcopy(mine), "wanted": {"text": [1, 2]}} for _ in range(2)],
        UNTOUCHED: [{"answers": _answers(), "wanted": {"text": [1, 2]}} for _ in range(2)],
    }


def test_equal_answers_are_equal_to_the_bit() -> None:
    result = compare.compare_answers(_answers(), _answers())
    assert result.identical
    assert (result.answers, result.same_tokens, result.same_bits, result.logprobs) == (2, 2, 2, 5)
    assert (result.farthest, result.first) == (0.0, "")


def test_one_bit_of_one_logprob_is_found() -> None:
    other = _answers()
    other["sampled"]["noise"]["logprobs"][1][0][1] = (-1.5000000000000002).hex()
    result = compare.compare_answers(other, _answers())
    assert not result.identical
    assert (result.same_tokens, result.same_bits) == (2, 1)
    assert result.first == "sampled: noise, token 1: a logprob"
    assert 0 < result.farthest < 1e-15


def test_another_token_is_found_and_what_follows_it_is_not_measured() -> None:
    other = _answers() | {"sampled": {"noise": _answer([7, 5, 4], -1.0, -9.0, -30.0)}}
    result = compare.compare_answers(other, _answers())
    assert (result.same_tokens, result.first) == (1, "sampled: noise, token 1: a logprob")
    assert result.farthest == 0.0  # at that place the two tell of no token in common


def test_nothing_compared_is_not_identical_and_other_questions_are_an_error() -> None:
    assert not compare.compare_answers({}, {}).identical
    with pytest.raises(ValueError, match="not the same questions"):
        compare.compare_answers(_answers(), {"taught": {}})


@pytest.mark.parametrize(("said", "good"), [([1, 2], True), ([1], True), ([2, 1], False), ([1, 2, 3], False)])
def test_taught_answers_may_leave_out_the_end_token_and_nothing_else(said: list[int], good: bool) -> None:
    wrong = compare.wrong_answers({"taught": {"text": {"tokens": said}}}, {"text": [1, 2]})
    assert bool(wrong) is not good


def test_a_case_that_was_not_asked_is_wrong() -> None:
    assert compare.wrong_answers({"taught": {}}, {"text": [1, 2]}) == ["text: not asked"]


def test_same_bits_pass_and_say_how_much_was_compared() -> None:
    facts = steps.compare_said(_told(), "bfloat16", cudnn=True)
    assert facts["bit-identical"] is True
    assert facts["taught answers"] == {LIGHT: "1 of 1", UNTOUCHED: "1 of 1"}


def test_other_bits_fail_where_cudnn_is_in_both() -> None:
    told = _told(sampled={"noise": _answer([7, 8, 9], -1.0, -1.5, -2.1)})
    with pytest.raises(Failed, match="not the same bits: sampled: noise, token 2"):
        steps.compare_said(told, "bfloat16", cudnn=True)


def test_without_cudnn_the_answers_must_be_right_and_near() -> None:
    near = _told(sampled={"noise": _answer([7, 8, 9], -1.0, -1.5, -2.1)})
    assert steps.compare_said(near, "bfloat16", cudnn=False)["bit-identical"] is False
    with pytest.raises(Failed, match=r"without cuDNN a logprob is 3\.000 away"):
        steps.compare_said(_told(sampled={"noise": _answer([7, 8, 9], -1.0, -1.5, -5.0)}), "bfloat16", cudnn=False)
    with pytest.raises(Failed, match=r"light: text: said \[1, 3\]"):
        steps.compare_said(_told(taught={"text": _answer([1, 3], -0.1, -0.2)}), "bfloat16", cudnn=False)


def test_packages_that_do_not_repeat_themselves_decide_nothing() -> None:
    told = _told(sampled={"noise": _answer([7, 8, 9], -1.0, -1.5, -2.1)})
    told[UNTOUCHED][1]["answers"]["sampled"]["noise"] = _answer([7, 8, 9], -1.0, -1.5, -2.2)
    with pytest.raises(NotRun, match="do not repeat their own bits"):
        steps.compare_said(told, "bfloat16", cudnn=True)


def test_a_logprob_far_from_golden_fails() -> None:
    told = _told()
    for runs in told.values():
        runs[0]["golden"] = {"distance": {"text": 0.01}, "tolerance": 0.05}
    assert steps.compare_said(told, "float16", cudnn=True)["golden"][LIGHT]["distance"] == {"text": 0.01}
    told[LIGHT][0]["golden"] = {"distance": {"text": float("nan")}, "tolerance": 0.05}
    with pytest.raises(Failed, match=r"farther than 0\.05 from golden"):
        steps.compare_said(told, "float16", cudnn=True)


def _transformers(**changes: Any) -> dict[str, Any]:
    mode = {"tokens": [1, 2], "logits": "ab"}
    case = {"logits": "cd", "finite": True, "greedy": mode, "sampled": mode, "last place": [1.0, -2.0]}
    base = {"versions": {"torch": "2"}, "libraries": LIBRARIES, "loaded": [], "reserved": 1, "seconds": 1.0}
    return {**base, "cases": {"sdpa float16": {**case, **changes}}}


def test_transformers_to_the_bit() -> None:
    facts = steps.compare_transformers({LIGHT: _transformers(), UNTOUCHED: _transformers()})
    assert facts["bit-identical"] is True
    assert facts["left out"] == {}
    with pytest.raises(Failed, match="not the same bits: sdpa float16"):
        steps.compare_transformers({LIGHT: _transformers(logits="ce"), UNTOUCHED: _transformers()})
    with pytest.raises(Failed, match="not finite"):
        steps.compare_transformers({LIGHT: _transformers(finite=False), UNTOUCHED: _transformers()})


def test_transformers_without_cudnn_keep_their_greedy_tokens() -> None:
    light = _transformers(logits="ce", **{"last place": [1.0, -2.002]})
    light["libraries"] = {**LIBRARIES, "nvidia/cudnn/lib/libcudnn_cnn.so.9": 20_000}
    facts = steps.compare_transformers({LIGHT: light, UNTOUCHED: _transformers()})
    assert facts["bit-identical"] is False
    assert facts["differ"] == {"sdpa float16": ["logits"]}
    assert facts["farthest logit, relative"] == pytest.approx(0.001)
    assert facts["left out"] == {"nvidia/cudnn/lib/libcudnn_cnn.so.9": ["stand-in or smaller", REAL]}
    light["cases"]["sdpa float16"]["greedy"] = {"tokens": [1, 3], "logits": "ab"}
    with pytest.raises(Failed, match="other greedy tokens"):
        steps.compare_transformers({LIGHT: light, UNTOUCHED: _transformers()})


def test_libraries_that_the_light_image_lacks() -> None:
    light = {"nvidia/cufft/lib/libcufft.so.12": 40_000, "torch/lib/a.so": 1000}
    assert compare.lacking(light, LIBRARIES) == {
        "nvidia/cufft/lib/libcufft.so.12": ("stand-in or smaller", REAL),
        "nvidia/cudnn/lib/libcudnn_cnn.so.9": ("not there", REAL),
    }
    assert not compare.has_cudnn(light, LIBRARIES)
    assert compare.has_cudnn(LIBRARIES, {**LIBRARIES, "nvidia/cudnn/lib/libcudnn_adv.so.9": REAL})


def test_speed_is_compared_turn_by_turn() -> None:
    slowing = [100.0 - at for at in range(20)]  # the card slows down by a fifth, both with it
    same = compare.speed_ratio([speed * 1.001 for speed in slowing], slowing)
    assert (same["ratio"], same["verdict"]) == (1.001, "within")
    assert compare.speed_ratio([speed * 0.95 for speed in slowing], slowing)["verdict"] == "outside"
    wild = [speed * (0.9 if at % 2 else 1.12) for at, speed in enumerate(slowing)]
    assert compare.speed_ratio(wild, slowing)["verdict"] == "open"
    with pytest.raises(ValueError, match="zip"):
        compare.speed_ratio([1.0], [1.0, 2.0])


def test_a_host_that_slows_some_turns_is_told_by_the_fast_ones() -> None:
    slowed = random.Random(7)  # noqa: S311
    card, slow = 400.0, (0.7, 0.8, 0.9, 0.95)

    def turns(speed: float) -> list[float]:
        return [speed * (1 + 0.001 * (at % 3)) * (slowed.choice(slow) if at % 3 else 1.0) for at in range(41)]

    theirs = [*turns(card)[::-1]]
    same = compare.speed_ratio(turns(card), theirs)
    assert (same["verdict"], same["by"]) == ("within", "fast turns")
    assert same["turns"][0] < 0.98
    assert compare.speed_ratio(turns(card * 0.9), theirs)["verdict"] == "outside"


def test_a_slower_image_fails_and_a_spread_one_decides_nothing() -> None:
    row = {"ratio": 1.0, "range": [0.99, 1.01], "verdict": "within"}
    assert steps.judge_ratios({"decode, batch 1": row})
    slow = {"ratio": 0.9, "range": [0.89, 0.91], "verdict": "outside"}
    with pytest.raises(Failed, match=r"decode, batch 1 0\.890 to 0\.910"):
        steps.judge_ratios({"decode, batch 1": slow, "decode, batch 16": row})
    with pytest.raises(NotRun, match="spread too far"):
        steps.judge_ratios({"decode, batch 1": {**row, "verdict": "open"}})


class _Asked:
    """An engine that says a speed, and remembers what it was asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked = seconds, [""]

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.asked.append(f"{do} {sorted(arguments.items())}")
        return {"seconds": self.seconds, "tokens": 100}


def test_both_engines_are_timed_in_turns_with_the_same_questions() -> None:
    engines: dict[str, Any] = {LIGHT: _Asked(1.0), UNTOUCHED: _Asked(1.1)}
    figures: list[Any] = []
    ratios: dict[str, Any] = {}
    for what in (steps.DECODE, steps.PREFILL):
        ratios |= steps.time_both(engines, what, figures.extend, {"engine": "vllm"})
    assert engines[LIGHT].asked == engines[UNTOUCHED].asked
    assert set(ratios) == {"decode, batch 1", "decode, batch 16", "prefill in the engine, batch 1"}
    assert all(one["verdict"] == "outside" for one in ratios.values())
    assert len({len(one.runs) for one in figures if one.of["batch"] == "16"}) == 1
    assert {one.of["content"] for one in figures} == {LIGHT, UNTOUCHED}


def test_memory_is_counted_for_the_engine_s_own_processes() -> None:
    table = "100, 5000\n101, 300\n7, 9000\n8, [N/A]\n"
    assert compare.memory_of(table, [100, 101, 8]) == 5300 * 2**20
    assert compare.memory_of("", [100]) == 0
    assert compare.card_memory("81000\n12\n") == [81000 * 2**20, 12 * 2**20]


def test_more_memory_fails_and_none_told_decides_nothing() -> None:
    used = {LIGHT: 9 * 2**30, UNTOUCHED: 10 * 2**30}
    none = dict.fromkeys(used, 0)
    assert steps.judge_memory(used, none, used)["nvidia-smi, processes"] == used
    with pytest.raises(Failed, match="1024 MiB more"):
        steps.judge_memory({LIGHT: 10 * 2**30, UNTOUCHED: 9 * 2**30}, none, none)
    with pytest.raises(Failed, match="20 MiB more"):  # torch's own count, though nvidia-smi's is smaller
        steps.judge_memory(used, none, {LIGHT: 21 * 2**20, UNTOUCHED: 2**20})
    with pytest.raises(NotRun):
        steps.judge_memory(none, none, none)
    assert steps.judge_memory(none, used, used)["nvidia-smi, growth of the card"] == used


def test_a_call_of_a_stand_in_fails(tmp_path: Path) -> None:
    host = Host(tmp_path, tmp_path, Gpus(-1, cdi=True))
    assert steps.judge_calls({"tiny-light": host.calls("tiny-light")})["calls"] == 0
    (tmp_path / "tiny-light.calls").write_text("libcufft.so.12 cufftExecC2C\n")
    (tmp_path / "other.log").write_text(f"INFO all is well\nERROR {MARK}\n")
    for name, line in (("tiny-light", "libcufft.so.12 cufftExecC2C"), ("other", MARK)):
        assert host.calls(name) == [line]
        with pytest.raises(Failed, match=name):
            steps.judge_calls({name: host.calls(name)})


def _purpose(light: str, untouched: str = "real") -> dict[str, Any]:
    return {
        LIGHT: {"cases": {"torch.fft.fft": {"verdict": light}}},
        UNTOUCHED: {"cases": {"torch.fft.fft": {"verdict": untouched}}},
    }


def test_calls_on_purpose_must_raise_and_be_counted_and_compute_untouched() -> None:
    counted: dict[str, list[str]] = {LIGHT: ["libcufft.so.12 cufftExecC2C"], UNTOUCHED: []}
    assert steps.judge_purpose(_purpose("stand-in"), counted)["verdicts"][LIGHT] == {"torch.fft.fft": "stand-in"}
    with pytest.raises(Failed, match="nothing counted it"):
        steps.judge_purpose(_purpose("stand-in"), {LIGHT: [], UNTOUCHED: []})
    with pytest.raises(Failed, match=r"light: torch\.fft\.fft: the stand-in said nothing"):
        steps.judge_purpose(_purpose("the stand-in said nothing"), counted)
    with pytest.raises(Failed, match=r"untouched: torch\.fft\.fft: stand-in"):
        steps.judge_purpose(_purpose("stand-in", "stand-in"), counted)
    with pytest.raises(Failed, match="untouched: libcufft"):
        steps.judge_purpose(_purpose("stand-in"), {LIGHT: counted[LIGHT], UNTOUCHED: counted[LIGHT]})
    with pytest.raises(NotRun):
        steps.judge_purpose(_purpose("real"), {LIGHT: [], UNTOUCHED: []})


def test_a_program_s_line_is_found_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(argv: list[str], on_line: Any, **_: Any) -> int:
        for line in ("a warning", '{"ok": false}', "12", "the end"):
            on_line(line)
        return 1

    monkeypatch.setattr(process, "stream", say)
    host = Host(tmp_path, tmp_path, Gpus(-1, cdi=True))
    (tmp_path / "x.calls").write_text("left by an earlier run\n")
    assert host.hear("image", "x", ["module"], "0") == {"ok": False}
    assert host.calls("x") == []
    with pytest.raises(Failed, match="x ended with 1: a warning"):
        host.run("image", "x", ["module"], "0")


def test_containers_have_no_network_and_no_multicast(tmp_path: Path) -> None:
    host = Host(tmp_path, Path("/repo"), Gpus(-1, cdi=True), {"TRITON_LIBCUDA_PATH": "/usr/lib"})
    words = docker_words(host.spec("cardstock/x:y", "two-light", ["images.proof.lighter.worker"], "0,1"))
    assert words[words.index("--network") + 1] == "none"
    assert words[words.index("--device") + 1] == "nvidia.com/gpu=all"
    env = {word for flag, word in pairwise(words) if flag == "--env"}
    assert {f"{name}={value}" for name, value in NO_MULTICAST.items()} <= env
    assert {
        "CUDA_VISIBLE_DEVICES=0,1",
        "CARDSTOCK_STAND_IN_CALLS=/proof/two-light.calls",
        "TRITON_LIBCUDA_PATH=/usr/lib",
    } <= env


def test_every_job_of_the_second_card_has_a_step(tmp_path: Path) -> None:
    assert JOBS.keys() == STEPS.keys()
    record = GpuRecord("NVIDIA H100", "9.0", 1, "580", "", "image", "", "", {}, ())
    run = Run(record, tmp_path / "out.json", tmp_path, {LIGHT: None, UNTOUCHED: None})
    images = {LIGHT: "a", UNTOUCHED: "b"}
    comparison = Comparison(run, Host(tmp_path, tmp_path, Gpus(-1, cdi=True)), images, {}, 18)
    with pytest.raises(NotRun):
        comparison.results("old-transformers")
    run.step("vllm: decode within 2 %", lambda: comparison.speed(steps.DECODE))
    assert read_gpu_record(tmp_path / "out.json").steps[0].verdict == "not run"


def test_the_worker_writes_what_was_said_to_the_bit() -> None:
    said = SimpleNamespace(
        token_ids=[5, 3],
        logprobs=[
            {9: SimpleNamespace(logprob=-2.0), 5: SimpleNamespace(logprob=-0.1)},
            {3: SimpleNamespace(logprob=-1.0)},
        ],
        finish_reason="stop",
    )
    out = written(SimpleNamespace(outputs=[said]))
    assert out["tokens"] == [5, 3]
    assert out["logprobs"] == [[[5, (-0.1).hex()], [9, (-2.0).hex()]], [[3, (-1.0).hex()]]]
    assert json.loads(json.dumps(out)) == out


def test_decoding_is_timed_from_when_all_have_begun() -> None:
    def output(first: float, last: float) -> Any:
        metrics = SimpleNamespace(first_token_ts=first, last_token_ts=last)
        return SimpleNamespace(metrics=metrics, outputs=[SimpleNamespace(token_ids=[1] * 11)])

    assert decode_span([output(1.0, 5.0), output(2.0, 6.0)]) == (4.0, 20)


def test_the_questions_are_pictures_and_texts_and_the_taught_ones_end() -> None:
    shaped, tiny = taught("shaped"), taught("tiny")
    assert {"text", "picture-red"} <= shaped.keys() & tiny.keys()
    assert len({tokens[-1] for _, tokens in [*shaped.values(), *tiny.values()]}) == 1  # the end token
    assert any("image_url" in json.dumps(question) for question in open_questions().values())


def test_an_error_in_the_worker_is_an_answer() -> None:
    class Broken:
        def decode(self, batch: int) -> Any:
            raise RuntimeError(f"no memory for {batch}")

    answer: Any = reply(Broken(), {"do": "decode", "batch": 3})  # type: ignore[arg-type]
    assert "no memory for 3" in answer["error"]


def test_a_second_run_goes_on_in_the_record_of_the_same_image(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    record = GpuRecord("NVIDIA H100", "9.0", 1, "580", "", "image", "v", "ab" * 32, {"torch": "2"}, ())
    assert kept_steps(record, out) is record
    figure = Figure("decode", 2.0, "tokens/s", {"content": LIGHT}, (1.0, 2.0, 3.0))
    old = replace(record, steps=(Step("speed", "passed", facts={"ratio": 1.0}),), figures=(figure,))
    out.write_text(old.to_json())
    assert kept_steps(record, out) == old
    assert kept_steps(replace(record, input_hash="cd"), out).steps == ()


class _Machine:
    """A host of two cards on which nothing runs: containers tell what a test says, engines answer alike."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, light: dict[str, Any]) -> None:
        self.light, self.started, self.closed = light, [""], [""]
        machine = self

        class Alike:
            """An engine; the light image's are as fast as ``light`` says."""

            def __init__(self, host: Host, image: str, name: str, cards: str) -> None:
                self.name, self.image = name, image
                machine.started.append(f"{name} {cards}")

            def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
                mine = machine.light if self.image == "image-light" else {}
                speed = {"seconds": mine.get("seconds", 1.0), "tokens": 100}
                told = {"answers": mine.get("answers", _answers()), "wanted": {"text": [1, 2]}}
                start = {"seconds": 30.0, "versions": {"torch": "2.14.0", "vllm": "0.33.0"}}
                known = {"start": start, "answers": told, "decode": speed, "prefill": speed, "memory": {"reserved": 5}}
                return known[do]

            def processes(self) -> list[int]:
                return [100 if self.image == "image-light" else 200]

            def close(self) -> None:
                machine.closed.append(self.name)

        tables = {
            "--query-gpu=name,compute_cap,memory.total,driver_version": "NVIDIA H100, 9.0, 81559, 580\n" * 2,
            "--query-compute-apps=pid,used_gpu_memory": "100, 9000\n200, 9010\n",
            "--query-gpu=memory.used": "9000\n0\n",
        }
        for module in (steps, lighter):
            monkeypatch.setattr(module, "Engine", Alike)
            monkeypatch.setattr(module, "nvidia_smi", lambda query: tables[query])
        monkeypatch.setattr(Host, "run", lambda self, image, name, words, cards: self_told(name))
        monkeypatch.setattr(Host, "hear", lambda self, image, name, words, cards: purpose(name))
        called = light.get("called", ["libcufft.so.12 cufftExecC2C"])
        monkeypatch.setattr(Host, "calls", lambda self, name: called if name == "purpose-light" else [])

        def self_told(name: str) -> dict[str, Any]:
            return {"bytes": 1} if name == "checkpoint" else _transformers()

        def purpose(name: str) -> dict[str, Any]:
            return _purpose("stand-in")[name.partition("-")[2]]  # type: ignore[no-any-return]

        record = GpuRecord("", "", 0, "", "", "image", "cu130-x-sm90", "ab" * 32, {}, ())
        run = Run(record, tmp_path / "record.json", tmp_path, {LIGHT: None, UNTOUCHED: None})
        host = Host(tmp_path, tmp_path, Gpus(-1, cdi=True))
        self.comparison = Comparison(run, host, {LIGHT: "image-light", UNTOUCHED: "image-whole"}, {}, 18)

    def verdicts(self) -> dict[str, str]:
        self.comparison.go()
        record = read_gpu_record(self.comparison.run.out)
        assert (record.card, record.memory, record.versions["vllm"]) == ("NVIDIA H100", 81559 * 2**20, "0.33.0")
        assert sorted(self.started)[1:] == sorted({*self.started} - {""})  # each engine once
        assert {one.split()[0] for one in self.started[1:]} <= {*self.closed}
        return {step.name: step.verdict for step in record.steps}


OLD = {STEPS["old-transformers"]: "not run", STEPS["old-purpose"]: "not run"}


def test_a_run_in_which_all_is_alike_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = _Machine(monkeypatch, tmp_path, {})
    verdicts = machine.verdicts()
    assert {name for name, verdict in verdicts.items() if verdict != "passed"} == set(OLD)
    assert len(verdicts) == 13
    names = {(one.name, one.of["content"]) for one in machine.comparison.run.record.figures}
    assert {("decode", LIGHT), ("decode", UNTOUCHED), ("memory of the card", LIGHT)} <= names
    assert "two-light 0,1" in machine.started
    assert "tiny-light 1" in machine.started


def test_a_run_tells_a_slower_image_and_other_bits_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = _answers()
    other["sampled"]["noise"]["logprobs"][1][0][1] = (-1.6).hex()
    machine = _Machine(monkeypatch, tmp_path, {"seconds": 1.1, "answers": other})
    failed = {name for name, verdict in machine.verdicts().items() if verdict == "failed"}
    assert failed == {
        "vllm: 3b answers, bfloat16",
        STEPS["tiny"],
        "vllm: decode within 2 %",
        "vllm: prefill within 2 %",
        "vllm: two cards, float16",
    }
    assert not machine.comparison.run.record.ok
