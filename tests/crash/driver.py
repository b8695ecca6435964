"""What the campaign starts and kills: one command of a person, in a process of its own.

    python -m tests.crash.driver publish CHECKOUT BASE REPOSITORY
    python -m tests.crash.driver pull REPOSITORY NAME
    python -m tests.crash.driver build CHECKOUT SECONDS

With the engine of DOCKER_HOST and the state folder of CARDSTOCK_HOME. A proof is one container of the pushed digest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from images.build.job import Job
from images.build.plan import Plan
from images.catalogue.store import fetch_catalogue
from images.commands import options
from images.core.home import default_layout
from images.core.report import Report
from images.distribution import pull as pulling
from images.distribution.publish import publish
from images.docker.connection import connect
from images.docker.engine import Engine
from images.proof.smoke.record import ProofRecord
from images.registry.client import Repository
from tests.engine.test_build import SmallCheckout
from tests.helpers.small_publisher import SM75, SmallPublisher

PROOFS = "proofs"
PYTHON = ["/opt/venv/bin/python"]


class Publisher(SmallPublisher):
    """A small checkout that is there already; what it proves is written beside it."""

    @staticmethod
    def at(root: Path, engine: Engine, base: str) -> Publisher:
        """Opened, not made."""
        made = Publisher.__new__(Publisher)
        made.root, made.engine, made.base = root, engine, base
        made.proofs, made.proven, made.fails, made.card, made.built = [], set(), set(), None, []
        return made

    def build_own(self, plan: Plan) -> None:
        """As builds of two machines are: the same inputs, other bytes."""
        for job in plan.jobs:
            self.make(job, machine=self.root.name)

    def prove(self, reference: str, job: Job) -> ProofRecord:
        """A container of it runs; then its digest is proven, for good."""
        self.engine.run(reference, ["-c", "x"], entrypoint=PYTHON)
        with (self.root.parent / PROOFS).open("a") as out:
            out.write(reference.partition("@")[2] + "\n")
        return super().prove(reference, job)


def run_publish(root: str, base: str, repository: str) -> None:
    """Publish the image for 7.5 from a checkout."""
    made = Publisher.at(Path(root), connect(start=False), base)
    publisher = made.publisher(repository)
    try:
        (done,) = publish(publisher, made.plan(publisher, SM75), made.build_own)
    finally:
        print(made.err.getvalue(), file=sys.stderr)
    print(done.outcome, done.image.digest)


def run_pull(name: str, local: str) -> None:
    """Verify and pull what the catalogue has for 7.5, and name it."""
    say = Report().line
    repository = Repository(name, say=say)
    catalogue, _ = fetch_catalogue(repository)
    if catalogue is None:
        raise SystemExit(3)
    image = catalogue.current[SM75]
    pulling.verify(repository, image, None)
    print(pulling.pull(connect(start=False), repository, image, [local], say, home=default_layout().home / "pulled"))


def run_build(root: str, seconds: str) -> None:
    """Build the image for 7.5; its slow step takes some seconds."""
    made = SmallCheckout.__new__(SmallCheckout)
    made.root, made.engine, made.seconds = Path(root), connect(start=False), int(seconds)
    (built,) = made.build()
    print(made.err.getvalue(), file=sys.stderr)
    print(built.outcome)


if __name__ == "__main__":
    ACTIONS: dict[str, Callable[..., None]] = {"publish": run_publish, "pull": run_pull, "build": run_build}
    options.run(lambda: ACTIONS[sys.argv[1]](*sys.argv[2:]))
