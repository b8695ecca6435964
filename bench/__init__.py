"""Measurements: what they find is kept in `records`, and BENCH.md is written from that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from bench import audit as audit
    from bench import builds as builds
    from bench import catalogue as catalogue
    from bench import command as command
    from bench import devel as devel
    from bench import frame as frame
    from bench import guard as guard
    from bench import guard_cost as guard_cost
    from bench import kernels as kernels
    from bench import layers as layers
    from bench import levels as levels
    from bench import oracle as oracle
    from bench import plan as plan
    from bench import preflight as preflight
    from bench import rendering as rendering
    from bench import server as server
    from bench import sizes as sizes
    from bench import slim as slim
    from bench import start as start
    from bench.budgets import HEADER as HEADER
    from bench.budgets import hold as hold
    from bench.budgets import table_of as table_of
    from bench.budgets import weigh as weigh
    from bench.command import bench as bench
    from bench.command import pages as pages
else:
    __getattr__ = face(__name__, __file__)
