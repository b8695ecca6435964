"""The page itself, made with gradio's chat interface.

gradio keeps files to its upload folder too, and refuses what is larger than a limit while it comes in. What it does
not do is done here: an address in place of a path is not fetched, and a browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from connections import ConnectionLimits, protocol  # type: ignore[import-not-found,unused-ignore]
from starlette.middleware import Middleware

from images.run.demo import messages
from images.run.demo.ask import PartsOf, make_chat, parts_of
from images.run.demo.files import Refused
from images.run.demo.guard import Guard
from images.run.demo.settings import Settings

_HOUR = 3600
_LOOK = 2.0  # seconds between looks at the parent
# An upload over a slow line takes minutes.
_CONNECTIONS = ConnectionLimits(most=256, header_seconds=10.0, body_seconds=300.0)
_FONT = ["system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif"]
_HERE = Path(__file__).parent
# Our own pictures, drawn by tests/golden/make_examples.py, and what may be asked about them.
EXAMPLES = (
    ("receipt.png", "What does this come to, and what cost most?"),
    ("rain.png", "Which month had the most rain, and how much?"),
    ("table.png", "How many apples are there, and what is beside them?"),
)
_HINT = "Ask about a picture"


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
        css=(_HERE / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>",
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
        label="Conversation",
        show_label=False,
        height=None,
        min_height=160,
        max_height="62vh",
        buttons=["copy"],
        placeholder="**Try one of these, or ask about a picture of your own**",
        elem_id="conversation",
    )
    textbox = gr.MultimodalTextbox(
        label="Your question",
        file_count="multiple",
        file_types=["image", "video"],
        placeholder=_HINT,
        max_plain_text_length=limits.letters,
        autofocus=True,
        submit_btn=True,
        stop_btn=True,
        elem_id="question",
    )
    for component in (chatbot, textbox):
        component.async_move_resource_to_block_cache = _from_here_only(component.async_move_resource_to_block_cache)
    page = _Page(
        make_chat(settings, parts),
        multimodal=True,
        chatbot=chatbot,
        textbox=textbox,
        examples=[[{"text": text, "files": [str(_HERE / "examples" / name)]}] for name, text in EXAMPLES],
        additional_inputs=[
            gr.Textbox(
                label="System prompt",
                info="What the model is told before the conversation, such as: Answer in one sentence.",
                lines=2,
                placeholder="none",
            ),
            gr.Slider(
                1,
                4096,
                value=512,
                step=1,
                label="Longest answer, in tokens",
                info="A token is a short word or a piece of a longer one. 100 tokens are about 75 words of English.",
            ),
            gr.Slider(
                0,
                2,
                value=0,
                step=0.1,
                label="Temperature",
                info="0: the same question gets the same answer. Higher: answers vary, and stray more.",
            ),
        ],
        additional_inputs_accordion=gr.Accordion("Settings", open=False),
        title=f"Ask {settings.model}",
        validator=_validator(settings, parts),
        analytics_enabled=False,
        delete_cache=(_HOUR, 24 * _HOUR),
        concurrency_limit=4,
        api_name="chat",
        settings=settings,
    )
    # Among the uploads, so that they are read as those are; but they stay when those of yesterday go.
    page.chatbot.keep_in_cache.update(file["path"] for one in page.chatbot.examples for file in one["files"])
    return page


class _Page(gr.ChatInterface):  # type: ignore[misc,unused-ignore]
    """gradio's chat, with a header of its own, a line under the newest answer, and what is known of the server."""

    def __init__(self, *args: Any, settings: Settings, **options: Any) -> None:
        self._of = settings
        self._under = gr.HTML("", elem_id="under", render=False)
        super().__init__(*args, additional_outputs=[self._under], **options)

    def _render_header(self) -> None:
        gr.HTML(f"<h1>{escape(str(self.title))}</h1>", elem_id="header")

    def _render_chatbot_area(self, chatbot: Any, textbox: Any, *buttons: Any) -> None:
        super()._render_chatbot_area(chatbot, textbox, *buttons)
        self._under.render()
        below = self._under.parent.children
        below.insert(below.index(self.chatbot) + 1, below.pop())
        gr.HTML(_HOW, elem_id="how")

    def _setup_events(self) -> None:
        super()._setup_events()
        talk, box = self.chatbot, self.textbox
        # What was said of one answer is not said of the next.
        gr.on(
            [box.submit, talk.retry, talk.undo, talk.clear, talk.example_select],
            None,
            outputs=[self._under],
            js="() => ''",
            api_visibility="private",
        )

    def _render_footer(self) -> None:
        super()._render_footer()
        with gr.Accordion("About this server", open=False):
            gr.HTML(about(self._of), elem_id="about")


_HOW = (
    "Drop pictures or a video anywhere on this page, paste them, or press <b>Add</b>. "
    "<kbd>Enter</kbd> sends, <kbd>Shift</kbd> + <kbd>Enter</kbd> begins a new line."
)


def about(settings: Settings) -> str:
    """What who runs the page may want to know, as HTML."""
    behind = settings.answering
    rows = [
        ("Model", settings.model),
        ("Image", behind.image or "not known: no container of this machine's engine is behind the address"),
        ("Card", behind.card or "not known"),
        ("Address", settings.server),
        ("Takes", settings.limits.told()),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows) + "</dl>"


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
