"""What the bench of preflight says of what it measured; an engine stands in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import preflight
from bench.stages import ONLY, Workbench
from images.core.errors import NothingSelected
from images.core.report import Report
from images.core.site import SiteSettings
from images.docker.engine import Engine
from images.render.checkout import Checkout
from tests.helpers.matrices import ROOT, variants

CPU, T4, L4 = "cpu-vllm0.32.0-sdpa", "cu124-vllm0.8.5.post1-xformers-sm75", "cu128-vllm0.11.0-flash-attn-sm89"


class Having:
    """An engine that has these images; what is timed in them takes a second at first, then some hundredths."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def inspect(self, reference: str) -> Any:
        return SimpleNamespace(labels={}) if reference.partition(":")[2] in self._names else None

    def run(self, image: str, command: list[str], **_: Any) -> Any:
        assert "/opt/cardstock/preflight.py" in command[1]
        return SimpleNamespace(out="1.0\n0.03\n0.05\n0.04\n")


def tools(*names: str) -> Workbench:
    checkout = Checkout(ROOT)
    return Workbench(checkout, checkout.matrix(), cast("Engine", Having(*names)), SiteSettings(), Report())


def test_images_for_cards_are_measured_one_unless_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ONLY, raising=False)
    assert [variant.id for variant in preflight.chosen_variants(tools(CPU, T4, L4))] == [T4]
    monkeypatch.setenv(ONLY, "cu*")
    assert [variant.id for variant in preflight.chosen_variants(tools(CPU, T4, L4))] == [T4, L4]
    with pytest.raises(NothingSelected, match="none is built"):
        preflight.chosen_variants(tools(CPU))


def test_the_first_run_does_not_count_and_the_median_does() -> None:
    taken = preflight.seconds(tools(T4), variants().valid[T4])
    assert taken == [0.03, 0.05, 0.04]
    (row,) = preflight.rows(T4, "x", taken, 20.0)
    assert (row.ours, row.peer, row.against) == (0.04, 20.0, "importing the server")
