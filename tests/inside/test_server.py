"""The server on transformers with a real model, the tiny checkpoint: run inside a built image by
tests/engine/test_inside.py.

By hand: PYTHON_WITH_TORCH -m pytest --noconftest tests/inside
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from bench import payloads
from images.proof.smoke import server as serving
from images.proof.smoke.client import Client, chat_request
from images.proof.tiny_model import checkpoint
from images.proof.tiny_model.golden import ROOTFS

sys.path.insert(0, str(ROOTFS))
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from app import create_app  # type: ignore[import-not-found,unused-ignore]
from chat import Chat, Image, Message, Sampling  # type: ignore[import-not-found,unused-ignore]
from generate import Transformers  # type: ignore[import-not-found,unused-ignore]
from picture_size import resized  # type: ignore[import-not-found,unused-ignore]
from settings import Settings  # type: ignore[import-not-found,unused-ignore]
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

GOLDEN = {golden.name: golden for golden in serving.read_golden(serving.GOLDEN.read_text())}
RED = GOLDEN["picture-red"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = checkpoint.write_checkpoint(tmp_path_factory.mktemp("model") / "tiny").folder
    with served(folder) as found:
        yield found


@contextmanager
def served(folder: Path) -> Iterator[Client]:
    """A client of the server with this model."""
    app = create_app(Transformers(folder, dtype="float32", devices=["cpu"]), Settings(("tiny",)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    yield Client(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize(
    "size", [(56, 56), (10, 10), (224, 224), (640, 480), (1920, 1080), (8000, 8000), (8001, 7000), (20_000, 200)]
)
def test_the_size_of_a_picture_is_known_before_it_is_opened(size: tuple[int, int]) -> None:
    width, height = size
    high, wide = smart_resize(height, width, 28, 3136, 12_845_056)
    assert resized(width, height, 28, 3136, 12_845_056) == (wide, high)


def test_pixels_of_a_prompt_are_known_before_it_is_made(tmp_path: Path) -> None:
    backend = Transformers(checkpoint.write_checkpoint(tmp_path / "tiny").folder, dtype="float32", devices=["cpu"])
    pictures = [payloads.png(300, 200), payloads.png(90, 400, 4), payloads.png(17, 17, 1)]
    opened, kept = backend.pixels(pictures)
    chat = Chat("tiny", (Message("user", (*(Image("") for _ in pictures), "What?")),), Sampling(), False, False)
    prompt = backend.prepare(chat, pictures)
    assert prompt.inputs["pixel_values"].shape[0] * 14 * 14 == kept == opened - 300 * 200
    alone = [backend.prepare(Chat("tiny", (Message("user", (Image(""),)),), Sampling(), False, False), [one])
             for one in pictures]  # fmt: skip
    assert torch.equal(prompt.inputs["pixel_values"], torch.cat([one.inputs["pixel_values"] for one in alone]))


def test_a_conversation_too_long_is_refused_before_a_picture_is_opened(tmp_path: Path) -> None:
    backend = Transformers(checkpoint.write_checkpoint(tmp_path / "tiny").folder, devices=["cpu"], max_model_len=100)
    truncated = payloads.png(8000, 8000, rows=1)  # opening it would fail in another way
    chat = Chat(
        "tiny",
        (
            Message(
                "user",
                (Image(""), Image("")),
            ),
        ),
        Sampling(),
        False,
        False,
    )
    with pytest.raises(ApiError, match="maximum context length is 100 tokens"):
        backend.prepare(chat, [truncated, truncated])


def metrics(client: Client) -> dict[str, float]:
    """Each sample without labels by its name, those of one name added up."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").body):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def refusal(client: Client, **fields: Any) -> dict[str, Any]:
    """The error that a request with these fields gets, which must be 400."""
    request = {**chat_request("tiny", RED.messages, max_tokens=4), **fields}
    answer = client.call("POST", "/v1/chat/completions", request)
    assert answer.status == 400
    error: dict[str, Any] = json.loads(answer.body)["error"]
    return error


@pytest.mark.parametrize("tiny", (checkpoint.QWEN2, checkpoint.QWEN3), ids=lambda tiny: tiny.family)
def test_other_families_give_their_golden_answers(tiny: checkpoint.Tiny, tmp_path: Path) -> None:
    with served(checkpoint.write_checkpoint(tmp_path / tiny.family, tiny).folder) as client:
        answers = serving.read_golden(tiny.golden.read_text())
        said = {one.name: client.chat(chat_request("tiny", one.messages, max_tokens=8)).text for one in answers}
    assert said == {one.name: one.text for one in answers} and len(said) == 4


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_answers_whole_and_as_a_stream(client: Client, name: str) -> None:
    golden = GOLDEN[name]
    request = chat_request("tiny", golden.messages, max_tokens=len(golden.tokens) + 4)
    assert client.chat(request).text == client.stream(request).text == golden.text


def test_wrong_requests_are_refused_before_the_model_sees_them(client: Client) -> None:
    before = metrics(client)
    assert refusal(client, temperature="hot")["message"] == 'temperature must be a number, not "hot"'
    assert refusal(client, messages=[{"role": "wizard", "content": "x"}])["param"] == "messages"
    assert refusal(client, max_tokens=5000)["message"].startswith("max_tokens must be at most 4096")
    assert refusal(client, messages=serving.question_messages("What?", "data:,x"))["code"] == "invalid_image"
    after = metrics(client)
    assert after["cardstock_requests_refused_total"] - before.get("cardstock_requests_refused_total", 0) == 4
    assert after["cardstock_generation_tokens_total"] == before["cardstock_generation_tokens_total"]


def test_times_of_an_answer_are_in_the_histograms(client: Client) -> None:
    names = ("time_to_first_token", "inter_token_latency", "e2e_request_latency", "request_queue_time")
    before = metrics(client)
    client.chat(chat_request("tiny", RED.messages, max_tokens=8))
    after = metrics(client)
    grown = [after[f"vllm:{name}_seconds_count"] - before[f"vllm:{name}_seconds_count"] for name in names]
    assert grown == [1, len(RED.tokens) - 1, 1, 1]
    first, between, whole, _ = (
        after[f"vllm:{name}_seconds_sum"] - before[f"vllm:{name}_seconds_sum"] for name in names
    )
    assert 0 < first < whole and first + between == pytest.approx(whole, abs=1e-6)


def test_the_api_is_described(client: Client) -> None:
    described = json.loads(client.get("/openapi.json").body)
    assert "/v1/chat/completions" in described["paths"] and "ChatRequest" in described["components"]["schemas"]
    assert client.get("/docs").status == 200
