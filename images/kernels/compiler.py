"""Compiling a kernel wheel with this machine's engine: its bake target, its output into a folder."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images.core import CheckFailed, Report, SiteSettings, work_folder
from images.docker import LOGS, Builder, Engine, carried, explained, run_bake
from images.docker import build_inputs as supplies
from images.kernels.make import check_memory
from images.matrix import Kernel, Matrix
from images.render import BAKE_FILE, Checkout, Pushing
from images.render import bakefile as bake

JOBS = "CARDSTOCK_KERNEL_JOBS"


def build_arguments(environment: Mapping[str, str]) -> dict[str, str]:
    """What the user sets for the compiling itself: the number of compilers at once."""
    return {JOBS: environment[JOBS]} if environment.get(JOBS) else {}


@dataclass(frozen=True)
class Compiler:
    """Compiles in an engine's builder: ``engine`` is called when one is needed, for most wheels need none.

    ``builder`` compiles instead, with the cache of ``pushing``. ``arguments`` are build arguments. ``fresh``: compile
    even if the layer is cached. (`--no-cache` would not do: it gives a step empty cache mounts; BuildKit 0.12.)
    """

    checkout: Checkout
    matrix: Matrix
    engine: Callable[[], Engine]
    site: SiteSettings
    report: Report
    arguments: Mapping[str, str] = field(default_factory=lambda: build_arguments(os.environ))
    fresh: bool = False
    builder: Builder | None = None
    pushing: Pushing | None = None

    def check(self, kernels: Sequence[Kernel]) -> None:
        """Raise CardstockError where memory is too small, RegistryFailure where there is no compiler."""
        if JOBS not in self.arguments and self.builder is None:  # a builder does not say how much memory it has
            check_memory(kernels, self.engine().host().memory or None)
        supplies.compiler_image(self.matrix, kernels, self.engine(), self.site, self.report)

    def compile(self, kernel: Kernel, folder: Path) -> None:
        """Compile into an empty folder. Raises CheckFailed with the end of the compiler's words."""
        contexts = supplies.named_contexts(self.matrix, [kernel], self.engine(), self.site, self.report)
        log = self.checkout.root / LOGS / f"kernel-{kernel.id}.log"
        with work_folder("kernel") as scratch:
            secrets = supplies.compiler_secrets(scratch, self.site, os.environ)
            override = scratch / "override.json"
            if self.builder:
                contexts = carried(contexts, self.engine(), scratch / "contexts")
            machine = bake.MachineInputs((*contexts, *self._stamped(scratch)), secrets)
            text = bake.kernel_override_file({kernel: str(folder)}, machine, self.arguments, self.pushing)
            override.write_text(text, encoding="utf-8")
            with self.report.step(f"compile {kernel.id}"):
                try:
                    run_bake(
                        self.checkout.root,
                        [BAKE_FILE, override],
                        [kernel.target],
                        self.builder.environment if self.builder else self.engine().cli_env(),
                        log,
                        self.report,
                        broke=f"{kernel.package} {kernel.version} did not build; nothing was stored",
                        builder=self.builder.name if self.builder else "",
                    )
                except CheckFailed as error:
                    if self.builder and self.pushing:
                        raise explained(self.builder, error, self.pushing.repository, self.pushing.cache) from error
                    raise

    def _stamped(self, scratch: Path) -> tuple[tuple[str, str], ...]:
        """For ``fresh``: the build's own program with one file more, so that its step is none that was run before."""
        if not self.fresh:
            return ()
        copy = scratch / "inside"
        shutil.copytree(self.checkout.root / bake.KERNEL_BUILD, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "stamp").write_text(uuid.uuid4().hex, encoding="ascii")
        return (("kernel-build", str(copy)),)


def empty_cache(compiler: Compiler, name: str) -> None:
    """Empty a cache mount of the builder, by its name: whatever is compiled with it next is compiled cold."""
    contexts = supplies.named_contexts(compiler.matrix, (), compiler.engine(), compiler.site, compiler.report)
    text = f"FROM base\nARG STAMP\nRUN --mount=type=cache,id={name},target=/cache find /cache -mindepth 1 -delete\n"
    target = {
        "context": bake.CONTEXT,
        "dockerfile-inline": text,
        "contexts": dict(contexts),
        "args": {"STAMP": uuid.uuid4().hex},
        "output": ["type=cacheonly"],
    }
    with work_folder("kernel") as scratch:
        file = scratch / "empty.json"
        file.write_text(json.dumps({"target": {"empty": target}}), encoding="utf-8")
        log = compiler.checkout.root / LOGS / "empty-cache.log"
        run_bake(compiler.checkout.root, [file], ["empty"], compiler.engine().cli_env(), log, compiler.report)
