"""What the page asks the server, and how the files of a question become parts of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any

import gradio as gr
import httpx2
import openai

from images.run.demo import messages
from images.run.demo.figures import Stopwatch
from images.run.demo.files import Refused, Upload, check_upload
from images.run.demo.pictures import read_picture
from images.run.demo.server_messages import error_sentence
from images.run.demo.settings import Settings
from images.run.demo.video import read_frames

PartsOf = Callable[[str], Sequence[messages.Part]]
_KEPT = 16  # files whose parts are kept: each question of a conversation sends them again
_SECONDS = openai.Timeout(600.0, connect=10.0)


def parts_of(settings: Settings) -> PartsOf:
    """How the file at a path becomes parts of a message; it raises Refused. A path is checked whenever it is asked for.

    An upload never changes: gradio keeps it below the hash of its content.
    """
    limits = settings.limits

    turn = threading.Lock()

    @lru_cache(_KEPT)
    def decoded(file: Upload) -> Sequence[messages.Part]:
        with turn:  # a picture of fifty million pixels takes half a gigabyte while it is open
            return opened(file)

    def opened(file: Upload) -> Sequence[messages.Part]:
        if file.kind == "picture":
            picture = read_picture(file.path, file.form, limits.pixels, limits.side)
            return [messages.image_part(picture.url())]
        frames = read_frames(file.path, file.form, limits.frames, limits.pixels, limits.frame_side)
        out = [
            messages.text_part(f"{len(frames)} frames of a video, at " + ", ".join(f"{f.seconds:g} s" for f in frames))
        ]
        return [*out, *(messages.image_part(frame.picture.url()) for frame in frames)]

    return lambda path: decoded(check_upload(path, settings.uploads, limits))


Growing = tuple[str, str]  # an answer so far, and the line under it


def make_chat(settings: Settings, parts: PartsOf) -> Callable[..., Iterator[Growing]]:
    """The function that the chat interface calls with a question and the history; it yields the answer as it grows."""
    client = openai.OpenAI(
        base_url=f"{settings.server}/v1",
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        timeout=_SECONDS,
        max_retries=0,
    )

    def chat(
        message: Mapping[str, Any], history: list[Any], system: str, max_tokens: float, temperature: float
    ) -> Iterator[Growing]:
        """Ask the model; the answer so far, as it grows, and how fast it came."""
        question, history_turns = messages.question(message), messages.turns(history)
        try:
            request = messages.request_messages(history_turns, question, parts, settings.limits, system or "")
            yield from _answer(client, settings, request, int(max_tokens), float(temperature))
        except Refused as refusal:
            raise gr.Error(str(refusal), title="Not sent", duration=None, print_exception=False) from refusal
        except (openai.OpenAIError, httpx2.HTTPError) as error:  # the second when an answer breaks off
            sentence = error_sentence(settings.server, error)
            raise gr.Error(sentence, title="No answer", duration=None, print_exception=False) from error

    return chat


def _answer(
    client: openai.OpenAI, settings: Settings, request: list[Any], max_tokens: int, temperature: float
) -> Iterator[Growing]:
    text, finish, watch = "", None, Stopwatch()
    with _stream(client, settings, request, max_tokens, temperature) as stream:
        # Closed when the person stops it too: the server then stops computing.
        for event in stream:
            if event.usage:
                watch.tokens = event.usage.completion_tokens
            for choice in event.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    watch.piece()
                    text += choice.delta.content
                    yield text, under(settings, "")
    if not text:
        raise Refused("The model answered with nothing at all.")
    yield text, under(settings, watch.told())
    if finish == "length":
        gr.Info(f"The answer was cut off after {max_tokens} tokens; the settings allow more.")


def _stream(client: openai.OpenAI, settings: Settings, request: list[Any], max_tokens: int, temperature: float) -> Any:
    """The server's answer as events; the last tells how many tokens it had, where the server knows of that."""

    def asked(**more: Any) -> Any:
        return client.chat.completions.create(
            model=settings.model, messages=request, max_tokens=max_tokens, temperature=temperature, stream=True, **more
        )

    try:
        return asked(stream_options={"include_usage": True})
    except openai.BadRequestError as error:
        if "stream_options" not in str(error):
            raise
        return asked()


def under(settings: Settings, figures: str) -> str:
    """The line under an answer, as HTML: what answers, and ``figures`` once they are known."""
    parts = filter(None, (figures, str(settings.answering) or settings.model))
    return " · ".join(f"<span>{escape(part)}</span>" for part in parts)
