"""What the checkpoint of 3B's shape is asked, and has learnt."""

from __future__ import annotations

from images.proof.on_card.shaped.answers import CASES, answer, messages, noise_message, picture_bytes


def test_the_taught_answers_differ_from_picture_to_picture() -> None:
    assert messages("picture-red") != messages("picture-blue")
    assert answer("picture-red")[:1] != answer("picture-blue")[:1]
    assert len({len(set(answer(name))) - len(answer(name)) for name in CASES}) == 1  # no token twice in an answer
    assert picture_bytes("text") == []
    assert picture_bytes("picture-red")[0].startswith(b"\x89PNG")
    assert noise_message(1) == noise_message(1) != noise_message(2)
