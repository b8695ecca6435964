"""Building with a real engine, on small images: what is tagged when, and what a second or a broken run does."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess  # noqa: TID251 - what is tested here is a process that dies
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from images.build import build as building
from images.build.build import build_images
from images.build.job import Job, make_job
from images.build.plan import make_plan
from images.core.errors import CheckFailed
from images.core.report import Report
from images.core.site import SiteSettings
from images.docker.buildx import LOGS
from images.docker.connection import connect
from images.docker.engine import Engine
from images.render.checkout import Checkout
from images.render.dockerfile import compile_templates, render
from images.render.labels import EVIDENCE, INPUT, PROVEN, VARIANT
from tests.helpers.contexts import all_locked
from tests.helpers.matrices import ROOT, text, variants

SM75 = "cu124-transformers5.24.0-sdpa-sm75"

# A stand-in for the real template: a "Python" that answers as the reader of labels expects, and a slow second step.
TEMPLATE = """FROM base AS runtime
RUN mkdir -p /opt/venv/bin
RUN echo "first step {salt}" > /first
RUN sleep {seconds}; {command}
COPY --chmod=755 rootfs/python /opt/venv/bin/python
USER 10001:10001
"""
PYTHON = """#!/bin/sh
echo '{"pins": {"torch": "2.6.0"}, "cuda": "12.4", "python": "3.11.2", "kernel_archs": null}'
"""


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    parents = parents_of_all()
    children = [child for child, parent in parents.items() if parent == pid]
    return [*children, *(below for child in children for below in descendants(child))]


def parents_of_all() -> dict[int, int]:
    """Process id -> its parent's; one that ends while this looks is left out."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found[int(folder.name)] = int(Path(folder, "stat").read_text().rpartition(")")[2].split()[1])
    return found


class SmallCheckout:
    """A small checkout of its own, and builds in it."""

    def __init__(self, root: Path, engine: Engine, *, seconds: int = 0, command: str = "true") -> None:
        self.root, self.engine = root, engine
        self.seconds, self.salt = seconds, root.name
        (root / "dockerfiles/rootfs").mkdir(parents=True)
        (root / "dockerfiles/locks").mkdir()
        (root / "images/device_code").mkdir(parents=True)
        (root / "dockerfiles/rootfs/python").write_text(PYTHON)
        # Another repository name: the real images of this machine stay as they are.
        (root / "matrix.yaml").write_text(text().replace("image: cardstock/qwen2.5-vl", f"image: test/{root.name}"))
        shutil.copy(ROOT / "advisories.yaml", root)
        self.write_template(command)
        self.err = io.StringIO()

    def write_template(self, command: str) -> None:
        path = self.root / "dockerfiles/templates/Dockerfile.j2"
        path.parent.mkdir(exist_ok=True)
        path.write_text(TEMPLATE.format(salt=self.salt, seconds=self.seconds, command=command))
        path.with_name("kernel.j2").write_text("FROM scratch AS wheels\n")
        checkout = Checkout(self.root)
        checkout.write_generated(render(checkout.matrix(), variants(), checkout.templates(), {}))

    @property
    def job(self) -> Job:
        checkout = Checkout(self.root)
        template = compile_templates(checkout.templates())
        return make_job(checkout, checkout.matrix(), template, variants().valid[SM75], "locked")

    def build(self, *, smoke: bool = False) -> list[building.BuiltImage]:
        self.err = io.StringIO()
        report = Report(io.StringIO(), self.err)
        return self.build_with(report, SiteSettings(), smoke=smoke)

    def build_with(self, report: Report, site: SiteSettings, *, smoke: bool = False) -> list[building.BuiltImage]:
        made = all_locked(self.root, self.engine, report, site)
        plan = make_plan(made, [made.variants.valid[SM75]], self.engine)
        return build_images(made, plan, building.BuildSettings(smoke=smoke))

    def log(self) -> str:
        return (self.root / LOGS / f"{SM75}.log").read_text()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return connect()


@pytest.fixture
def project(tmp_path: Path, engine: Engine, request: pytest.FixtureRequest) -> Iterator[SmallCheckout]:
    settings = getattr(request, "param", {})
    root = tmp_path / f"project{os.getpid()}-{abs(hash(request.node.name)) % 10**8}"
    made = SmallCheckout(root, engine, **settings)
    yield made
    for name in (*made.job.tags, made.job.staging):
        engine.untag(name, force=True)


def test_an_image_is_labelled_by_what_it_tells_and_not_built_again(project: SmallCheckout) -> None:
    assert [one.outcome for one in project.build()] == ["built"]
    facts = project.engine.inspect(project.job.tags[0])
    assert facts is not None
    assert set(project.job.tags) <= set(facts.tags)
    assert facts.labels[VARIANT] == SM75
    assert facts.labels[INPUT] == project.job.input_hash
    assert facts.labels["dev.cardstock.cuda"] == "12.4"
    assert facts.labels["dev.cardstock.pins"] == "torch==2.6.0"
    assert facts.labels[PROVEN] == "no"
    assert "--no-smoke" in facts.labels[EVIDENCE]
    assert facts.labels["org.opencontainers.image.created"] != ""
    assert project.engine.inspect(project.job.staging) is None  # its working name is gone
    assert [one.outcome for one in project.build()] == ["up to date"]
    assert "up to date" in project.err.getvalue()
    assert "start" not in project.err.getvalue()  # no step was begun


def test_a_changed_input_replaces_the_image_on_an_engine_with_a_limit(project: SmallCheckout) -> None:
    project.build()
    first = project.job.tags
    (project.root / "dockerfiles/rootfs/python").write_text(PYTHON + "# changed\n")
    project.build()
    assert project.job.tags[0] == first[0]
    assert project.job.tags[1] != first[1]
    assert project.engine.inspect(project.job.tags[1]) is not None
    assert (project.engine.inspect(first[1]) is None) == project.engine.embedded
    project.engine.untag(first[1], force=True)


def test_labels_add_no_layer(project: SmallCheckout) -> None:
    project.build()
    facts = project.engine.inspect(project.job.tags[0])
    assert facts is not None
    base = project.engine.inspect(building.local_base())
    assert base is not None
    assert len(facts.layers) == len(base.layers) + 4


@pytest.mark.parametrize("project", [{"command": "exit 3"}], indirect=True)
def test_a_step_that_fails_leaves_no_name_and_says_which(project: SmallCheckout) -> None:
    with pytest.raises(CheckFailed, match="nothing was tagged") as caught:
        project.build()
    assert "exit code: 3" in caught.value.cause
    assert caught.value.where.startswith("build/logs/")
    assert project.engine.inspect(project.job.tags[0]) is None
    project.write_template("true")
    assert [one.outcome for one in project.build()] == ["built"]


@pytest.mark.parametrize("project", [{"seconds": 20}], indirect=True)
def test_a_build_killed_half_way_is_resumed(project: SmallCheckout) -> None:
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.engine.test_build import SmallCheckout
from images.docker.connection import connect
project = SmallCheckout.__new__(SmallCheckout)
project.root, project.engine = Path({str(project.root)!r}), connect()
project.build()
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    log = project.root / LOGS / f"{SM75}.log"
    deadline = time.monotonic() + 120
    while not (log.exists() and "sleep 20" in log.read_text()):
        assert time.monotonic() < deadline, "the slow step never began"
        assert child.poll() is None
        time.sleep(0.2)
    for pid in (child.pid, *descendants(child.pid)):
        os.kill(pid, signal.SIGKILL)
    child.wait()
    assert project.engine.inspect(project.job.tags[0]) is None
    assert project.engine.inspect(project.job.staging) is None
    assert [one.outcome for one in project.build()] == ["built"]
    first = next(line.split()[0] for line in project.log().splitlines() if "RUN echo" in line)
    assert f"{first} CACHED" in project.log()  # what was finished was not done again


def test_an_image_that_fails_its_smoke_levels_gets_no_name(project: SmallCheckout) -> None:
    with pytest.raises(CheckFailed, match="built but not proven") as caught:
        project.build(smoke=True)
    assert caught.value.exit_code == 1
    assert project.engine.inspect(project.job.tags[0]) is None
    assert project.engine.inspect(project.job.staging) is not None  # kept for a look
    assert (project.root / building.RECORDS / f"{SM75}.json").is_file()


def test_the_secrets_of_a_site_reach_no_layer(project: SmallCheckout, tmp_path: Path) -> None:
    secret = tmp_path / "ca.pem"
    secret.write_text("PRIVATE-CERTIFICATE-OF-A-SITE\n")
    path = project.root / "dockerfiles/templates/Dockerfile.j2"
    template = path.read_text().replace(
        "RUN mkdir", "RUN --mount=type=secret,id=ca grep -q PRIVATE /run/secrets/ca && mkdir"
    )
    path.write_text(template)
    checkout = Checkout(project.root)
    checkout.write_generated(render(checkout.matrix(), variants(), checkout.templates(), {}))
    report = Report(io.StringIO(), io.StringIO())
    project.build_with(report, SiteSettings(ca=secret))
    with project.engine.export_tar(project.job.tags[0]) as chunks:
        assert b"PRIVATE-CERTIFICATE-OF-A-SITE" not in b"".join(chunks)


def test_the_command_line_says_up_to_date_and_prints_the_image(project: SmallCheckout) -> None:
    project.build()
    script = "from pathlib import Path; from images.commands import options\n"
    script += "from images.commands.build import BuildOptions, build_chosen\n"
    script += "options.ROOT = Path('.')\n"
    script += (
        f"made = BuildOptions(only=[{SM75!r}], no_smoke=True)\n"
        "options.run(lambda: build_chosen(options.this_context(), made))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=project.root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == project.job.tags[0]
    assert "up to date" in done.stderr
    assert "next: docker run" in done.stderr
