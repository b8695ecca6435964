"""A server warmed: as it will be served, without a key that clients would send, and gone at the end of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from images.commands.warm import WarmOptions, keep_compiled
from images.compiled.store import CompiledStore
from images.context import Context
from images.core.errors import CheckFailed, UsageError
from images.docker import ContainerSpec
from images.docker.engine import Engine
from images.docker.facts import ImageFacts
from images.run.serve import warm as warming
from images.run.serve.pick import ServeOptions
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import variants


def test_the_question_fits_into_an_argument_of_a_program() -> None:
    said = json.dumps(warming.question("tiny"))
    assert len(said) < 131072  # MAX_ARG_STRLEN of Linux
    (message,) = json.loads(said)["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]


def test_no_key_is_asked_of_the_one_client() -> None:
    given = {"VLLM_API_KEY": "x", "CARDSTOCK_API_KEY": "x", "HF_TOKEN": "y"}
    assert warming.without_keys(given) == {"HF_TOKEN": "y"}


class Watched:
    """Containers and an engine that do nothing but remember; ``dies``: the server ends; ``answer`` is the request's."""

    local = beside = True
    endpoint = "unix:///x.sock"

    def __init__(self, answer: tuple[int, str] = (0, '{"choices": [1]}')) -> None:
        self.answer, self.did = answer, list[str]()
        self.labels: Mapping[str, str] = {}

    @property
    def containers(self) -> Any:
        return self

    def inspect(self, _: str) -> ImageFacts:
        label = {"dev.cardstock.variant": cpu()}
        return ImageFacts("sha256:" + "a" * 64, (), (), label, {}, "", (), (), 1, "", "amd64", ())

    def host(self) -> Any:
        return type("Host", (), {"memory": 0})

    def cleanup(self) -> int:
        return 0

    def make_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self.did.append("make volume")

    def remove_volume(self, name: str) -> None:
        self.did.append("remove volume")

    def start(self, spec: ContainerSpec, environment: Mapping[str, str]) -> None:
        self.did.append("start")
        self.labels = dict(spec.labels)
        assert spec.restart == "no" and spec.name == spec.mounts[-1].source
        assert "VLLM_API_KEY" not in spec.passed

    def find(self, name: str) -> Any:
        state = {"State": {"Status": "running", "Health": {"Status": "healthy", "Log": []}}}
        return type("C", (), {"attributes": state, "restarts": 0, "labels": {}, "name": name})

    def log(self, name: str, lines: int = 0) -> str:
        return ""

    def execute(self, name: str, command: Sequence[str]) -> tuple[int, str]:
        self.did.append("ask")
        return self.answer

    def stop(self, name: str, seconds: int) -> None:
        self.did.append("stop")

    def remove(self, name: str) -> None:
        self.did.append("remove")


def cpu() -> str:
    return next(v.id for v in variants().valid.values() if v.cuda is None)


@pytest.fixture
def asked(tmp_path: Path) -> ServeOptions:
    from images.proof.tiny_model.checkpoint import write_checkpoint

    write_checkpoint(tmp_path / "tiny")
    return ServeOptions(model=str(tmp_path / "tiny"), variant=cpu())


def here(watched: Watched) -> Context:
    report, _ = silent()
    return context(report, engine=cast("Engine", watched), environment={"VLLM_API_KEY": "x"}, locked={})


def test_a_server_is_started_asked_stopped_and_gone(
    asked: ServeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, said = Watched(), dict[str, object]()

    def keep(engine: object, name: str, key: object, store: object, **more: object) -> Any:
        watched.did.append("keep")
        said.update(more, key=key)
        record = type("R", (), {"files": 1, "size": 2})
        return type("K", (), {"record": record})

    monkeypatch.setattr(warming, "keep", keep)
    warming.warm(here(watched), asked, CompiledStore(tmp_path / "store"))
    assert watched.did == ["make volume", "start", "ask", "stop", "keep", "remove", "remove volume"]
    assert (said["variant"], said["called"], said["driver"]) == (cpu(), "tiny", "")
    assert set(watched.labels) == {"dev.cardstock.run", "dev.cardstock.owner"}  # a killed run's are found and dropped


@pytest.mark.parametrize("answer", [(1, "503 loading"), (0, "no JSON"), (0, '{"choices": []}'), (0, "")])
def test_one_that_does_not_answer_is_gone_all_the_same(
    asked: ServeOptions, tmp_path: Path, answer: tuple[int, str]
) -> None:
    watched, store = Watched(answer), CompiledStore(tmp_path / "store")
    with pytest.raises(CheckFailed, match="did not answer a picture and a text"):
        warming.warm(here(watched), asked, store)
    assert watched.did == ["make volume", "start", "ask", "remove", "remove volume"]
    assert store.entries() == ()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (WarmOptions(), "which model"),
        (WarmOptions(model="3b-awq", key="cosign.key"), "sign what is pushed"),
        (WarmOptions(model="3b-awq", out="/nowhere/at/all.tar"), "there is no folder"),
        (WarmOptions(model="3b-awq", push="127.0.0.1:1/x", key="a", keyless=True), "exclude each other"),
        (WarmOptions(model="3b-awq", push="127.0.0.1:1/x", key="/no/key"), "there is no key"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(options: WarmOptions, told: str) -> None:
    watched = Watched()
    with pytest.raises(UsageError, match=told):
        keep_compiled(here(watched), options)
    assert watched.did == []
