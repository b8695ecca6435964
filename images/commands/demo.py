"""`invoke demo`: the server asked, the page's environment made, the page run until Ctrl-C, its uploads removed."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from images.commands.options import command
from images.context import Context
from images.core import CardstockError, UsageError, default_layout, process, provide_environment
from images.core.options import option
from images.render import VARIANT
from images.run.demo import (
    Answering,
    Limits,
    Settings,
    answering_at,
    find_model,
    is_loopback,
    page_folder,
    parse_address,
    read_size,
)

LOCK = Path("dev/demo.lock")
ROOTFS = Path("dockerfiles/rootfs/opt/cardstock")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class DemoOptions:
    """What `invoke demo` was asked."""

    server: str = option("any server that speaks the OpenAI API; $OPENAI_API_KEY is its key", "http://127.0.0.1:8000")
    model: str = option("one of its models; without it, its first", "")
    host: str = option("where the page listens; 0.0.0.0 is for everybody, without a password", "127.0.0.1")
    port: int = option("its port", 7860)
    max_picture: str = option("largest picture file", "10MB")
    max_video: str = option("largest video file", "60MB")
    max_pictures: int = option("pictures in one question, a video counted as its frames", 8)
    max_frames: int = option("frames that are sent of a video", 8)

    def limits(self) -> Limits:
        """Raises UsageError."""
        return Limits(
            picture_bytes=read_size(self.max_picture),
            video_bytes=read_size(self.max_video),
            pictures=self.max_pictures,
            frames=self.max_frames,
        )


@command("demo --server http://127.0.0.1:8000")
def demo(context: Context, options: DemoOptions) -> None:
    """A web page to ask a server about pictures and videos, until Ctrl-C."""
    open_page(context, default_layout().home, options)


def open_page(context: Context, home: Path, options: DemoOptions) -> None:
    """Run the page of the checkout until it is stopped; its environment is kept below ``home``.

    Raises CheckFailed without a server, UsageError for a port in use, ProcessFailed when the page ends by itself.
    """
    root, report = context.checkout.root, context.report
    limits, server = options.limits(), parse_address(options.server)
    model = find_model(server, options.model)
    free_port(options.host, options.port)
    python = provide_environment(root / LOCK, home, report.line)
    with page_folder(home) as work:
        behind = who_answers(context, server)
        report.line(f"{model} at {server}" + (f", by {behind}" if str(behind) else ""))
        report.line(limits.told())
        if not is_loopback(options.host):
            report.line(
                f"whoever reaches port {options.port} of this machine can use the page: it asks for no password"
            )
        settings = Settings(server, model, options.host, options.port, work / "uploads", limits, behind)
        argv = [str(python), "-m", "images.run.demo", settings.to_json()]
        try:
            process.stream(argv, report.line, cwd=work, env=surroundings(root, work))
        except KeyboardInterrupt:
            report.line("stopped; what was uploaded is removed")


def who_answers(context: Context, server: str) -> Answering:
    """The image and the card behind the address, where this machine's engine knows them; no engine is started."""
    try:
        engine = context.running_engine()
        if engine is None or not engine.local:
            return Answering()
        return answering_at(server, engine.containers.labelled(VARIANT), context.machine.cards)
    except CardstockError:  # what is nice to know stops no page
        return Answering()


def surroundings(root: Path, work: Path) -> dict[str, str]:
    """The page's environment: gradio's folders below ``work``, no reports to its makers, no proxy for itself."""
    past_proxies = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), *LOOPBACK]))
    return {
        # The page and the server on transformers share what guards them.
        "PYTHONPATH": os.pathsep.join([str(root), str(root / ROOTFS)]),
        "GRADIO_TEMP_DIR": str(work / "uploads"),
        "TMPDIR": str(work / "tmp"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "GRADIO_ALLOWED_PATHS": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": past_proxies,
        "no_proxy": past_proxies,
    }


def free_port(host: str, port: int) -> None:
    """Raises UsageError when nothing can listen there."""
    if not 0 < port < 65536:
        raise UsageError(f"the page cannot listen on port {port}", do="take one of 1 to 65535: --port 7860")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise UsageError(
            f"the page cannot listen on {host}, port {port}",
            cause=str(error),
            do=f"take another: --port {port + 1}",
        ) from error
