"""The page itself, made with gradio's chat interface, and what it asks the server.

gradio keeps files to its upload folder too, and refuses what is larger than a limit while it comes in. What it does
not do is done here: an address in place of a path is not fetched, and a browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import openai
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from images.demo import messages
from images.demo.files import Given, Refused, given
from images.demo.pictures import read_picture
from images.demo.server_words import trouble
from images.demo.settings import Settings, say_size
from images.demo.video import read_frames

PartsOf = Callable[[str], Sequence[messages.Part]]
_HOUR = 3600
_LOOK = 2.0  # seconds between looks at the parent
_KEPT = 16  # files whose parts are kept: each question of a conversation sends them again
_SECONDS = openai.Timeout(600.0, connect=10.0)
_FONT = ["system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif"]
# Without gradio's footer and its way to share a picture with the world; a refusal above what it is about, not over it.
_CSS = """
footer, button[title="Share"] {display: none !important}
.wrap:has(> .validation-error), .validation-error {position: static !important}
"""
# A picture's address in an answer would tell a stranger what was asked: the browser fetches from here only.
_POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    b"frame-ancestors 'self'; object-src 'none'; base-uri 'self'; form-action 'self'"
)


def serve(settings: Settings) -> None:
    """Run the page until SIGTERM or SIGINT, then end the streams that are open, and it."""
    ended, parent = threading.Event(), os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    page = build(settings)
    page.queue(default_concurrency_limit=4, max_size=64)
    page.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=False,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        max_file_size=settings.limits.upload_bytes,
        allowed_paths=[],
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        num_workers=0,
        app_kwargs={"middleware": [Middleware(_Policy)], "docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=gr.themes.Soft(font=_FONT, font_mono=["DejaVu Sans Mono", "monospace"], primary_hue="teal"),
        css=_CSS,
    )
    print(f"open {page.local_url}", flush=True)
    # Whoever started it may be killed with no chance to end it: it does not live on alone.
    while not ended.wait(_LOOK) and os.getppid() == parent:
        pass
    page.close()


def build(settings: Settings) -> gr.ChatInterface:
    """The page for one server."""
    limits, parts = settings.limits, parts_of(settings)
    chatbot = gr.Chatbot(
        show_label=False,
        scale=1,
        height="62vh",
        buttons=["copy"],
        placeholder=f"Ask **{settings.model}** about a picture or a video.",
    )
    textbox = gr.MultimodalTextbox(
        file_count="multiple",
        file_types=["image", "video"],
        placeholder="A question; pictures and videos by the clip, by paste, or dropped here",
        max_plain_text_length=limits.letters,
        autofocus=True,
        submit_btn=True,
        stop_btn=True,
    )
    for component in (chatbot, textbox):
        component.async_move_resource_to_block_cache = _from_here_only(component.async_move_resource_to_block_cache)
    return gr.ChatInterface(
        answerer(settings, parts),
        multimodal=True,
        chatbot=chatbot,
        textbox=textbox,
        additional_inputs=[
            gr.Textbox(label="System prompt", lines=2, placeholder="none"),
            gr.Slider(1, 4096, value=512, step=1, label="Longest answer, in tokens"),
            gr.Slider(0, 2, value=0, step=0.1, label="Temperature (0: the same question, the same answer)"),
        ],
        additional_inputs_accordion=gr.Accordion("Settings", open=False),
        title=f"Ask {settings.model}",
        description=(
            f"<center>Pictures up to {say_size(limits.picture_bytes)}; videos up to {say_size(limits.video_bytes)}, of "
            f"which {limits.frames} frames are sent; {limits.pictures} pictures in a question. "
            f"Answers come from {settings.server}.</center>"
        ),
        validator=_validator(settings, parts),
        analytics_enabled=False,
        delete_cache=(_HOUR, 24 * _HOUR),
        concurrency_limit=4,
        api_name="chat",
    )


def parts_of(settings: Settings) -> PartsOf:
    """How the file at a path becomes parts of a message; it raises Refused. A path is checked whenever it is asked for.

    An upload never changes: gradio keeps it below the hash of its content.
    """
    limits = settings.limits

    @lru_cache(_KEPT)
    def decoded(file: Given) -> Sequence[messages.Part]:
        if file.kind == "picture":
            picture = read_picture(file.path, file.form, limits.pixels, limits.side)
            return [messages.image_part(picture.url())]
        frames = read_frames(file.path, file.form, limits.frames, limits.pixels, limits.frame_side)
        out = [
            messages.text_part(f"{len(frames)} frames of a video, at " + ", ".join(f"{f.seconds:g} s" for f in frames))
        ]
        return [*out, *(messages.image_part(frame.picture.url()) for frame in frames)]

    return lambda path: decoded(given(path, settings.uploads, limits))


def _validator(settings: Settings, parts: PartsOf) -> Callable[..., Any]:
    """Tells what is refused before the question leaves its box, so that it can be mended there."""

    def check(message: Mapping[str, Any]) -> Any:
        try:
            messages.request_messages((), messages.question(message), parts, settings.limits)
        except Refused as refusal:
            return gr.validate(False, str(refusal))
        return gr.validate(True, "")

    return check


def answerer(settings: Settings, parts: PartsOf) -> Callable[..., Iterator[str]]:
    """What the chat interface calls: a question and what was said before in, the answer so far out, again and again."""
    client = openai.OpenAI(
        base_url=f"{settings.server}/v1",
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        timeout=_SECONDS,
        max_retries=0,
    )

    def chat(
        message: Mapping[str, Any], history: list[Any], system: str, max_tokens: float, temperature: float
    ) -> Iterator[str]:
        """Ask the model; the answer so far, as it grows."""
        question, said = messages.question(message), messages.turns(history)
        try:
            request = messages.request_messages(said, question, parts, settings.limits, system or "")
            yield from _answer(client, settings, request, int(max_tokens), float(temperature))
        except Refused as refusal:
            raise gr.Error(str(refusal), title="Not sent", duration=None, print_exception=False) from refusal
        except openai.OpenAIError as error:
            told = trouble(settings.server, error)
            raise gr.Error(told, title="No answer", duration=None, print_exception=False) from error

    return chat


def _answer(
    client: openai.OpenAI, settings: Settings, request: list[Any], max_tokens: int, temperature: float
) -> Iterator[str]:
    text, finish = "", None
    with ExitStack() as closing:
        # Closed when the person stops it too: the server then stops computing.
        stream = closing.enter_context(
            client.chat.completions.create(
                model=settings.model, messages=request, max_tokens=max_tokens, temperature=temperature, stream=True
            )
        )
        for event in stream:
            for choice in event.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    text += choice.delta.content
                    yield text
    if not text:
        raise Refused("The model answered with nothing at all.")
    if finish == "length":
        gr.Info(f"The answer was cut off after {max_tokens} tokens; the settings allow more.")


def _from_here_only(move: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """gradio would download an address that stands where a path should; this page fetches nothing for anybody."""

    async def checked(path: str | Path | None) -> Any:
        if "://" in str(path):
            raise gr.Error(
                "Addresses are not fetched: add the picture itself.", title="Not sent", print_exception=False
            )
        return await move(path)

    return checked


class _Policy:
    """Adds the content security policy to each answer; plain ASGI, so that streams stay streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        await self._app(scope, receive, with_policy)
