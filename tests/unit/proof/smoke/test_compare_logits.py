"""Judging answers: degenerate ones are caught, honest short ones are not, golden ones are held to their logprobs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from images.core.errors import CheckFailed
from images.proof.smoke import server as serving
from images.proof.smoke.client import chat_request, read_completion, read_stream
from images.proof.smoke.compare_logits import (
    ModelAnswer,
    greatest_distance,
    log_softmax,
    why_degenerate,
    why_not_golden,
    why_wrong,
)
from images.proof.tiny_model.picture import SIGNATURE
from images.proof.tiny_model.question import circle, number, questions


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", "nothing"),
        (" \n ", "nothing"),
        ("!!!!", 'only "!"'),
        ("! ! !\n!", 'only "!"'),
        ("!", 'only "!"'),
        ("aaaaaaaa", "one character"),
        ("the the the the the", "one word repeated 5 times"),
        ("red blue red blue red blue red blue red blue red blue", "the same 2 words"),
        ("the the the the the the the the the the cat the the", "one word is 12 of 13"),
        ("\ufffd\ufffd", "no text"),
        ([], "nothing"),
        ([0, 0, 0], 'only "!"'),
        ([0], 'only "!"'),
        (["!", "!"], 'only "!"'),
        ([7, 7, 7, 7], "one token repeated 4 times"),
        ([5, 6, 7] * 4, "the same 3 tokens"),
    ],
)
def test_degenerate_output_is_caught(output: str | list[int | str], reason: str) -> None:
    assert reason in (why_degenerate(output) or "not caught")


@pytest.mark.parametrize(
    "output",
    [
        "red",
        "42",
        "Hello!",
        "The circle is red.",
        "no no",
        "a photo of a cat and a dog on the grass with the sun and the sky above the hill",
        [282, 354],
        [294, 332, 264, 348, 336, 354],
        [0, 5],
    ],
)
def test_honest_output_is_not(output: str | list[int | str]) -> None:
    assert why_degenerate(output) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logprobs_must_be_finite(value: float) -> None:
    assert "not finite" in (why_degenerate("red", [-0.1, value]) or "")


RED = next(golden for golden in serving.read_golden(serving.GOLDEN.read_text()) if golden.name == "picture-red")


def said(**changes: object) -> ModelAnswer:
    whole = ModelAnswer(RED.text, RED.tokens, RED.logprobs, "stop")
    return replace(whole, **changes)  # type: ignore[arg-type]


def judged(answer: ModelAnswer, tolerance: float = 0.1) -> str | None:
    return why_not_golden(answer, RED.tokens, RED.texts, RED.logprobs, tolerance)


def test_the_golden_answer_agrees_with_itself() -> None:
    assert judged(said()) is None


def test_tokens_may_be_told_as_text_and_the_end_may_be_left_out() -> None:
    assert RED.texts == ("red", "<|im_end|>")
    assert judged(said(tokens=RED.texts)) is None
    assert judged(said(tokens=("red", ""))) is None
    assert judged(said(tokens=RED.tokens[:1], logprobs=RED.logprobs[:1])) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tokens": (283, 354)}, "golden"),
        ({"tokens": ("blue", "")}, "golden"),
        ({"tokens": ("red", "blue")}, "golden"),
        ({"tokens": ()}, "golden"),
        ({"tokens": (*RED.tokens, 5)}, "golden"),
        ({"finish": "length"}, "did not stop"),
        ({"logprobs": RED.logprobs[:1]}, "1 logprobs for 2 tokens"),
        ({"logprobs": (RED.logprobs[0] - 0.2, RED.logprobs[1])}, "'red'"),
        ({"logprobs": (math.nan, RED.logprobs[1])}, "further than"),
    ],
)
def test_a_different_answer_does_not(changes: dict[str, object], reason: str) -> None:
    assert reason in (judged(said(**changes)) or "agreed")


def test_logprobs_are_those_of_a_softmax() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, 0.0]], dtype=np.float32)
    table = log_softmax(logits)
    assert table[0, 2] == pytest.approx(3 - math.log(math.e + math.e**2 + math.e**3))
    assert table[1, 0] == pytest.approx(0.0)
    assert np.exp(table).sum(axis=1) == pytest.approx([1.0, 1.0])


def test_runners_up_are_compared_by_id_or_text() -> None:
    table = np.array([[-0.1, -5.0, -9.0]])
    ids = {"red": 0, "blue": 1}
    assert greatest_distance(said(top=({0: -0.1, 1: -5.2},)), table, ids) == pytest.approx(0.2)
    assert greatest_distance(said(top=({"red": -0.1, "blue": -4.0, "\ufffd": -7.0},)), table, ids) == pytest.approx(1.0)
    assert greatest_distance(said(top=({2: math.nan},)), table, ids) != pytest.approx(0.0)
    assert greatest_distance(said(), table, ids) == math.inf


@pytest.mark.parametrize("text", ["red", "Red.", "It is RED", "The circle is red, on white."])
def test_a_right_answer_is_accepted(text: str) -> None:
    assert why_wrong(text, ("red",)) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("!!!!", 'only "!"'),
        ("rendered", "none of red"),
        ("blue", "none of red"),
        ("", "nothing"),
        ("142", "none of red"),
    ],
)
def test_a_wrong_answer_is_not(text: str, reason: str) -> None:
    assert reason in (why_wrong(text, ("red",)) or "accepted")


def test_questions_have_pictures() -> None:
    for question in questions():
        assert question.picture.startswith(SIGNATURE)
        assert why_wrong(question.answers[0], question.answers) is None
    assert circle(side=28) != circle(b"\0\0\xff", side=28)
    assert number("42") != number("24")
    with pytest.raises(KeyError):
        number("7")


# -- the API


def completion(**changes: object) -> dict[str, object]:
    top = [{"token": "token_id:5", "logprob": -3}]
    rows = [
        {"token": "token_id:282", "logprob": -0.1, "top_logprobs": top},
        {"token": "token_id:354", "logprob": -0.2},
    ]
    choice = {"message": {"content": "red"}, "finish_reason": "stop", "logprobs": {"content": rows}, **changes}
    return {"choices": [choice]}


def test_a_completion_is_read() -> None:
    assert read_completion(completion()) == ModelAnswer("red", (282, 354), (-0.1, -0.2), "stop", ({5: -3.0}, {}))
    assert read_completion(completion(logprobs=None)) == ModelAnswer("red", finish="stop")


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"message": None}]}, {"error": "x"}])
def test_what_is_no_completion_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(CheckFailed, match="not of the OpenAI form"):
        read_completion(body)


def event(**delta: str) -> str:
    return "data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": None}]}) + "\n\n"


END = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def test_a_stream_is_put_together() -> None:
    assert read_stream(event(role="assistant") + event(content="re") + event(content="d") + END) == ModelAnswer(
        "red", finish="stop"
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (event(content="red"), "no end"),
        ("", "no end"),
        ('data: {"error": {}}\n\n' + END, "an event"),
        ("data: {\n", "an event"),
    ],
)
def test_a_broken_stream_is_refused(body: str, reason: str) -> None:
    with pytest.raises(CheckFailed, match=reason):
        read_stream(body)


def test_requests_are_greedy_and_ask_for_ids_where_they_can() -> None:
    request = chat_request("m", [{"role": "user", "content": "x"}], max_tokens=3)
    assert (request["temperature"], request["logprobs"]) == (0, True)
    assert "return_tokens_as_token_ids" not in request
    assert chat_request("m", [], max_tokens=3, token_ids=True)["return_tokens_as_token_ids"] is True


def test_golden_messages_hold_their_pictures() -> None:
    two = next(g for g in serving.read_golden(serving.GOLDEN.read_text()) if g.pictures == 2)
    parts = two.messages[0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert parts[0] != parts[1]
    assert all(value <= 0 for value in two.logprobs)
