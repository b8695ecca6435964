"""A command's context for tests: this checkout or another, no engine or a given one, text kept instead of printed."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from images.cards.this_machine import LocalMachine
from images.context import Context
from images.core.errors import EngineUnreachable
from images.core.report import Report
from images.core.site import SiteSettings
from images.docker.engine import Engine
from images.render.checkout import Checkout
from tests.helpers.matrices import ROOT, matrix, variants

NO_CARD = LocalMachine(why="no card in this test")


def no_engine() -> Engine:
    """What asking for an engine comes to where there is none."""
    raise EngineUnreachable("no engine answers in this test")


def context(
    report: Report | None = None,
    *,
    root: Path = ROOT,
    engine: Engine | None = None,
    environment: Mapping[str, str] | None = None,
    **known: Any,
) -> Context:
    """With ``known`` values instead of those that would be read, such as ``locked={}``; without a card unless told."""
    made = Context(
        Checkout(root),
        report or Report(live=False),
        os.environ if environment is None else environment,
        (lambda: engine) if engine is not None else no_engine,
    )
    known = {"machine": NO_CARD, **known}
    if root == ROOT:
        known = {"matrix": matrix(), "variants": variants(), **known}
    return made.having(**known)


def silent() -> tuple[Report, io.StringIO]:
    """A report, and what it writes to stderr."""
    err = io.StringIO()
    return Report(io.StringIO(), err, live=False), err


def all_locked(root: Path, engine: Engine, report: Report | None = None, site: SiteSettings | None = None) -> Context:
    """The context of another checkout, as if every stack of it were locked."""
    states = dict.fromkeys((variant.lock for variant in variants().valid.values()), "locked")
    return context(report, root=root, engine=engine, lock_states=states, site=site or SiteSettings())
