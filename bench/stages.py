"""For measurements: stages of a variant's Dockerfile as images of their own, and the environment that they install."""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from images.build import Job, make_job, unlocked_indexes
from images.core import Chunks, NothingSelected, Report, SiteSettings, UsageError, process, read_site
from images.docker import Engine, ImageFacts, connect
from images.docker import build_inputs as supplies
from images.kernels import default_store, needs_of
from images.matrix import Matrix, Variant, make_variants
from images.render import BAKE_FILE, INPUT, Checkout, compile_templates, lock_states
from images.render import bakefile as bake

# What a Dockerfile installs before anything is dropped: NVIDIA's wheels, and everything else of the stack.
UNTOUCHED = ("nvidia-whole", "venv")
VARIABLE = "CARDSTOCK_BENCH_SITE"
# A glob on variant ids, for measurements that take minutes an image.
ONLY = "CARDSTOCK_BENCH_ONLY"
_SITE = re.compile(r"/?opt/venv/lib/python[\d.]+/site-packages/(.+)")


@dataclass(frozen=True)
class Workbench:
    """What measurements of built images need."""

    checkout: Checkout
    matrix: Matrix
    engine: Engine
    site: SiteSettings
    report: Report

    def built(self) -> list[Variant]:
        """The variants that the engine has an image of, in the matrix's order, as CARDSTOCK_BENCH_ONLY chooses."""
        chosen = os.environ.get(ONLY) or "*"
        valid = [variant for variant in make_variants(self.matrix).valid.values() if fnmatchcase(variant.id, chosen)]
        return [variant for variant in valid if self.engine.inspect(self.image_name(variant)) is not None]

    def image_name(self, variant: Variant) -> str:
        """The image's name."""
        return f"{self.matrix.image}:{variant.id}"

    def image_label(self, variant: Variant) -> str:
        """The image as rows name it: "variant@" and the first 12 digits of its input hash; "" without an image."""
        facts = self.facts(variant)
        return f"{variant.id}@{facts.labels.get(INPUT, 'unknown')[:12]}" if facts else ""

    def facts(self, variant: Variant) -> ImageFacts | None:
        """What the engine knows of its image; None without one."""
        return self.engine.inspect(self.image_name(variant))

    def job(self, variant: Variant) -> Job:
        """The job that builds it."""
        states = lock_states(self.matrix, self.checkout.locks)
        templates = compile_templates(self.checkout.templates())
        return make_job(self.checkout, self.matrix, templates, variant, states[variant.lock])

    def wheel(self, variant: Variant) -> Path | None:
        """The folder of its kernel's wheel in this machine's store; None without a kernel, or where it is not there."""
        if variant.kernel is None:
            return None
        states = lock_states(self.matrix, self.checkout.locks)
        (need,) = needs_of([variant.kernel], self.checkout.locks, states)
        stored = default_store().get(need.key) if need.key else None
        return stored.folder if stored else None

    @contextmanager
    def bake(self, images: Mapping[Variant, str], wheels: Mapping[str, str]) -> Iterator[Callable[..., None]]:
        """A function that bakes ``images`` (variant -> the name it gets); call it with flags and targets of bake.

        ``wheels`` maps a variant's id to the folder with its kernel's wheel. Without targets all of ``images`` are
        made. Raises ProcessFailed when bake does.
        """
        jobs = [self.job(variant) for variant in images]
        contexts = supplies.named_contexts(self.matrix, (), self.engine, self.site, self.report)
        with tempfile.TemporaryDirectory(prefix="cardstock-bench-") as folder:
            secrets = supplies.secrets(Path(folder), self.site, unlocked_indexes(self.matrix, jobs))
            override = Path(folder, "override.json")
            content = bake.override_file(images, bake.MachineInputs(contexts, secrets), wheels=wheels)
            override.write_text(content, encoding="utf-8")
            argv = ["docker", "buildx", "bake", "--progress=plain", "-f", BAKE_FILE, "-f", str(override)]
            every = [bake.target_name(variant.id) for variant in images]

            def run(*words: str, targets: Sequence[str] = ()) -> None:
                process.run([*argv, *words, *(targets or every)], cwd=self.checkout.root, env=self.engine.cli_env())

            yield run

    @contextmanager
    def stage(self, variant: Variant, stage: str) -> Iterator[str]:
        """The name of an image of one stage, for as long as it is needed; from the engine's cache, if it is there."""
        reference = f"cardstock/bench:{stage}-{self.job(variant).input_hash[:12]}"
        with tempfile.TemporaryDirectory(prefix="cardstock-bench-") as folder:
            # None of these stages takes a kernel: an empty folder keeps it from being compiled.
            empty = {variant.id: folder} if variant.kernel else {}
            with self.bake({variant: reference}, empty) as run:
                run("--set", f"{bake.target_name(variant.id)}.target={stage}")
        try:
            yield reference
        finally:
            self.engine.untag(reference)


def workbench(checkout: Checkout) -> Workbench:
    """With the engine that answers here. Raises EngineUnreachable."""
    report = Report()
    engine = connect(say=report.line)
    return Workbench(checkout, checkout.matrix(), engine, read_site(checkout.root, os.environ), report)


@contextmanager
def untouched_site(checkout: Checkout) -> Iterator[tuple[Path, bool]]:
    """An untouched site-packages of a stack, and whether it is a copy that may be changed.

    The one that CARDSTOCK_BENCH_SITE names; without it, that of a built image's stack, installed again and unpacked
    for the while. Raises UsageError for a name that is no folder, NothingSelected where no image is built.
    """
    if named := os.environ.get(VARIABLE, ""):
        if not Path(named).is_dir():
            raise UsageError(
                f"there is no folder {named}",
                cause=f"{VARIABLE} names it",
                do="name an untouched site-packages of a stack, or none: a built image's is taken then",
            )
        yield Path(named), False
        return
    bench = workbench(checkout)
    built = [variant for variant in bench.built() if variant.cuda]
    if not built:
        raise NothingSelected(
            "this measures the libraries of an image for a card, and none is built",
            do=f"./inv build --arch 7.5, or name a site-packages in {VARIABLE}",
        )
    # An engine's libraries are more, and more of a test, than those of the server on transformers.
    chosen = next((variant for variant in built if variant.backend == "vllm"), built[0])
    with tempfile.TemporaryDirectory(prefix="cardstock-bench-site-") as folder:
        for stage in UNTOUCHED:
            with bench.stage(chosen, stage) as reference:
                unpack_site(bench.engine, reference, Path(folder))
        yield Path(folder), True


def unpack_site(engine: Engine, reference: str, folder: Path) -> None:
    """Unpack the site-packages of an image's environment into ``folder``."""
    with (
        engine.export_tar(reference) as chunks,
        tarfile.open(fileobj=io.BufferedReader(Chunks(chunks), 1 << 20), mode="r|") as tar,
    ):
        for member in tar:
            match = _SITE.fullmatch(member.name)
            if match and (member.isreg() or member.isdir() or member.issym()):
                tar.extract(member.replace(name=match[1], deep=False), folder, filter="data")
