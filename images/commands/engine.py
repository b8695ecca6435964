"""`invoke engine`: the embedded Docker engine."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import command
from images.context import Context
from images.core import default_layout, human_bytes, sweep
from images.core.options import option
from images.distribution import PULLED, drop_left
from images.distribution import load as loading


@dataclass(frozen=True)
class EngineOptions:
    """What `invoke engine` was asked; without a flag, its status."""

    start: bool = option("start it, if it does not run", False)
    stop: bool = option("stop it; its images stay", False)
    status: bool = option("whether it runs, and how much it holds", False)
    prune: bool = option("down to its limit; and drop what pulls, loads and runs left that did not end", False)
    everything: bool = option("with --prune: all", False)


@command("engine --status")
def engine(context: Context, options: EngineOptions) -> None:
    """The embedded Docker engine of a machine that has none."""
    manage_engine(context, options)


def drop_leftovers(context: Context) -> None:
    """Drop what killed runs left in the state folder, what pulls left that did not end, and containers of dead runs."""
    home, report = default_layout().home, context.report
    if not home.is_dir():
        return
    pulled = drop_left(home / PULLED, report.line)
    left = sweep()
    if pulled or left:
        report.line(f"dropped: {human_bytes(pulled)} of pulls and {human_bytes(left)} of runs that did not end")
    engine = context.running_engine()
    if engine is not None and (count := engine.cleanup()):
        report.line(f"dropped: {count} containers and volumes of runs that did not end")
    if engine is not None and (count := loading.drop_left(engine, report.line)):
        report.line(f"dropped: layers of loads that did not end ({count})")


def manage_engine(context: Context, options: EngineOptions) -> None:
    """Start, prune or stop it, then say how it is. Raises EngineUnreachable where it cannot be started."""
    from images.docker.embedded import daemon

    report = context.report
    if options.start:
        report.line(f"the embedded engine answers at {daemon.start(say=report.line)}")
    if options.prune:
        drop_leftovers(context)
        if not daemon.default_layout().root.is_dir():
            report.line("there is no embedded engine; docker system prune trims one of your own")
            return
        daemon.prune(everything=options.everything, say=report.line)
    if options.stop:
        report.line("stopped" if daemon.stop(say=report.line) else "it was not running")
        return
    state = daemon.status()
    report.line(f"{'running' if state.running else 'not running'}: {state.endpoint}")
    report.line(f"data: {human_bytes(state.data_bytes)} of at most {human_bytes(state.limit_bytes)}")
