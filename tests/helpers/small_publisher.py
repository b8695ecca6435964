"""A small checkout under git that publishes small images: labels as the product writes them, an engine that is given.

With a real engine and registry in tests/engine, with stand-ins in tests/unit.

The images hold a shell that answers for Python; what stands in for the proof is a record, for a server of 5 GB cannot
be built in a test.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from images.build.job import Job, make_job
from images.build.plan import Plan, make_plan
from images.catalogue.model import PublishedImage
from images.catalogue.store import SigningKeys
from images.core import process
from images.core.report import Report
from images.distribution.publish import Published, Publisher, publish
from images.distribution.push import Packed
from images.distribution.rollback import Destination
from images.docker.engine import Engine
from images.proof.smoke.record import LevelResult, ProofRecord
from images.registry.client import Repository
from images.registry.oci_image import Packing
from images.render.bakefile import finish_file
from images.render.checkout import Checkout
from images.render.dockerfile import compile_templates
from images.render.labels import VARIANT, ImageContents, make_labels
from tests.helpers.contexts import all_locked
from tests.helpers.matrices import matrix, text, variants

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SM75_SDPA = "cu124-transformers5.24.0-sdpa-sm75"
CPU = "cpu-vllm0.32.0-sdpa"
NOW = "2026-11-21T12:00:00Z"
NO_ADVISORIES = "schema: 1\nread: 2026-11-27\nadvisories: []\n"
PYTHON = """#!/bin/sh
echo '{"python": [["torch", "2.6.0", "BSD-3-Clause"], ["vllm", "0.8.5", ""]], "debian": [["tini", "0.19", "amd64"]]}'
"""


def short_sleep(seconds: float) -> None:
    """Wait, but never long; six attempts outlive the restart of a registry on a busy machine."""
    time.sleep(min(seconds, 0.5))


class SmallPublisher:
    """The checkout, and the engine that has its images."""

    def __init__(self, root: Path, engine: Engine, base: str) -> None:
        self.root, self.engine, self.base = root, engine, base
        self.err = io.StringIO()
        self.proofs: list[str] = []
        self.proven: set[str] = set()
        self.fails: set[str] = set()
        self.card: str | None = None
        self.built: list[str] = []
        for name in ("dockerfiles/rootfs", "dockerfiles/locks", "dockerfiles/templates", "images/device_code"):
            (root / name).mkdir(parents=True)
        (root / "matrix.yaml").write_text(text().replace("image: cardstock/qwen2.5-vl", f"image: test/{root.name}"))
        (root / "advisories.yaml").write_text(NO_ADVISORIES)
        (root / "dockerfiles/rootfs/salt").write_text("first\n")
        (root / "dockerfiles/templates/Dockerfile.j2").write_text("FROM base AS runtime\n")
        (root / "dockerfiles/templates/kernel.j2").write_text("FROM scratch AS wheels\n")
        (root / ".gitignore").write_text("build/\n")
        self.git("init", "-q")
        self.commit()

    def git(self, *words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        process.run(["git", *who, *words], cwd=self.root)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")

    def change(self, salt: str) -> None:
        """Other inputs, committed: other images."""
        (self.root / "dockerfiles/rootfs/salt").write_text(salt)
        self.commit()

    @property
    def checkout(self) -> Checkout:
        return Checkout(self.root)

    def job(self, name: str) -> Job:
        template = compile_templates(self.checkout.templates())
        return make_job(self.checkout, self.checkout.matrix(), template, variants().valid[name], "locked")

    def build(self, plan: Plan) -> None:
        """Make the images of the plan, as a build leaves them."""
        for job in plan.jobs:
            self.built.append(job.variant.id)
            self.make(job)

    def make(self, job: Job, revision: str = "0" * 40, **other: str) -> None:
        """One image; ``other`` are labels that lie."""
        pins = {name.replace("_", "-"): pin.version for name, pin in job.variant.pins}
        labels = make_labels(
            job.variant,
            ImageContents(pins, job.variant.cuda, "3.11.2", None),
            job.input_hash,
            evidence="stack: passed",
            proven=True,
            audited=tuple(str(arch) for arch in job.variant.archs),
            locked=True,
            revision=revision,
            created=NOW,
        )
        labels |= {f"dev.cardstock.{name.replace('_', '-')}": value for name, value in other.items()}
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder, "dockerfiles")
            (context / "opt/venv/bin").mkdir(parents=True)
            (context / "opt/venv/bin/python").write_text(PYTHON)
            (context / "opt/venv/bin/python").chmod(0o755)
            (context / "own").write_text(f"{job.variant.id} {job.input_hash}\n")
            file = Path(folder, "finish.json")
            content = finish_file(self.base, job.tags, labels).replace("FROM built\\n", "FROM built\\nCOPY . /\\n")
            file.write_text(content)
            argv = ["docker", "buildx", "bake", "--progress=plain", "-f", str(file), "finish"]
            process.run(argv, cwd=Path(folder), env=self.engine.cli_env())

    def prove(self, reference: str, job: Job) -> ProofRecord:
        """What the smoke levels would leave; this variant's audit fails if ``fails`` names it."""
        facts = self.engine.inspect(reference)
        assert facts is not None, "what is proven is there by its digest"
        assert "@sha256:" in reference
        self.proofs.append(job.variant.id)
        self.proven.add(reference.partition("@")[2])
        bad = job.variant.id in self.fails
        audit = LevelResult(
            1, "audit", "failed" if bad else "passed", "no code" if bad else "", 0, {"audited archs": []}
        )
        if not bad:
            audit = replace(audit, facts={"audited archs": [str(arch) for arch in job.variant.archs]})
        server = LevelResult(4, "server", "not run", "no card")
        if self.card:
            server = LevelResult(4, "server", "passed", facts={"device": self.card})
        driver = "535.104.05" if self.card else None
        levels = (audit, LevelResult(2, "stack", "passed"), server)
        return ProofRecord(job.variant.id, reference, facts.id, NOW, self.card, driver, self.engine.version, levels)

    def publisher(
        self,
        repository: str,
        keys: SigningKeys | None = None,
        packing: Packing = "gzip",
        accepted: tuple[str, ...] = (),
    ) -> Publisher:
        """What publishes to a repository; it tells of it in ``err``."""
        self.err = io.StringIO()
        report = Report(io.StringIO(), self.err)
        known = all_locked(self.root, self.engine, report).having(matrix=matrix(), variants=variants())
        return Publisher(
            Destination(known, Repository(repository, sleep=short_sleep, say=report.line), keys),
            packed=Packed(self.root / "build/packed"),
            packing=packing,
            prove=self.prove,
            accepted=accepted,
        )

    def plan(self, publisher: Publisher, *names: str) -> Plan:
        """The plan for these variants; their images are named as those of this checkout's own matrix."""
        own = publisher.context.having(matrix=self.checkout.matrix())
        return make_plan(own, [variants().valid[name] for name in names], self.engine)

    def publish(
        self, repository: str, *names: str, keys: SigningKeys | None = None, packing: Packing = "gzip"
    ) -> list[PublishedImage]:
        """Publish these variants; the catalogue's entries."""
        publisher = self.publisher(repository, keys, packing)
        done: list[Published] = publish(publisher, self.plan(publisher, *names), self.build)
        return [one.image for one in done]

    def clear(self, repository_host: str = "") -> None:
        """Take the images of this publisher from the engine."""
        for facts in self.engine.images(VARIANT):
            for name in (*facts.tags, *facts.digests):
                if self.root.name in name or name.startswith(("test/pulled", repository_host or "test/pulled")):
                    self.engine.untag(name, force=True)
        shutil.rmtree(self.root, ignore_errors=True)
