"""What `invoke bench kernels` measures, and in which order: a compiler with a cache stands in for the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.kernels import DEFAULT, KernelBench, _scratch, named_kernels
from images.core.errors import UsageError
from images.core.report import human_bytes
from images.matrix.kernel import Kernel
from tests.helpers.matrices import variants
from tests.helpers.wheels import build, kernel


class Cached:
    """Compiles one object an arch, 100 s each, or takes it from its cache in 1 s."""

    def __init__(self) -> None:
        self.cache: set[str] = set()
        self.calls: list[str] = []

    def empty(self) -> None:
        self.calls.append("empty")
        self.cache.clear()

    def compile(self, of: Kernel, folder: Path) -> None:
        self.calls.append(" ".join(of.capabilities))
        new = set(of.capabilities) - self.cache
        seconds = 100.0 * len(new) + len(of.archs)
        self.cache |= new
        build(folder, *of.capabilities, of=of, compiled=len(new), seconds=seconds, cpu_seconds=90.0 * len(new))

    def bench(self) -> KernelBench:
        return KernelBench(self.compile, self.empty, lambda _, folder: float(len(list(folder.iterdir()))), _scratch)


def test_cold_warm_and_one_arch_more() -> None:
    compiler = Cached()
    one, both = compiler.bench().measure([kernel("7.5"), kernel("7.0", "7.5")])
    assert (one.cold.seconds, one.warm.seconds, one.base, one.added) == (101, 1, None, None)
    assert (both.cold.seconds, both.warm.seconds, both.base) == (202, 2, kernel("7.5"))
    assert both.added is not None and both.added.seconds == 102
    # The cache of the one before is what one arch more is measured with: nothing is compiled twice for it.
    assert compiler.calls == ["empty", "7.5", "7.5", "7.0 7.5", "empty", "7.0 7.5", "7.0 7.5", "empty"]
    assert both.reuse == 2  # the wheel and its record


def test_a_base_that_was_measured_earlier_is_compiled_again() -> None:
    compiler = Cached()
    *_, both = compiler.bench().measure([kernel("7.5"), kernel("8.0"), kernel("7.0", "7.5")])
    assert both.base == kernel("7.5") and both.added is not None and both.added.seconds == 102
    assert compiler.calls[6:9] == ["empty", "7.5", "7.0 7.5"]


def test_a_kernel_of_other_versions_is_no_base() -> None:
    other = kernel("7.5", version="0.0.30", torch="2.7.0")
    found = list(Cached().bench().measure([other, kernel("7.0", "7.5"), kernel("7.5")]))
    assert [taken.base for taken in found] == [None, None, None]


def test_the_table_and_the_rows_say_the_same() -> None:
    *_, both = Cached().bench().measure([kernel("7.5"), kernel("7.0", "7.5")])
    assert both.cells()[1:-1] == ["7.0 7.5", "2", "3 min 22 s", "1 min 42 s (7.5)", "2.0 s", "2.0 s", "2.00 GB"]
    assert both.cells()[-1] == human_bytes(both.cold.size)
    rows = {row.measures.partition(": ")[2]: row for row in both.rows()}
    assert rows["cold, 2 jobs, 2 compiler runs"].ours == 202
    assert rows["after 7.5, 1 compiler runs"].ratio == pytest.approx(102 / 202)
    assert rows["warm cache, 0 compiler runs"].ratio == pytest.approx(2 / 202)
    assert (rows["processor seconds with a warm cache"].ours, both.cold.cpu_seconds) == (0, 180)
    assert rows["largest compiler process"].ours == 2000
    json.dumps([row.ours for row in rows.values()])


def test_kernels_are_named_by_id_or_glob_in_their_order() -> None:
    assert [k.id for k in named_kernels(variants(), "")] == [DEFAULT]
    asked = "xformers0.0.28.post3-torch2.5.1-cu124-sm75 xformers0.0.29*-cu124-sm7[05]"
    assert [k.id for k in named_kernels(variants(), asked)] == [
        "xformers0.0.28.post3-torch2.5.1-cu124-sm75",
        "xformers0.0.29.post2-torch2.6.0-cu124-sm70",
        DEFAULT,
    ]
    with pytest.raises(UsageError, match="no kernel is called nothing"):
        named_kernels(variants(), "nothing")
