"""For tests with a real engine: the one that answers here, and a second, embedded one to start, stop and break."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.catalogue.store import SigningKeys
from images.core import debian, process
from images.core.home import Layout
from images.docker import base_image as bases
from images.docker.connection import connect
from images.docker.embedded import daemon as embedded
from images.docker.engine import Engine
from images.registry.cosign import PASSWORD, Cosign, find_cosign
from images.render.labels import VARIANT
from tests.engine import real_registry
from tests.engine.cpu_server import CpuServer, short_limits
from tests.engine.cpu_server import cpu_server as started
from tests.engine.real_registry import RealRegistry
from tests.helpers.own_engine import take_programs
from tests.helpers.small_publisher import SmallPublisher

PROGRAMS = ("sh", "cat", "id", "sleep")


def host_tar(programs: tuple[str, ...] = PROGRAMS) -> bytes:
    """A tiny root file system of this host's own programs and their libraries: no registry, no download."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        files: dict[str, Path] = {}
        for name in programs:
            program = shutil.which(name, path="/usr/bin:/bin")
            assert program, f"this host has no {name}"
            files[f"bin/{name}"] = Path(program)
            for library in re.findall(r"(/\S+) \(0x", process.run(["ldd", program], check=False).out):
                files[library.lstrip("/")] = Path(library)
        for name, path in files.items():
            tar.add(path.resolve(), name)
        entry = tarfile.TarInfo("tmp")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(entry)
    return packed.getvalue()


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The engine that Cardstock would use here, started if need be and left running."""
    return connect(say=print)


@pytest.fixture(scope="session")
def host_image(engine: Engine) -> Iterator[str]:
    """An image of a few programs of this host, on the engine that answers here."""
    session = uuid.uuid4().hex[:12]  # two test runs may share an engine
    name = f"cardstock/test-host:{session}"
    engine.import_tar(io.BytesIO(host_tar()), name, ['ENV WHO="host image"', f"LABEL dev.cardstock.test={session}"])
    yield name
    engine.untag(name, force=True)


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    """The local reference of the base for bookworm."""
    return bases.base_context("bookworm", engine, say=print).removeprefix(bases.CONTEXT_SCHEME)


def needs_root_on_debian() -> None:
    """Skip, with the reason, where no embedded engine can be."""
    if os.geteuid() != 0 or debian.host_codename() is None:
        pytest.skip("an embedded engine needs root on Debian: not run here")


@pytest.fixture(scope="module")
def second() -> Iterator[Layout]:
    """A fresh state directory for an embedded engine of its own; its path is short, as sockets want it."""
    needs_root_on_debian()
    layout = Layout(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    yield layout
    embedded.stop(layout)
    shutil.rmtree(layout.home)


# Whichever test asks for one first waits for its start, which takes minutes on a busy machine.
SERVERS = {"cpu_server", "light_server"}


@pytest.fixture(scope="session")
def cpu_server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CpuServer]:
    """The image for the CPU, serving the tiny AWQ checkpoint; shared, so leave it as it is found."""
    with started(engine, tmp_path_factory.mktemp("model") / "tiny", short_limits(engine)) as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """More time for tests with a server."""
    for item in items:
        if SERVERS.intersection(getattr(item, "fixturenames", ())) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def registry_program() -> Path:
    """Debian's docker-registry."""
    return real_registry.program()


@pytest.fixture
def registry(registry_program: Path, tmp_path: Path) -> Iterator[RealRegistry]:
    """A real, empty registry on loopback."""
    made = RealRegistry(registry_program, tmp_path / "registry")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def small_publisher(engine: Engine, host_image: str, registry: RealRegistry) -> Iterator[SmallPublisher]:
    root = Path(tempfile.gettempdir(), f"publisher-{uuid.uuid4().hex[:12]}")  # its name is a repository's, too
    made = SmallPublisher(root, engine, host_image)
    yield made
    made.clear(registry.host)


@pytest.fixture
def repository(registry: RealRegistry) -> str:
    return f"{registry.host}/team/qwen"


@pytest.fixture(scope="module")
def keys() -> Iterator[SigningKeys]:
    """A fresh pair of keys."""
    program = find_cosign(say=print)
    folder = Path(tempfile.mkdtemp(prefix="cosign-"))
    environment = {PASSWORD: "of a test"}
    process.run([program, "generate-key-pair"], cwd=folder, env=environment)
    yield SigningKeys(Cosign(program, environment), folder / "cosign.key", folder / "cosign.pub")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def other_engine(engine: Engine) -> Iterator[Engine]:
    """An engine with a data-root of its own. Its programs are those of the embedded engine, if that one is there."""
    needs_root_on_debian()
    layout = Layout(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    take_programs(layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", embedded.start(layout, firewall=False, say=print))
        yield connect(layout)
    embedded.stop(layout)
    shutil.rmtree(layout.home)


@pytest.fixture
def empty_engine(other_engine: Engine) -> Engine:
    """The other engine, with nothing in it."""
    for facts in other_engine.images(VARIANT):
        other_engine.untag(facts.id, force=True)
    return other_engine
