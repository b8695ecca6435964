"""A server that does not get healthy: what is told. And a run that gives no verdict: an error, and nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.core import process
from images.core.errors import CardstockError
from images.core.process import Finished
from images.proof.smoke.containers import is_local, tmpfs_options, writable
from images.proof.smoke.expectation import Expectation
from images.proof.smoke.findings import ImageConfig
from images.proof.smoke.health import Health, likely_cause, unhealthy_text
from images.proof.smoke.prove import prove_image
from images.proof.smoke.record import LevelResult, ProofRecord

EXPECTED = Expectation("v", "cpu", "vllm", "sdpa", (), None, {}, None)


def health(**state: object) -> Health:
    return Health.of({"State": {"Status": "running", "ExitCode": 0, **state}})


STARTING = health(Health={"Status": "starting", "Log": None})
EXITED = health(Status="exited", ExitCode=1, Health={"Status": "unhealthy"})


def test_when_to_go_on_waiting() -> None:
    assert STARTING.verdict is None
    assert health(Health={"Status": "healthy"}).verdict is True
    assert EXITED.verdict is False
    assert health(Health={"Status": "unhealthy"}).verdict is False
    assert health().verdict is False  # no health check: nothing to wait for


@pytest.mark.parametrize(
    ("state", "log", "cause"),
    [
        (EXITED, "RuntimeError: CUDA error: no kernel image is available for execution", "no code for this card"),
        (
            EXITED,
            "preflight: cu1-sm75 has no code for NVIDIA L4 (8.9)\n  cause: x",
            "cu1-sm75 has no code for NVIDIA L4",
        ),
        (EXITED, "preflight: driver 470.82.01 is too old for cu1-sm75", "does not fit this machine"),
        (EXITED, "preflight: cu1-sm75 fits Tesla T4\nCUDA out of memory", "memory is too small"),
        (EXITED, "CUDA driver version is insufficient for CUDA runtime version", "driver is too old"),
        (EXITED, "RuntimeError: Failed to infer device type", "no GPU is visible"),
        (
            EXITED,
            "ValueError: invalid literal for int() with base 10: 'MIG-377e0049'",
            "CUDA_VISIBLE_DEVICES: MIG-377e0049",
        ),
        (EXITED, "RuntimeError: Unexpected error from cudaGetDeviceCount() Error 802: system not yet", "fabric"),
        (EXITED, "CUDA error: CUDA-capable device(s) is/are busy or unavailable", "compute mode"),
        (EXITED, "pynvml.NVMLError_Unknown: Unknown Error", "does not answer in the container"),
        (EXITED, "torch.OutOfMemoryError: CUDA out of memory", "memory is too small"),
        (EXITED, "OSError: [Errno 30] Read-only file system: '/root/x'", "writes outside"),
        (EXITED, "ModuleNotFoundError: No module named 'uvloop'", "No module named 'uvloop'"),
        (EXITED, "api_server.py: error: unrecognized arguments: --max-len", "unrecognized arguments: --max-len"),
        (health(Status="exited", ExitCode=137), "loading", "want of memory"),
        (health(OOMKilled=True), "loading", "want of memory"),
        (EXITED, "bye", "ended while starting"),
        (STARTING, "loading weights", "still starting"),
        (health(), "serving", "no health check"),
        (health(Health={"Status": "unhealthy", "Log": [{"Output": "refused\n"}]}), "serving", "fails: refused"),
    ],
)
def test_the_likely_cause(state: Health, log: str, cause: str) -> None:
    result, do = likely_cause(state, log)
    assert cause in result
    assert do


def test_the_end_of_the_log_is_shown() -> None:
    log = "\n".join(f"line {number}" for number in range(200))
    what, cause, _ = unhealthy_text(EXITED, log, 12.4)
    assert what == "the container did not get healthy within 12 s: state exited, health unhealthy, exit code 1"
    assert "last 60 lines of its log" in cause
    assert "line 199" in cause
    assert "line 140\n" in cause
    assert "line 139\n" not in cause


def test_an_empty_log_is_reported_to_be_empty() -> None:
    assert "(empty)" in unhealthy_text(STARTING, "", 1)[1]


# -- containers


def test_a_container_writes_to_tmp_its_volumes_and_its_cache_only() -> None:
    config = ImageConfig(
        env={"XDG_CACHE_HOME": "/cache", "HF_HOME": "/cache/huggingface"}, volumes=["/models", "/cache"]
    )
    assert writable(config, set()) == ["/tmp", "/cache", "/models"]
    assert writable(config, {"/cache"}) == ["/tmp", "/models"]
    assert writable(ImageConfig(env={"HF_HOME": "relative"}), set()) == ["/tmp"]


def test_a_tmpfs_belongs_to_the_images_user() -> None:
    assert tmpfs_options("10001:10002").endswith("uid=10001,gid=10002")
    assert tmpfs_options("10001").endswith("uid=10001")
    assert "uid=" not in tmpfs_options("name")


def test_a_remote_engine_gets_copies() -> None:
    assert is_local({})
    assert is_local({"DOCKER_HOST": "unix:///x"})
    assert not is_local({"DOCKER_HOST": "tcp://far:2376"})


# -- prove, with a stand-in for pytest


class Stand:
    """Takes the place of images.core.process: writes a record or not, ends with a code, remembers the arguments."""

    def __init__(self, code: int, record: ProofRecord | None) -> None:
        self.code, self.record = code, record
        self.argv: list[str] = []
        self.env: dict[str, str] = {}
        self.cleaned = ""

    def stream(self, argv: list[str], on_line: object, *, env: dict[str, str], **_: object) -> int:
        self.argv, self.env = argv, env
        on_line("test_stack PASSED")  # type: ignore[operator]
        on_line("rootdir: /somewhere")  # type: ignore[operator]
        if self.record:
            Path(argv[argv.index("--record") + 1]).write_text(self.record.to_json())
        return self.code

    def run(self, argv: list[str], **_: object) -> Finished:
        self.cleaned = argv[-1]
        return Finished(tuple(argv), 0, "", "")


PASSED = ProofRecord(
    "v", "i", "sha256:1", "2026-01-02T03:04:05Z", None, None, "26", (LevelResult(2, "stack", "passed"),)
)
FAILED = ProofRecord(
    "v", "i", "sha256:1", "2026-01-02T03:04:05Z", None, None, "26", (LevelResult(2, "stack", "failed", "root"),)
)


def stand(monkeypatch: pytest.MonkeyPatch, code: int, record: ProofRecord | None) -> Stand:
    made = Stand(code, record)
    monkeypatch.setattr(process, "stream", made.stream)
    monkeypatch.setattr(process, "run", made.run)
    return made


@pytest.mark.parametrize(("code", "record"), [(0, PASSED), (1, FAILED)])
def test_a_verdict_is_returned_good_or_bad(monkeypatch: pytest.MonkeyPatch, code: int, record: ProofRecord) -> None:
    made = stand(monkeypatch, code, record)
    lines: list[str] = []
    assert (
        prove_image("i", EXPECTED, engine_env={"DOCKER_HOST": "unix:///x"}, levels=(3, 2), report=lines.append)
        == record
    )
    assert lines == ["test_stack PASSED"]
    assert made.env["DOCKER_HOST"] == "unix:///x"
    assert [Path(word).name for word in made.argv if word.endswith(".py")] == ["test_2_stack.py", "test_3_canary.py"]
    assert not made.cleaned  # the levels have removed what they made before they write a record


@pytest.mark.parametrize(("code", "record"), [(0, None), (1, None), (2, PASSED), (3, PASSED), (4, None), (-9, None)])
def test_no_verdict_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int, record: ProofRecord | None) -> None:
    made = stand(monkeypatch, code, record)
    with pytest.raises(CardstockError, match="could not be run on i"):
        prove_image("i", EXPECTED, engine_env={})
    assert made.cleaned == made.argv[made.argv.index("--run") + 1]


def test_model_and_cards_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand(monkeypatch, 0, PASSED)
    prove_image("i", EXPECTED, engine_env={}, model="org/name", gpus="all")
    assert made.argv[made.argv.index("--model") + 1] == "org/name"
    assert made.argv[made.argv.index("--gpus") + 1] == "all"
