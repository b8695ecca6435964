"""`invoke engine`: the embedded Docker engine."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import command
from images.context import Context
from images.core import human_bytes
from images.core.options import option


@dataclass(frozen=True)
class EngineOptions:
    """What `invoke engine` was asked; without a flag, its status."""

    start: bool = option("start it, if it does not run", False)
    stop: bool = option("stop it; its images stay", False)
    status: bool = option("whether it runs, and how much it holds", False)
    prune: bool = option("down to its limit", False)
    everything: bool = option("with --prune: all", False)


@command
def engine(context: Context, options: EngineOptions) -> None:
    """The embedded Docker engine of a machine that has none."""
    manage_engine(context, options)


def manage_engine(context: Context, options: EngineOptions) -> None:
    """Start, prune or stop it, then say how it is. Raises EngineUnreachable where it cannot be started."""
    from images.docker.embedded import daemon

    report = context.report
    if options.start:
        report.line(f"the embedded engine answers at {daemon.start(say=report.line)}")
    if options.prune:
        daemon.prune(everything=options.everything, say=report.line)
    if options.stop:
        report.line("stopped" if daemon.stop(say=report.line) else "it was not running")
        return
    state = daemon.status()
    report.line(f"{'running' if state.running else 'not running'}: {state.endpoint}")
    report.line(f"data: {human_bytes(state.data_bytes)} of at most {human_bytes(state.limit_bytes)}")
