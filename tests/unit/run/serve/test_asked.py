"""What is asked for as a model, with a hub that answers, one that does not, and none at all."""

from __future__ import annotations

import http.server
import json
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images.cards.this_machine import LocalMachine
from images.commands.fit import show_fit
from images.commands.serve import start_server
from images.core.errors import CardstockError, RegistryFailure, UsageError
from images.run.fit.find import FitOptions
from images.run.serve.asked import asked_model
from images.run.serve.pick import ServeOptions
from tests.helpers.contexts import context, silent
from tests.unit.run.fit.test_find import AWQ, CONFIG

MINE = "someone/Qwen2.5-VL-7B-Instruct-mine"
COPY = "someone/Qwen2.5-VL-7B-Instruct"
UNPADDED = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 29568,
    "vision_config": {**CONFIG["vision_config"], "intermediate_size": 3456},
    "quantization_config": AWQ,
}


@contextmanager
def _hub(**configs: dict[str, Any]) -> Iterator[str]:
    """A hub on loopback: config.json by the repository's name without its owner."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = configs.get(self.path.split("/")[2].replace("-", "_").replace(".", "_"))
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The address of a port of this machine that nothing listens on: bound, not listened to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def _asked(text: str, hub: str, config: str = "", **environment: str) -> tuple[Any, list[str]]:
    told: list[str] = []
    return asked_model(text, {"HF_ENDPOINT": hub, **environment}, None, told.append, config), told


def test_somebodys_repository_is_what_its_config_says() -> None:
    with _hub(Qwen2_5_VL_72B_Instruct_AWQ={**CONFIG, **UNPADDED}) as hub:
        found, told = _asked("someone/Qwen2.5-VL-72B-Instruct-AWQ", hub)
    assert found.name == found.source == "someone/Qwen2.5-VL-72B-Instruct-AWQ"
    assert (found.shape.intermediate, found.shape.unverified, told) == (29568, "", [])


def test_a_published_one_is_not_looked_up(nowhere: str) -> None:
    for text in ("7b", "Qwen/Qwen2.5-VL-7B-Instruct", "qwen/qwen2.5-vl-7b-instruct"):
        found, told = _asked(text, nowhere)
        assert (found.name, found.source, told) == ("7b", "Qwen/Qwen2.5-VL-7B-Instruct", [])


def test_without_a_hub_a_name_that_is_understood_counts_and_says_so(nowhere: str) -> None:
    found, told = _asked(COPY, nowhere)
    assert found.name == found.source == COPY and "taken for granted" in found.shape.unverified
    assert len(told) == 1 and "--config FILE" in told[0] and nowhere in told[0]


@pytest.mark.parametrize(
    "text", ["Qwen/Qwen2.5-VL-32B-Instruct-GPTQ", MINE, "unsloth/Qwen2.5-VL-7B-Instruct-bnb-4bit", "a/b"]
)
def test_without_a_hub_any_other_name_is_refused_with_the_way_out(text: str, nowhere: str) -> None:
    with pytest.raises(RegistryFailure) as refused:
        _asked(text, nowhere)
    assert refused.value.exit_code == 6 and text in refused.value.what
    assert "is not understood" in refused.value.cause and "--config FILE" in refused.value.do


def test_a_machine_that_is_told_to_be_offline_asks_no_hub() -> None:
    asked: list[str] = []
    with _hub() as hub:
        _, asked = _asked(COPY, hub, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in asked[0]


def test_files_for_other_programs_are_refused_by_their_name(nowhere: str) -> None:
    with pytest.raises(UsageError) as refused:
        _asked("someone/Qwen2.5-VL-7B-Instruct-GGUF", nowhere)
    assert "llama.cpp" in refused.value.cause


def test_a_config_of_ones_own_needs_no_hub(tmp_path: Path, nowhere: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG))
    found, told = _asked(MINE, nowhere, str(file))
    assert (found.name, found.source, told) == (MINE, MINE, [])


def _fit(hub: str, capsys: pytest.CaptureFixture[str], **words: Any) -> str:
    report, err = silent()
    known = context(report, locked={}, environment={"HF_ENDPOINT": hub})
    show_fit(known, replace(FitOptions(COPY, ["RTX 3090"]), **words), LocalMachine(why="none"))
    return capsys.readouterr().out + err.getvalue()


def test_every_line_of_a_fit_has_the_owner(capsys: pytest.CaptureFixture[str], nowhere: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG))
    for words in ({}, {"model": MINE, "config": str(file)}):
        name = words.get("model", COPY)
        out = _fit(nowhere, capsys, **words)
        docker = shlex.split(next(line for line in out.splitlines() if line.startswith("docker run")))
        assert docker[docker.index("--model") + 1] == docker[docker.index("--served-model-name") + 1] == name
        assert f"{name} on GeForce RTX 3090" in out and f"./inv serve --model {name}" in out
        # Without "taken for granted", which names whose shape it is, no line speaks of another's checkpoint.
        assert not any("Qwen/" in line for line in out.splitlines() if "taken for granted" not in line)
    assert f"--config {file}" in out


def test_a_refusal_names_it_as_its_owner_does(capsys: pytest.CaptureFixture[str], nowhere: str) -> None:
    with pytest.raises(CardstockError) as refused:
        _fit(nowhere, capsys, model="someone/Qwen2.5-VL-72B-Instruct", cards=["RTX 3090"])
    assert refused.value.what.startswith("someone/Qwen2.5-VL-72B-Instruct does not fit")
    typed = refused.value.do.partition("what fits: ")[2]
    assert not typed or "--model someone/Qwen2.5-VL-72B-Instruct " in typed


def test_serve_prints_the_owner_too(capsys: pytest.CaptureFixture[str], nowhere: str) -> None:
    report, err = silent()
    known = context(report, locked={}, environment={"HF_ENDPOINT": nowhere})
    start_server(known, ServeOptions(model=COPY, cards=["RTX 3090"], print=True), LocalMachine())
    words = shlex.split(capsys.readouterr().out)
    assert words[words.index("--model") + 1] == words[words.index("--served-model-name") + 1] == COPY
    assert "taken for granted" in err.getvalue()
