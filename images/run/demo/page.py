"""The page itself, made with gradio's chat interface.

gradio keeps files to its upload folder too, and refuses what is larger than a limit while it comes in. What it does
not do is done here: an address in place of a path is not fetched, and a browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from connections import ConnectionLimits, protocol  # type: ignore[import-not-found,unused-ignore]
from starlette.middleware import Middleware

from images.run.demo import messages
from images.run.demo.ask import PartsOf, make_chat, parts_of
from images.run.demo.files import Refused
from images.run.demo.guard import Guard
from images.run.demo.settings import Settings, format_size

_HOUR = 3600
_LOOK = 2.0  # seconds between looks at the parent
# An upload over a slow line takes minutes.
_CONNECTIONS = ConnectionLimits(most=256, header_seconds=10.0, body_seconds=300.0)
_FONT = ["system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif"]
# Without gradio's footer and its way to share a picture with the world; a refusal above what it is about, not over it.
_CSS = """
footer, button[title="Share"] {display: none !important}
.wrap:has(> .validation-error), .validation-error {position: static !important}
"""


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
        app_kwargs={
            "middleware": [Middleware(Guard, settings=settings)],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        theme=gr.themes.Soft(font=_FONT, font_mono=["DejaVu Sans Mono", "monospace"], primary_hue="teal"),
        css=_CSS,
    )
    # gradio hands uvicorn no such setting; connections that come from here on are made of this class.
    page.server.config.http_protocol_class = protocol(_CONNECTIONS)
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
        make_chat(settings, parts),
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
            f"<center>Pictures up to {format_size(limits.picture_bytes)}; "
            f"videos up to {format_size(limits.video_bytes)}, of which {limits.frames} frames are sent; "
            f"{limits.pictures} pictures in a question. "
            f"Answers come from {settings.server}.</center>"
        ),
        validator=_validator(settings, parts),
        analytics_enabled=False,
        delete_cache=(_HOUR, 24 * _HOUR),
        concurrency_limit=4,
        api_name="chat",
    )


def _validator(settings: Settings, parts: PartsOf) -> Callable[..., Any]:
    """Tells what is refused before the question leaves its box, so that it can be mended there."""

    def check(message: Mapping[str, Any]) -> Any:
        try:
            messages.request_messages((), messages.question(message), parts, settings.limits)
        except Refused as refusal:
            return gr.validate(False, str(refusal))
        return gr.validate(True, "")

    return check


def _from_here_only(move: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """gradio would download an address that stands where a path should; this page fetches nothing for anybody."""

    async def checked(path: str | Path | None) -> Any:
        if "://" in str(path):
            raise gr.Error(
                "Addresses are not fetched: add the picture itself.", title="Not sent", print_exception=False
            )
        return await move(path)

    return checked
