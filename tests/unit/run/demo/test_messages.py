"""What a conversation at the page becomes when it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from images.run.demo.files import Refused
from images.run.demo.messages import LEFT_OUT, Part, Turn, image_part, question, request_messages, text_part, turns
from images.run.demo.settings import Limits

LIMITS = Limits(pictures=3, frames=3, letters=100)


def parts(path: str) -> Sequence[Part]:
    if path == "clip.mp4":
        return [text_part("2 frames"), image_part("clip:0"), image_part("clip:1")]
    return [image_part(path)]


def sent(question: Turn, *said: Turn, system: str = "") -> list[dict[str, Any]]:
    return request_messages(said, question, parts, LIMITS, system)


def test_a_text_is_sent_as_it_is() -> None:
    assert sent(Turn("user", "Say hello")) == [{"role": "user", "content": "Say hello"}]


def test_the_system_prompt_comes_first_when_there_is_one() -> None:
    assert sent(Turn("user", "x"), system=" be brief ")[0] == {"role": "system", "content": "be brief"}
    assert len(sent(Turn("user", "x"), system="  ")) == 1


def test_pictures_come_before_the_text_and_a_picture_needs_none() -> None:
    assert sent(Turn("user", "What?", ("a", "b")))[0]["content"] == [
        image_part("a"),
        image_part("b"),
        {"type": "text", "text": "What?"},
    ]
    assert sent(Turn("user", " ", ("a",)))[0]["content"] == [image_part("a")]


def test_earlier_turns_are_sent_again() -> None:
    said = (Turn("user", "one", ("a",)), Turn("assistant", "red"), Turn("user", "two"), Turn("assistant", "blue"))
    assert [message["role"] for message in sent(Turn("user", "three"), *said)] == ["user", "assistant"] * 2 + ["user"]


def test_a_question_without_an_answer_is_not_sent_again() -> None:
    said = (Turn("user", "refused", ("bad",)), Turn("user", "one"), Turn("assistant", "red"), Turn("user", "failed"))
    assert [message["content"] for message in sent(Turn("user", "two"), *said)] == ["one", "red", "two"]


def test_the_oldest_pictures_give_way() -> None:
    said = (
        Turn("user", "one", ("a", "b")),
        Turn("assistant", "red"),
        Turn("user", "two", ("c",)),
        Turn("assistant", "blue"),
    )
    first, _, second, _, last = sent(Turn("user", "three", ("d",)), *said)
    assert first["content"] == [text_part(LEFT_OUT), image_part("b"), text_part("one")]
    assert second["content"][0] == image_part("c")
    assert last["content"][0] == image_part("d")


def test_a_video_counts_as_its_frames() -> None:
    assert len(sent(Turn("user", "x", ("clip.mp4", "a")))[0]["content"]) == 5
    with pytest.raises(Refused, match=r"The question has 4 pictures, a video counted as its frames; at most 3"):
        sent(Turn("user", "x", ("clip.mp4", "a", "b")))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "Nothing was asked"), (" \n", "Nothing was asked"), ("x" * 101, "101 letters; at most 100")],
)
def test_empty_and_endless_questions_are_refused(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        sent(Turn("user", text))


def test_gradios_box_is_understood() -> None:
    assert question({"text": "What?", "files": ["a", {"path": "b", "url": "/x"}]}) == Turn("user", "What?", ("a", "b"))
    assert question({"text": None}) == Turn("user", "")


def test_gradios_messages_are_understood() -> None:
    file = {"type": "file", "file": {"path": "/uploads/a.png", "meta": {"_type": "gradio.FileData"}}}
    assert turns(
        [
            {"role": "user", "content": [file, {"type": "text", "text": "What?"}], "metadata": None},
            {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
            {"role": "assistant", "content": "plain"},
            {"role": "user", "content": [{"type": "component", "component": "plot"}, "x"]},
            {"role": "system", "content": "not from the page"},
        ]
    ) == [
        Turn("user", "What?", ("/uploads/a.png",)),
        Turn("assistant", "red"),
        Turn("assistant", "plain"),
        Turn("user", "x"),
    ]
