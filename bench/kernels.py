"""`invoke bench kernels`: what compiling a kernel wheel takes: cold, with one arch more, with a warm cache, stored.

$CARDSTOCK_BENCH_KERNELS names kernels (ids or globs, with blanks between them) in the order they are taken; without it,
the recommended kernel of a 7.5 card. A cold one compiles for minutes to hours. The compiler cache is one of the bench's
own, emptied before each cold run and at the end; the one that builds use stays as it is.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from bench.frame import bench
from bench.record import Row
from images.core import Report, UsageError, human_bytes, human_seconds
from images.kernels import WheelRecord, read_record
from images.matrix import Kernel, Variants, make_variants
from images.render import Checkout

VARIABLE = "CARDSTOCK_BENCH_KERNELS"
DEFAULT = "xformers0.0.29.post2-torch2.6.0-cu124-sm75"
CACHE = "cardstock-bench-kernels"
_HEADER = ["kernel", "archs", "jobs", "cold", "after another", "warm cache", "reuse", "peak memory", "wheel"]


@dataclass(frozen=True)
class KernelTimes:
    """One kernel's measurements, in seconds: ``added`` after ``base``, a kernel for fewer archs; ``reuse`` stored."""

    kernel: Kernel
    cold: WheelRecord
    warm: WheelRecord
    reuse: float
    base: Kernel | None = None
    added: WheelRecord | None = None

    def cells(self) -> list[str]:
        """A row of the table."""
        added = human_seconds(self.added.seconds) if self.added else "-"
        return [
            f"{self.kernel.package} {self.kernel.version}, torch {self.kernel.torch}",
            " ".join(self.kernel.capabilities),
            str(self.cold.jobs),
            human_seconds(self.cold.seconds),
            f"{added} ({' '.join(self.base.capabilities)})" if self.base else "-",
            human_seconds(self.warm.seconds),
            human_seconds(self.reuse),
            human_bytes(self.cold.peak_memory_bytes),
            human_bytes(self.cold.size),
        ]

    def rows(self) -> Iterator[Row]:
        """For the common table and the JSON; the peer of a run is the cold one."""
        name, cold = self.kernel.id, self.cold
        yield Row("kernels", f"{name}: cold, {cold.jobs} jobs, {cold.compiled} compiler runs", cold.seconds, None, "s")
        if self.added and self.base:
            measures = f"{name}: after {' '.join(self.base.capabilities)}, {self.added.compiled} compiler runs"
            yield Row("kernels", measures, self.added.seconds, cold.seconds, "s", "cold")
        measures = f"{name}: warm cache, {self.warm.compiled} compiler runs"
        yield Row("kernels", measures, self.warm.seconds, cold.seconds, "s", "cold", headline=True)
        if cold.cpu_seconds and self.warm.cpu_seconds is not None:
            measures = f"{name}: processor seconds with a warm cache"
            yield Row("kernels", measures, self.warm.cpu_seconds, cold.cpu_seconds, "s", "cold")
        yield Row("kernels", f"{name}: from the store, checked", self.reuse, cold.seconds, "s", "cold")
        yield Row("kernels", f"{name}: largest compiler process", cold.peak_memory_bytes / 1e6, None, "MB")
        yield Row("kernels", f"{name}: wheel", cold.size / 1e6, None, "MB")


@dataclass(frozen=True)
class KernelBench:
    """What measuring needs: compile into a folder (never from a cached layer), empty the cache, use a stored wheel."""

    compile: Callable[[Kernel, Path], None]
    empty: Callable[[], None]
    reuse: Callable[[Kernel, Path], float]
    folder: Callable[[], AbstractContextManager[Path]]

    def _record(self, kernel: Kernel) -> WheelRecord:
        with self.folder() as folder:
            self.compile(kernel, folder)
            return read_record(folder)

    def measure(self, kernels: Sequence[Kernel]) -> Iterator[KernelTimes]:
        """Each kernel in turn. One that holds an earlier one's archs and more is measured after that one as well."""
        for index, kernel in enumerate(kernels):
            base = next((one for one in reversed(kernels[:index]) if _extends(kernel, one)), None)
            added = None
            if base:
                if base != kernels[index - 1]:  # else the cache holds just what it left
                    self.empty()
                    self._record(base)
                added = self._record(kernel)
            self.empty()
            cold = self._record(kernel)
            with self.folder() as folder:
                self.compile(kernel, folder)
                warm = read_record(folder)
                reuse = self.reuse(kernel, folder)
            yield KernelTimes(kernel, cold, warm, reuse, base, added)
        self.empty()


def _extends(kernel: Kernel, other: Kernel) -> bool:
    """Whether a kernel is another one for more cards."""
    same = (kernel.package, kernel.version, kernel.torch, kernel.cuda)
    return same == (other.package, other.version, other.torch, other.cuda) and set(other.archs) < set(kernel.archs)


def named_kernels(variants: Variants, text: str) -> tuple[Kernel, ...]:
    """The kernels of the variable, in its order. Raises UsageError for a word that names none."""
    kernels: dict[Kernel, None] = {}
    for word in text.split() or [DEFAULT]:
        matching = [kernel for kernel in variants.kernels if fnmatchcase(kernel.id, word)]
        if not matching:
            raise UsageError(f"no kernel is called {word}", do="./inv kernels --list shows their names", where=VARIABLE)
        kernels |= dict.fromkeys(matching)
    return tuple(kernels)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cardstock-bench-") as folder:
        yield Path(folder)


def prepare(checkout: Checkout, report: Report) -> KernelBench:
    """Measuring with this machine's engine."""
    from images.core import read_site
    from images.docker import connect
    from images.kernels import Compiler, Store, build_arguments, empty_cache, needs_of
    from images.render import lock_states

    matrix, site = checkout.matrix(), read_site(checkout.root, os.environ)
    engine = cache(lambda: connect(say=report.line))
    arguments = {**build_arguments(os.environ), "CARDSTOCK_KERNEL_CACHE": CACHE}
    compiler = Compiler(checkout, matrix, engine, site, report, arguments, fresh=True)
    states = lock_states(matrix, checkout.locks)

    def reuse(kernel: Kernel, folder: Path) -> float:
        (need,) = needs_of([kernel], checkout.locks, states)
        if need.key is None:
            raise UsageError(f"{kernel.id} has no key: {kernel.lock} is not locked", do="./inv lock")
        with _scratch() as place:
            store = Store(place / "wheels")
            with store.work() as work:
                for path in folder.iterdir():
                    (work / path.name).write_bytes(path.read_bytes())
                store.put(need.key, work)
            began = time.perf_counter()
            store.get(need.key)
            return time.perf_counter() - began

    return KernelBench(compiler.compile, lambda: empty_cache(compiler, CACHE), reuse, _scratch)


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("kernels", heavy="compiling for minutes to hours")
    def rows() -> Iterable[Row]:
        report = Report()
        kernels = named_kernels(make_variants(checkout.matrix()), os.environ.get(VARIABLE, ""))
        taken = list(prepare(checkout, report).measure(kernels))
        report.table([one.cells() for one in taken], _HEADER)
        for one in taken:
            yield from one.rows()
