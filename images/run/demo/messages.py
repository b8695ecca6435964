"""A conversation at the page as the messages of one request. Pure: how a file becomes parts is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from images.run.demo.files import Refused
from images.run.demo.settings import Limits

Part = dict[str, Any]
Role = Literal["user", "assistant"]
LEFT_OUT = "[an earlier picture, left out of this request]"


@dataclass(frozen=True)
class Turn:
    """What one side of the conversation said: its ``role``, its text, and the paths of the files sent with it."""

    role: Role
    text: str
    files: tuple[str, ...] = ()


def question(message: Mapping[str, Any]) -> Turn:
    """Gradio's ``text`` and ``files`` of its input box; asked again, a file comes as a mapping with its path."""
    files = [file if isinstance(file, str) else str(file["path"]) for file in message.get("files") or ()]
    return Turn("user", message.get("text") or "", tuple(files))


def turns(history: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Gradio's messages (``role``, ``content``: a text, or parts of type "text" and "file") as turns."""
    return [
        Turn(message["role"], *_content(message["content"]))
        for message in history
        if message["role"] in ("user", "assistant")
    ]


def _content(content: Any) -> tuple[str, tuple[str, ...]]:
    parts = content if isinstance(content, list) else [content]
    texts, files = [], []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") == "text":
            texts.append(part["text"])
        elif part.get("type") == "file":
            files.append(part["file"]["path"])
    return "\n".join(texts), tuple(files)


def answered_turns(said: Sequence[Turn]) -> Iterator[Turn]:
    """The questions that got an answer, and their answers; refused and failed ones are left out."""
    for at, turn in enumerate(said):
        if turn.role == "assistant" or (at + 1 < len(said) and said[at + 1].role == "assistant"):
            yield turn


def image_part(url: str) -> Part:
    """A picture as the API takes it."""
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text: str) -> Part:
    """A text as the API takes it."""
    return {"type": "text", "text": text}


def request_messages(
    said: Sequence[Turn], question: Turn, parts_of: Callable[[str], Sequence[Part]], limits: Limits, system: str = ""
) -> list[dict[str, Any]]:
    """The messages of a request: ``system`` if there is one, what was said and answered before, the question.

    ``parts_of`` gives a file's parts, or raises Refused. Of pictures beyond ``limits.pictures`` the oldest give way to
    a text. Raises Refused when the question is empty, too long, or has too many pictures by itself.
    """
    if not question.text.strip() and not question.files:
        raise Refused("Nothing was asked: write a question, or add a picture.")
    if len(question.text) > limits.letters:
        raise Refused(f"The question has {len(question.text)} letters; at most {limits.letters} are sent.")
    asked = _message(question, parts_of)
    count = _pictures([asked])
    if count > limits.pictures:
        raise Refused(
            f"The question has {count} pictures, a video counted as its frames; "
            f"at most {limits.pictures} are sent at once."
        )
    earlier = _newest([_message(turn, parts_of) for turn in answered_turns(said)], limits.pictures - count)
    first = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return [*first, *earlier, asked]


def _message(turn: Turn, parts_of: Callable[[str], Sequence[Part]]) -> dict[str, Any]:
    if not turn.files:
        return {"role": turn.role, "content": turn.text}
    parts = [part for path in turn.files for part in parts_of(path)]
    return {"role": turn.role, "content": [*parts, *([text_part(turn.text)] if turn.text.strip() else [])]}


def _is_picture(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _pictures(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(_is_picture(part) for message in messages for part in message["content"])


def _newest(messages: Sequence[dict[str, Any]], room: int) -> list[dict[str, Any]]:
    """The messages with their newest ``room`` pictures; each older one as a text."""
    out = []
    for message in reversed(messages):
        content = message["content"]
        if not isinstance(content, str):
            kept: list[Part] = []
            for part in reversed(content):
                keep = not _is_picture(part) or room > 0
                room -= _is_picture(part)
                kept.append(part if keep else text_part(LEFT_OUT))
            content = kept[::-1]
        out.append({**message, "content": content})
    return out[::-1]
