"""An audit in a registry beside a pull: the rows of one run."""

from __future__ import annotations

from bench.command import register_all
from bench.remote_audit import Compared, rows_of
from images.render.checkout import Checkout
from tests.helpers.matrices import ROOT


def test_seconds_stand_beside_those_of_a_pull_and_bytes_beside_the_layers() -> None:
    seen = Compared(packed=1_700_000_000, received=850_000_000, audit=40.0, pull=80.0)
    seconds, size = rows_of("cpu", "cpu@12", "gzip", seen)
    assert (seconds.ours, seconds.peer, seconds.unit) == (40.0, 80.0, "s")
    assert (size.ours, size.peer, size.unit) == (850.0, 1700.0, "MB")
    assert seconds.measures == "cpu: audited in a registry, gzip"
    assert {row.image for row in (seconds, size)} == {"cpu@12"}


def test_it_runs_only_when_it_is_named() -> None:
    assert "root on Debian" in register_all(Checkout(ROOT))["remote-audit"]
