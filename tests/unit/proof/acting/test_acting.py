"""The program that acts, Docker faked: which servers it starts with what, what it records, and that time is bounded."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from images.core import process
from images.docker.container_spec import Gpus
from images.proof.acting import acting
from images.proof.acting.__main__ import main
from images.proof.acting.cards import acted_card
from images.proof.acting.containers import ActingHost, acted_env
from images.proof.acting.expected import all_expected
from images.proof.acting.judge import NEEDED
from images.proof.acting.log import Choices
from images.proof.on_card.records.reading import read_gpu_record
from images.proof.on_card.records.record import GpuRecord, acted_runs, records_of_variant
from images.proof.on_card.runs.host import INPUT, NO_CARD, env_of
from images.proof.on_card.runs.host import VARIANT as VARIANT_LABEL
from images.proof.on_card.runs.run import Failed, NotRun
from tests.helpers.matrices import ROOT

IMAGE = "cardstock/qwen2.5-vl:cu130-vllm0.33.0-flash-attn-sm90"
VARIANT = "cu130-vllm0.33.0-flash-attn-sm90"
IMAGE_ENV = ["CARDSTOCK_STACK=cu130", "CARDSTOCK_ENGINE=vllm", "CARDSTOCK_ATTENTION=flash-attn", "CARDSTOCK_ARCHS=9.0"]
LABELS = {VARIANT_LABEL: VARIANT, INPUT: "ab" * 32}
PREPARED = {
    "card": {"name": "NVIDIA H100 80GB HBM3", "capability": "9.0", "driver": "580.159.04", "cards": 1},
    "front missing": "",
    "ptxas": "/opt/venv/lib/python3.11/site-packages/triton/backends/nvidia/bin/ptxas",
    "versions": {"torch": "2.14.0", "vllm": "0.33.0"},
}
AWQ = "ValueError: The quantization method auto_awq is not supported for the current GPU. Minimum capability: 75."
BF16 = "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0."
FORCED = "ValueError: Selected backend AttentionBackendEnum.FLASH_ATTN is not valid for this configuration: capability"


class Docker:
    """What docker is asked to run, and servers that behave as vLLM does on the card that they are told to be on."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.argv: list[list[str]] = []
        self.change: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda name, outcome: outcome
        self.slow: set[str] = set()

    def env(self, name: str) -> dict[str, str]:
        words = next(one for one in self.argv if f"/proof/{name}.json" in one)
        return dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--env")

    def names(self) -> list[str]:
        return [Path(words[words.index("--out") + 1]).stem for words in self.argv if "--out" in words]

    def stream(self, argv: Sequence[str], say: Callable[[str], None], timeout: float = 0, **_: Any) -> int:
        self.argv.append(list(argv))
        name = Path(argv[argv.index("--out") + 1]).stem
        if name in self.slow:
            raise process.ProcessFailed(argv, 124, "")
        told = self.change(name, self.tell(name, list(argv)))
        (self.scratch / f"{name}.json").write_text(json.dumps(told))
        return 0

    def tell(self, name: str, argv: list[str]) -> dict[str, Any]:
        if name == "prepare":
            return PREPARED
        if name == "expected":
            archs = [argv[at + 1] for at, word in enumerate(argv) if word == "--arch"]
            return dict(all_expected("cu130", "vllm", "flash-attn", archs))
        if name == "checkpoint":
            return {"layers": 36, "bytes": 4}
        if name == "warm":
            return {"compiled": [{"head": 64, "paged": True, "seconds": 90.0, "why": ""}]}
        env = self.env(name)
        capability, *_, card = env["CARDSTOCK_ACTED"].split(";")
        if name == "seen":
            acted = acted_card(card)
            told = {"capability": capability, "name": card, "memory": acted.memory, "sms": acted.sms}
            by_triton = {"target": acted.number, "shared memory": acted.limits.block_optin, "sms": acted.sms}
            others = {"torch": told, "pynvml": told, "vLLM's pynvml": told, "preflight": told}
            return {**others, "Triton": {**by_triton, "right": True}, "memory refused": "no"}
        return self.serve(argv, env, capability, card)

    def serve(self, argv: list[str], env: dict[str, str], capability: str, card: str) -> dict[str, Any]:
        flags = json.loads(argv[argv.index("--flags") + 1]) if "--flags" in argv else []
        given = [*json.loads(env.get("CARDSTOCK_DEFAULT_ARGS", "[]")), *flags]
        old = capability < "8.0"
        refusals = [
            *([AWQ] if capability == "7.0" and "tiny-plain" not in " ".join(argv) else []),
            *([BF16] if old and "bfloat16" in given else []),
            *([FORCED] if old and given[-2:] == ["--attention-backend", "FLASH_ATTN"] else []),
        ]
        fits = capability in env.get("CARDSTOCK_ARCHS", "9.0") or env.get("CARDSTOCK_SKIP_PREFLIGHT") == "1"
        preflight = f"preflight: x {'fits' if fits else 'has no code for'} {card} ({capability})"
        chose = Choices(
            attention="TRITON_ATTN" if old else "FLASH_ATTN",
            dtype="float16",
            preflight=preflight,
            refusals=tuple(refusals),
        )
        ended = bool(refusals) or not fits
        return {
            "how": "ended" if ended else "healthy",
            "seconds": 60.0,
            "chose": asdict(chose),
            "kernels": {f"sm_{capability.replace('.', '')}": 63},
            "changed": list(NEEDED),
            "tail": ["last"],
            "answers": {"said": {"text": "Hello"}},
            "wrong": "",
            **({"error": "it ended with 1"} if ended else {}),
        }

    def run(self, argv: Sequence[str], **_: Any) -> process.Finished:
        self.argv.append(list(argv))
        text = " ".join(argv)
        out = json.dumps(LABELS if "Labels" in text else IMAGE_ENV) if "inspect" in argv else "81559\n"
        return process.Finished(tuple(argv), 0, out, "")


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Docker:
    found = Docker(tmp_path / "scratch")
    monkeypatch.setattr(process, "stream", found.stream)
    monkeypatch.setattr(process, "run", found.run)
    return found


def go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> tuple[int, GpuRecord]:
    out = tmp_path / "record.json"
    given = ["acting", "--image", IMAGE, "--out", str(out), "--scratch", str(tmp_path / "scratch"), *words]
    monkeypatch.setattr(sys, "argv", given)
    code = main()
    return code, read_gpu_record(out)


def verdicts(record: GpuRecord) -> dict[str, str]:
    return {step.name: step.verdict for step in record.steps}


def test_a_t4_an_l4_and_the_planted_mistakes(docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, record = go(monkeypatch, tmp_path, "--card", "T4", "--card", "NVIDIA L4")
    assert code == 0, [(step.name, step.reason) for step in record.steps]
    assert verdicts(record) == dict.fromkeys(
        [
            *("machine", "expected", "the acted card is seen", "3b checkpoint", acting.FLASH),
            *("T4: choices", "T4: tiny", "T4: 3b", "L4: choices", "L4: tiny", "L4: 3b"),
            *("planted: an image for other cards", "planted: flash-attn on 7.5", "planted: bfloat16 on 7.5"),
            "planted: AWQ on 7.0",
        ],
        "passed",
    )
    assert (record.card, record.capability, record.driver) == ("NVIDIA H100 80GB HBM3", "9.0", "580.159.04")
    assert (record.variant, record.input_hash, record.memory) == (VARIANT, "ab" * 32, 81559 * 2**20)
    assert [(one.label, one.capability, one.variant) for one in record.acted] == [
        ("T4", "7.5", "cu130-vllm0.33.0-triton-sm75"),
        ("L4", "8.9", "cu130-vllm0.33.0-flash-attn-sm89"),
    ]
    assert "no run on the card" in record.notes[0]
    # It is no run of the image on the real card, and none of the other images on theirs.
    assert records_of_variant([record], VARIANT) == ()
    assert records_of_variant([record], "cu130-vllm0.33.0-triton-sm75") == ()
    (seen,) = acted_runs([record], "cu130-vllm0.33.0-triton-sm75")
    assert seen.answered
    assert [step.name for step in seen.steps] == ["T4: choices", "T4: tiny", "T4: 3b"]


def test_a_server_is_told_of_its_card_and_takes_that_cards_environment(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go(monkeypatch, tmp_path, "--card", "T4", "--no-planted", "--env", "MINE=1")
    env = docker.env("T4-tiny")
    assert env["CARDSTOCK_ACTED"] == acted_card("T4").to_text()
    assert (env["CARDSTOCK_VARIANT"], env["CARDSTOCK_ARCHS"]) == ("cu130-vllm0.33.0-triton-sm75", "7.5")
    assert "TRITON_ATTN" in env["CARDSTOCK_DEFAULT_ARGS"]
    assert (env["TRITON_OVERRIDE_ARCH"], env["CARDSTOCK_ACTED_TARGETS"]) == ("sm75", "75 90")
    assert (env["TRITON_PTXAS_PATH"], env["CARDSTOCK_PTXAS"]) == ("/acted/ptxas", PREPARED["ptxas"])
    assert env["PYTHONPATH"] == "/acted:/checkout"
    assert env["LD_LIBRARY_PATH"] == "/acted/lib"
    assert env["MINE"] == "1"
    assert "CARDSTOCK_SKIP_PREFLIGHT" not in env  # preflight is to see the card
    words = next(one for one in docker.argv if "/proof/T4-tiny.json" in one)
    assert words[words.index("--network") + 1] == "none"
    assert "nvidia.com/gpu=all" in words
    assert f"type=bind,source={tmp_path}/scratch/acted,target=/acted,readonly" in words
    for name in ("sitecustomize.py", "ptxas"):
        assert (tmp_path / "scratch/acted" / name).stat().st_mode & 0o111
    # What is prepared and made on the real card is told of no other.
    assert "CARDSTOCK_ACTED" not in docker.env("prepare")
    assert "CARDSTOCK_ACTED" not in docker.env("checkpoint")


def test_a_card_that_the_stack_has_no_image_for_must_be_refused(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, record = go(monkeypatch, tmp_path, "--card", "V100", "--no-planted")
    assert (code, verdicts(record)["V100: refused"]) == (0, "passed")
    assert [one.variant for one in record.acted] == [""]
    assert "V100-tiny" not in docker.names()
    assert not acted_runs([record], VARIANT)


def test_a_card_whose_awq_the_matrix_refuses_serves_the_plain_weights(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = docker.tell

    def tell(name: str, argv: list[str]) -> dict[str, Any]:
        if name == "expected":
            return dict(all_expected("cu129", "vllm", "flash-attn", ["7.0", "7.5", "8.0", "8.6", "8.9"]))
        return real(name, argv)

    monkeypatch.setattr(docker, "tell", tell)
    code, record = go(monkeypatch, tmp_path, "--card", "V100", "--no-planted")
    assert code == 0, [(step.name, step.reason) for step in record.steps]
    assert [name for name in verdicts(record) if name.startswith("V100")] == [
        "V100: AWQ refused",
        "V100: choices",
        "V100: tiny, not quantised",
    ]


@pytest.mark.parametrize(
    ("name", "change", "step"),
    [
        ("T4-tiny", {"chose": asdict(Choices(attention="FLASH_ATTN", dtype="float16"))}, "T4: choices"),
        ("T4-tiny", {"kernels": {"sm_90a": 3}}, "T4: choices"),
        ("T4-3b", {"wrong": "text: !!!!"}, "T4: 3b"),
        ("planted-flash", {"how": "healthy", "chose": asdict(Choices("FLASH_ATTN"))}, "planted: flash-attn on 7.5"),
        ("planted-bf16", {"how": "healthy"}, "planted: bfloat16 on 7.5"),
        ("planted-awq", {"how": "healthy"}, "planted: AWQ on 7.0"),
        ("planted-image", {"how": "healthy"}, "planted: an image for other cards"),
    ],
)
def test_what_is_not_as_it_must_be_fails_the_run(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, change: dict[str, Any], step: str
) -> None:
    docker.change = lambda one, outcome: {**outcome, **change} if one == name else outcome
    code, record = go(monkeypatch, tmp_path, "--card", "T4")
    assert code == 1
    assert [one for one, verdict in verdicts(record).items() if verdict == "failed"] == [step]


def test_a_server_that_ended_is_not_tried_with_the_larger_model(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker.change = lambda name, told: {**told, "how": "ended", "error": "x"} if name == "T4-tiny" else told
    _, record = go(monkeypatch, tmp_path, "--card", "T4", "--no-planted")
    assert verdicts(record)["T4: 3b"] == "not run"
    assert "T4-tiny ended" in next(step.reason for step in record.steps if step.name == "T4: 3b")


def test_a_hang_ends_and_is_recorded_as_not_run(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker.slow = {"T4-tiny"}
    _, record = go(monkeypatch, tmp_path, "--card", "T4", "--no-planted")
    assert verdicts(record)["T4: tiny"] == "not run"
    assert any(words[:3] == ["docker", "rm", "--force"] for words in docker.argv)
    assert verdicts(record)["T4: 3b"] == "passed"  # it may be quicker with what the first one has compiled


def test_without_time_nothing_is_started(docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, record = go(monkeypatch, tmp_path, "--card", "T4", "--seconds", "30")
    assert verdicts(record)["T4: tiny"] == "not run"
    assert not [name for name in docker.names() if name.startswith(("T4", "planted"))]


def test_parts_of_a_run_go_on_in_its_record(docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go(monkeypatch, tmp_path, "--card", "T4", "--only", "T4: tiny")
    assert "checkpoint" not in docker.names()
    code, record = go(monkeypatch, tmp_path, "--card", "A100", "--only", "A100*", "--at-once", "2")
    assert code == 0
    assert [one.label for one in record.acted] == ["T4", "A100"]
    assert {"T4: choices", "T4: tiny", "A100: choices", "A100: tiny", "A100: 3b"} >= set(verdicts(record)) - {
        *("machine", "expected", "3b checkpoint", acting.FLASH)
    }
    assert docker.env("A100-tiny")["CARDSTOCK_ACTED_SHARED"] == "1"
    assert "CARDSTOCK_ACTED_SHARED" not in docker.env("T4-tiny")


@pytest.mark.parametrize("at_once", ["1", "2"])
def test_flash_attention_is_compiled_once_and_servers_start_without_it_too(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_once: str
) -> None:
    words = ("--card", "L4", "--card", "T4", "--no-planted", "--at-once", at_once)
    broken = {"compiled": [{"head": 64, "paged": True, "seconds": 1.0, "why": "CUDA error"}]}
    docker.change = lambda name, told: broken if name == "warm" else told
    _, record = go(monkeypatch, tmp_path, *words)
    step = next(step for step in record.steps if step.name == acting.FLASH)
    assert (step.verdict, step.reason) == ("not run", "not all of it: head 64: CUDA error")
    assert verdicts(record)["L4: tiny"] == "passed"
    docker.change = lambda name, told: told
    go(monkeypatch, tmp_path, *words)
    go(monkeypatch, tmp_path, *words)
    assert docker.names().count("warm") == 2  # the second run's is kept


def test_cards_side_by_side_have_room_on_the_real_one() -> None:
    room, inside, most = acting.Room(80), [0], [0]

    def hold(size: int) -> None:
        with room.place(size):
            inside[0] += size
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= size

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(hold, [40, 30, 30, 24, 16, 16]))
    assert 30 < most[0] <= 80
    with acting.Room(10).place(40):  # alone: the server itself says what does not fit
        pass


def test_a_machine_without_a_card_ends_with_3(docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker.change = lambda name, told: {**told, "card": {"why": "no driver"}} if name == "prepare" else told
    code, record = go(monkeypatch, tmp_path, "--card", "T4")
    assert code == NO_CARD
    assert verdicts(record) == {"machine": "failed"}


def test_without_the_front_preflight_is_left_out(
    docker: Docker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker.change = lambda name, told: {**told, "front missing": "no gcc"} if name == "prepare" else told
    go(monkeypatch, tmp_path, "--card", "T4", "--no-planted")
    assert docker.env("T4-tiny")["CARDSTOCK_SKIP_PREFLIGHT"] == "1"


def test_what_a_program_left_behind_is_told(docker: Docker, tmp_path: Path) -> None:
    host = ActingHost(IMAGE, tmp_path / "scratch", ROOT, Gpus(-1), {})
    host.prepare()
    docker.change = lambda name, told: {}
    assert host.run("checkpoint", ["x"], 5) == {}
    docker.slow = {"checkpoint"}
    with pytest.raises(NotRun, match="no end after 5 s"):
        host.run("checkpoint", ["x"], 5)
    docker.stream = lambda argv, say, **_: 1  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "stream", docker.stream)
        with pytest.raises(Failed, match="left nothing"):
            host.run("checkpoint", ["x"], 5)


def test_an_images_own_paths_stay_behind_those_that_are_added(docker: Docker) -> None:
    env = acted_env(acted_card("L4"), "9.0", "", "x", {"PYTHONPATH": "/own", "LD_LIBRARY_PATH": "/lib"}, True)
    assert env["PYTHONPATH"] == "/acted:/checkout:/own"
    assert env["LD_LIBRARY_PATH"] == "/acted/lib:/lib"
    assert "TRITON_PTXAS_PATH" not in env  # an image without Triton
    assert env_of(IMAGE)["CARDSTOCK_STACK"] == "cu130"


def test_an_older_vllm_is_told_its_attention_by_a_variable() -> None:
    assert acting.forced_attention("cu124-vllm0.8.5.post1-xformers-sm75", "FLASH_ATTN") == (
        {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN"},
        (),
    )
    assert acting.forced_attention("cu129-vllm0.19.1-triton-sm75", "FLASH_ATTN") == (
        {},
        ("--attention-backend", "FLASH_ATTN"),
    )
