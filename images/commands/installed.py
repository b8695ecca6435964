"""The console script `cardstock`: the commands that need no checkout. The wheel holds what they reach (dev/package)."""

from __future__ import annotations

from importlib import import_module

from invoke.collection import Collection

from images.commands.program import run_program
from images.core import INSTALLED, started_as

COMMANDS = (
    "advisories",
    "audit",
    "cards",
    "catalogue",
    "cluster",
    "demo",
    "doctor",
    "engine",
    "fit",
    "load",
    "pull",
    "serve",
    "warm",
)
# What is typed all the same, and is told where it is had.
IN_CHECKOUT = (
    "bench",
    "build",
    "docs",
    "explain",
    "kernels",
    "lint",
    "lock",
    "plan",
    "publish",
    "records",
    "render",
    "save",
    "served",
    "slim",
    "smoke",
    "test",
    "weigh",
    "which",
)


def main() -> None:
    """Run the command that was typed, as `cardstock COMMAND`."""
    started_as(INSTALLED, IN_CHECKOUT)  # first: the commands' help texts are made where they are imported
    collection = Collection()
    for name in COMMANDS:
        collection.add_task(getattr(import_module(f"images.commands.{name}"), name))
    run_program(INSTALLED, collection, IN_CHECKOUT)
