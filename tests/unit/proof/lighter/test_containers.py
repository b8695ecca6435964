"""Containers of two images, Docker faked: programs that run to their end, engines that are asked over their socket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from images.core import process
from images.device_code.stand_ins.source import SAID
from images.docker.container_spec import Gpus
from images.proof.lighter.containers import Engine, Host, container_name
from images.proof.lighter.worker import serve
from images.proof.on_card.runs.run import Failed
from tests.helpers.matrices import ROOT

WORDS = ["a.program", "--fast"]


@pytest.fixture
def host() -> Iterator[Host]:
    """A host whose folder has a short name: the path of a socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="lighter-") as folder:
        found = Host(Path(folder) / "scratch", ROOT, Gpus(-1, cdi=True), {"MINE": "1"})
        found.prepare()
        yield found


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, host: Host) -> dict[str, Any]:
    """``program`` is what each container does, given the folder that it shares with the host and what takes a line of
    its output; ``argv`` are the command lines so far, ``answers`` what other commands say, by a word of theirs.
    """
    told: dict[str, Any] = {"argv": [], "answers": {}, "program": lambda folder, say: 0}

    def stream(argv: Sequence[str], say: Callable[[str], None], **_: Any) -> int:
        told["argv"].append(list(argv))
        code: int = told["program"](host.scratch, say)
        return code

    def run(argv: Sequence[str], **_: Any) -> process.Finished:
        told["argv"].append(list(argv))
        out = next((said for word, said in told["answers"].items() if word in argv), "")
        if isinstance(out, Exception):
            raise out
        return process.Finished(tuple(argv), 0, out, "")

    monkeypatch.setattr(process, "stream", stream)
    monkeypatch.setattr(process, "run", run)
    return told


def test_a_program_runs_to_its_end_and_what_it_wrote_is_read(host: Host, docker: dict[str, Any]) -> None:
    (host.scratch / "x.json").write_text('{"from": "an earlier run"}')
    (host.scratch / "x.calls").write_text("libcufft.so.12 cufftPlan1d\n")

    def program(folder: Path, say: Callable[[str], None]) -> int:
        assert not (folder / "x.json").exists()
        say("computing")
        (folder / "x.json").write_text('{"cases": 4}')
        return 0

    docker["program"] = program
    assert host.run("image", "x", WORDS, "0,1") == {"cases": 4}
    (argv,) = docker["argv"]
    assert argv[-4:] == ["a.program", "--fast", "--out", "/proof/x.json"]
    for word in ("CUDA_VISIBLE_DEVICES=0,1", "CARDSTOCK_STAND_IN_CALLS=/proof/x.calls", "MINE=1", container_name("x")):
        assert word in argv
    assert host.tail("x") == "computing\n"
    assert host.calls("x") == []


@pytest.mark.parametrize(("code", "writes"), [(3, True), (0, False)])
def test_a_program_that_fails_or_writes_nothing_is_told_with_its_log(
    host: Host, docker: dict[str, Any], code: int, writes: bool
) -> None:
    def program(folder: Path, say: Callable[[str], None]) -> int:
        say("no kernel image")
        if writes:
            (folder / "x.json").write_text("{}")
        return code

    docker["program"] = program
    with pytest.raises(Failed, match=f"x ended with {code}: no kernel image"):
        host.run("image", "x", WORDS, "0")


def test_a_program_that_takes_too_long_is_removed(host: Host, docker: dict[str, Any]) -> None:
    def program(folder: Path, say: Callable[[str], None]) -> int:
        raise process.ProcessFailed(["docker"], -9, "no end")

    docker["program"] = program
    with pytest.raises(process.ProcessFailed):
        host.run("image", "x", WORDS, "0")
    assert docker["argv"][-1] == ["docker", "rm", "--force", container_name("x")]


def test_the_last_line_that_is_an_object_is_heard_whatever_the_exit_code(host: Host, docker: dict[str, Any]) -> None:
    def program(folder: Path, say: Callable[[str], None]) -> int:
        for line in ("starting", '{"ok": true}', '{"ok": false}', "[1]", "done"):
            say(line)
        return 1

    docker["program"] = program
    assert host.hear("image", "x", WORDS, "0") == {"ok": False}
    docker["program"] = lambda folder, say: say("[1]") or 2
    with pytest.raises(Failed, match=r"x ended with 2: \[1\]"):
        host.hear("image", "x", WORDS, "0")


def test_calls_are_those_of_the_file_and_of_the_log(host: Host) -> None:
    assert host.calls("x") == []
    (host.scratch / "x.calls").write_text("libcufft.so.12 cufftPlan1d\n")
    (host.scratch / "x.log").write_text(f"hello\nINFO {SAID}cusparseCreate of libcusparse.so.12, for y\n")
    assert host.calls("x") == [
        "libcufft.so.12 cufftPlan1d",
        f"{SAID}cusparseCreate of libcusparse.so.12, for y",
    ]


class Asked:
    """What the worker asks in the place of vLLM."""

    def memory(self) -> dict[str, Any]:
        return {"reserved": 5}

    def decode(self, batch: int) -> dict[str, Any]:
        raise RuntimeError(f"out of memory with {batch}")


def test_an_engine_is_asked_over_its_socket_until_it_is_closed(host: Host, docker: dict[str, Any]) -> None:
    def program(folder: Path, say: Callable[[str], None]) -> int:
        say("listening")
        serve(str(folder / "light.sock"), Asked())  # type: ignore[arg-type]
        return 0

    docker["program"] = program
    engine = Engine(host, "image", "light", "0")
    assert engine.ask("memory") == {"reserved": 5}
    with pytest.raises(Failed, match=r"(?s)light: decode: .*out of memory with 16"):
        engine.ask("decode", batch=16)
    assert engine.ask("memory") == {"reserved": 5}
    docker["answers"] = {"inspect": f"{os.getpid()}\n"}
    assert os.getpid() in engine.processes()
    docker["answers"] = {"inspect": "0\n"}
    assert engine.processes() == []
    engine.close()
    assert engine.code == 0
    assert not [argv for argv in docker["argv"] if "rm" in argv]


def test_an_engine_that_ends_before_it_listens_is_told_with_its_log(host: Host, docker: dict[str, Any]) -> None:
    docker["program"] = lambda folder, say: say("ImportError: libcudnn.so.9") or 1
    engine = Engine(host, "image", "light", "0")
    with pytest.raises(Failed, match=r"light does not listen: ImportError: libcudnn\.so\.9"):
        engine.ask("memory")
    engine.close()
    assert engine.code == 1
