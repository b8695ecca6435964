"""Building at another machine's BuildKit, pushed by digest, pulled, proven, named: a second engine is that machine."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import images.build.build as building
from bench.loopback_registry import free_port
from images.build.at_builder import AtBuilder
from images.build.build import BuildSettings, BuiltImage, build_images
from images.core import process
from images.core.errors import CheckFailed, EngineUnreachable, RegistryFailure, UsageError
from images.core.home import Layout
from images.distribution.publish import publish, remember
from images.docker import build_inputs, run_bake
from images.docker.builders import find_builder
from images.docker.engine import Engine
from images.proof.smoke.record import LevelResult, ProofRecord
from images.registry.client import Repository
from images.registry.oci_image import Packing, read_image
from images.render.bakefile import bake_file
from images.render.dockerfile import BAKE_FILE
from images.render.labels import PROVEN
from tests.engine.conftest import needs_root_on_debian
from tests.engine.real_registry import RealRegistry
from tests.engine.remote_builder import Door, add_builder, engine_with, in_containerd
from tests.helpers.matrices import variants
from tests.helpers.small_publisher import CPU, NOW, PYTHON, SM75_SDPA, SmallPublisher, short_sleep

DOCKERFILE = 'FROM base AS runtime\nCOPY rootfs/ /\nRUN ["/bin/sh", "-c", "cat /salt > /made"]\n'
# As `PYTHON`, and it tells of its pins where it is asked for them.
PYTHON_WITH_PINS = PYTHON.replace(
    "#!/bin/sh\n",
    """#!/bin/sh
case "$2" in *kernel_archs*)
    echo '{"pins": {"torch": "2.6.0"}, "cuda": null, "python": "3.11.2", "kernel_archs": null}'; exit;;
esac
""",
)


@pytest.fixture(scope="module")
def far() -> Iterator[Layout]:
    """The other machine's engine."""
    needs_root_on_debian()
    with engine_with(in_containerd) as layout:
        yield layout


@pytest.fixture
def door(far: Layout) -> Iterator[Door]:
    made = Door(far.socket)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Builders of these tests alone."""
    monkeypatch.setenv("BUILDX_CONFIG", str(tmp_path / "buildx"))


@pytest.fixture
def builder(engine: Engine, door: Door) -> str:
    return add_builder(engine, door.port)


class Site:
    """A small checkout, and what builds and publishes of it."""

    def __init__(self, publisher: SmallPublisher, repository: str, builder: str, cache: str = "") -> None:
        self.publisher, self.repository, self.builder, self.cache = publisher, repository, builder, cache
        root = publisher.root
        python = root / "dockerfiles/rootfs/opt/venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON_WITH_PINS)
        python.chmod(0o755)
        known = [variants().valid[name] for name in (CPU, SM75_SDPA)]
        for variant in known:
            file = root / f"dockerfiles/rendered/{variant.id}/Dockerfile"
            file.parent.mkdir(parents=True)
            file.write_text(DOCKERFILE)
        (root / BAKE_FILE).write_text(bake_file(publisher.checkout.matrix(), known, []))
        publisher.commit()

    def at(self, packing: Packing = "gzip") -> AtBuilder:
        target = Repository(self.repository, sleep=short_sleep)
        return AtBuilder(find_builder(self.builder, self.publisher.engine), target, packing, self.cache)

    def build(self, *names: str, packing: Packing = "gzip") -> list[BuiltImage]:
        publisher = self.publisher.publisher(self.repository)
        plan = self.publisher.plan(publisher, *names)
        return build_images(publisher.context, plan, BuildSettings(at=self.at(packing)))

    @property
    def log(self) -> str:
        return (self.publisher.root / f"build/logs/{CPU}.log").read_text()


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch, small_publisher: SmallPublisher, host_image: str) -> list[str]:
    """What the proof was shown: a build that is proven is one that was pulled. The base is an image of this host's."""
    seen: list[str] = []

    def prove(reference: str, expected: object, **_: object) -> ProofRecord:
        facts = small_publisher.engine.inspect(reference)
        assert facts is not None
        seen.append(reference)
        (job,) = [one for one in map(small_publisher.job, (CPU, SM75_SDPA)) if one.staging == reference]
        archs = [str(arch) for arch in job.variant.archs]
        levels = (LevelResult(1, "audit", "passed", "", 0, {"audited archs": archs}), LevelResult(2, "stack", "passed"))
        return ProofRecord("x", reference, facts.id, NOW, None, None, "26", levels)

    monkeypatch.setattr(building, "prove_image", prove)
    base = (("base", f"docker-image://{host_image}"),)
    monkeypatch.setattr(build_inputs, "named_contexts", lambda *_: base)
    return seen


@pytest.fixture
def site(small_publisher: SmallPublisher, proofs: list[str], repository: str, builder: str) -> Site:
    return Site(small_publisher, repository, builder)


def uploads(registry: RealRegistry) -> int:
    """Blobs that were sent to the registry."""
    return len(re.findall(r'"PUT /v2/\S+/blobs/uploads/', registry.log.read_text()))


def test_built_there_pushed_by_digest_pulled_proven_and_named_here(
    site: Site, proofs: list[str], registry: RealRegistry, engine: Engine
) -> None:
    (built,) = site.build(CPU)
    job, pushed = built.job, built.pushed
    assert built.outcome == "built" and pushed is not None and proofs == [job.staging]
    assert Repository(site.repository).tags() == ()  # nothing unproven has a name, there or here
    facts = engine.inspect(job.tags[0])
    assert facts is not None and facts.id == pushed.config
    assert facts.labels[PROVEN] == "yes" and facts.labels == dict(pushed.labels)
    assert facts.digests == () and engine.inspect(job.staging) is None
    assert {layer.media_type.rpartition("+")[2] for layer in pushed.layers} == {"gzip"}  # the base's, too
    assert engine.run(job.tags[0], ["/made"], entrypoint=["cat"]).out == "first\n"
    # Labels moved no layer: what the builder pushed is what the labelled image is made of.
    assert read_image(Repository(site.repository), pushed.digest) == pushed
    assert f'building with "{site.builder}" instance using remote driver' in site.log
    assert [one.outcome for one in site.build(CPU)] == ["up to date"] and proofs == [job.staging]


def test_nothing_of_the_build_is_told_in_the_registry(site: Site) -> None:
    (built,) = site.build(CPU)
    assert built.pushed is not None
    raw = Repository(site.repository).manifest(built.pushed.digest)
    assert raw is not None and "attestation" not in json.dumps(raw.content) and "exporting attestation" not in site.log


def test_published_without_a_layer_leaving_this_machine(
    site: Site, registry: RealRegistry, engine: Engine, monkeypatch: pytest.MonkeyPatch, host_image: str
) -> None:
    saved: list[str] = []
    usual = Engine.save

    def save(self: Engine, name: str) -> AbstractContextManager[Iterator[bytes]]:
        saved.append(name)
        return usual(self, name)

    monkeypatch.setattr(Engine, "save", save)
    publisher = site.publisher.publisher(site.repository)
    made: list[BuiltImage] = []

    def build(missing: object) -> None:
        made.extend(site.build(CPU, SM75_SDPA))
        for one in made:
            remember(engine, publisher.packed, "gzip", one)

    done = publish(publisher, site.publisher.plan(publisher, CPU, SM75_SDPA), build)
    assert saved == [host_image]  # the base that only this engine has; no image was saved to be packed
    for image, one in zip(done, made, strict=True):
        assert one.pushed is not None
        found = read_image(Repository(site.repository), image.image.digest)
        assert found is not None and found.layers == one.pushed.layers
    assert {tag for tag in Repository(site.repository).tags() if not tag.startswith("sha256-")} >= {CPU, SM75_SDPA}
    assert made[0].pushed is not None
    assert sum(layer.size for layer in made[0].pushed.layers) == done[0].image.compressed
    assert done[0].image.unpacked > done[0].image.compressed


def test_layers_as_zstd(site: Site) -> None:
    (built,) = site.build(CPU, packing="zstd")
    assert built.pushed is not None
    assert {layer.media_type.rpartition("+")[2] for layer in built.pushed.layers} == {"zstd"}


def run_step(log: str) -> str:
    """What BuildKit said of the Dockerfile's RUN."""
    step = re.search(r"^#(\d+) \[.*\] RUN ", log, re.MULTILINE)
    assert step is not None
    return "\n".join(line for line in log.splitlines() if line.startswith(f"#{step[1]} "))


def taken(step: str) -> bool:
    """Whether a step was not run: known to be the same, or its layer was fetched."""
    return "CACHED" in step or "sha256:" in step


def test_the_cache_in_the_registry_serves_a_builder_that_has_none(
    small_publisher: SmallPublisher, proofs: list[str], repository: str, builder: str, engine: Engine, far: Layout
) -> None:
    site = Site(small_publisher, repository, builder, cache=f"{repository}/cache")
    small_publisher.change("new to every builder\n")
    site.build(CPU)
    assert Repository(site.cache).tags() == (f"cache-{CPU}",)
    assert not taken(run_step(site.log))
    job = small_publisher.job(CPU)
    for name in job.tags:
        engine.untag(name, force=True)
    process.run(["docker", "buildx", "prune", "--all", "--force", "--builder", builder], env=engine.cli_env())
    (again,) = site.build(CPU)
    assert again.outcome == "built" and f"importing cache manifest from {site.cache}:cache-{CPU}" in site.log
    assert taken(run_step(site.log))


# -- what goes wrong


def test_a_builder_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(UsageError, match="there is no builder nobody") as caught:
        find_builder("nobody", engine)
    assert "docker buildx ls" in caught.value.do and caught.value.exit_code == 2
    with pytest.raises(UsageError, match="is no builder's name"):
        find_builder("--driver=docker", engine)


def test_an_engines_own_builder_pushes_no_digest(engine: Engine) -> None:
    with pytest.raises(UsageError, match="it is an engine's own builder") as caught:
        find_builder("default", engine)
    assert "leave --builder out" in caught.value.do


def test_a_builder_that_does_not_answer(engine: Engine, door: Door) -> None:
    door.close()
    with pytest.raises(EngineUnreachable, match=r"\(driver remote\) does not answer") as caught:
        find_builder(add_builder(engine, door.port), engine)
    assert "deadline" in caught.value.cause and caught.value.exit_code == 5


def test_a_builder_whose_container_does_not_come_up(engine: Engine, host_image: str) -> None:
    """The driver docker-container itself; its image has no BuildKit."""
    name = f"far-{uuid.uuid4().hex[:8]}"
    words = ["--name", name, "--driver", "docker-container", "--driver-opt", f"image={host_image}"]
    process.run(["docker", "buildx", "create", *words], env=engine.cli_env())
    try:
        with pytest.raises(EngineUnreachable, match=r"\(driver docker-container\) does not answer") as caught:
            find_builder(name, engine)
    finally:
        process.run(["docker", "buildx", "rm", "--force", name], env=engine.cli_env(), check=False)
    assert f"docker buildx inspect {name} --bootstrap" in caught.value.do and "ERROR" in caught.value.cause


def test_a_builder_that_goes_away_while_it_builds(site: Site, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = run_bake

    def cut(*words: object, **more: object) -> None:
        door.close()
        usual(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(building, "run_bake", cut)
    with pytest.raises(EngineUnreachable, match="went away during the build") as caught:
        site.build(CPU)
    assert caught.value.exit_code == 5


def test_a_registry_that_the_builder_does_not_reach(
    small_publisher: SmallPublisher, proofs: list[str], builder: str, registry: RealRegistry
) -> None:
    registry.stop()
    site = Site(small_publisher, f"{registry.host}/team/qwen", builder)
    with pytest.raises(RegistryFailure, match=f"{builder} could not push to {registry.host}/team/qwen") as caught:
        site.build(CPU)
    assert "localhost is that machine" in caught.value.do and caught.value.exit_code == 6
    assert site.publisher.engine.inspect(site.publisher.job(CPU).tags[0]) is None


def test_a_registry_that_lets_the_builder_in_by_nobodys_name(
    small_publisher: SmallPublisher, proofs: list[str], builder: str, registry_program: Path, tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text("somebody:$2y$05$abcdefghijklmnopqrstuuAbCdEfGhIjKlMnOpQrStUvWxYz01234\n")
    shut = RealRegistry(
        registry_program, tmp_path / "shut", {"htpasswd": {"realm": "a", "path": str(tmp_path / "htpasswd")}}
    )
    shut.start()
    try:
        site = Site(small_publisher, f"{shut.host}/team/qwen", builder)
        with pytest.raises(RegistryFailure, match="could not push to") as caught:
            site.build(CPU)
    finally:
        shut.stop()
    assert f"docker login {shut.host}" in caught.value.do and caught.value.exit_code == 6


def test_a_cache_that_the_builder_cannot_write(
    small_publisher: SmallPublisher, proofs: list[str], repository: str, builder: str
) -> None:
    cache = f"127.0.0.1:{free_port()}/team/cache"
    site = Site(small_publisher, repository, builder, cache=cache)
    with pytest.raises(RegistryFailure, match=f"{builder} could not push to {cache}") as caught:
        site.build(CPU)
    assert caught.value.exit_code == 6 and proofs == []


def test_a_build_that_breaks_there_is_a_build_that_breaks(site: Site) -> None:
    file = site.publisher.root / f"dockerfiles/rendered/{CPU}/Dockerfile"
    file.write_text(DOCKERFILE.replace("cat /salt", "cat /nothing"))
    with pytest.raises(CheckFailed, match="the build broke") as caught:
        site.build(CPU)
    assert "cat: /nothing" in site.log and caught.value.exit_code == 1
    assert Repository(site.repository).tags() == ()
