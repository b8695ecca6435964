"""The campaign's machines, made once; its verdict, printed at the end."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.driver import PROOFS
from tests.crash.machine import BASE, Machine, Tally
from tests.engine import real_registry
from tests.engine.conftest import needs_root_on_debian
from tests.engine.real_registry import RealRegistry
from tests.helpers.small_publisher import SmallPublisher

TALLY = Tally()


@pytest.fixture
def tally() -> Tally:
    """What was tried; what was wrong before is no matter of this test."""
    TALLY.before = len(TALLY.wrong)
    return TALLY


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how often something was tried, and what ended wrong."""
    for line in TALLY.lines():
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A campaign that could not begin has shown nothing."""
    if not TALLY.tries and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The one that publishes and builds."""
    needs_root_on_debian()
    made = Machine(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    made.import_base()
    yield made
    made.end()


@pytest.fixture(scope="session")
def other() -> Iterator[Machine]:
    """The one that pulls."""
    needs_root_on_debian()
    made = Machine(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    yield made
    made.end()


@dataclass(frozen=True)
class Shop:
    """A registry with nothing in it, and two checkouts of the same inputs."""

    registry: RealRegistry
    folder: Path
    roots: tuple[Path, Path]

    @property
    def repository(self) -> str:
        """Its name."""
        return f"{self.registry.host}/team/qwen"

    def words(self, number: int = 0, port: int | None = None) -> list[str]:
        """What publishes from one of the checkouts, straight or through a proxy's ``port``."""
        host = self.registry.host if port is None else f"127.0.0.1:{port}"
        return ["publish", str(self.roots[number]), BASE, f"{host}/team/qwen"]

    def proven(self) -> set[str]:
        """Digests that went through a proof."""
        path = self.folder / PROOFS
        return set(path.read_text().split()) if path.is_file() else set()


@pytest.fixture
def shop(machine: Machine, tmp_path: Path) -> Iterator[Shop]:
    """Fresh for each test."""
    folder = Path(tempfile.mkdtemp(prefix="shop-"))
    made = RealRegistry(real_registry.program(), tmp_path / "registry")
    made.start()
    name = uuid.uuid4().hex[:8]
    with machine.engine() as engine:
        roots = [folder / f"{which}-{name}" for which in ("a", "b")]
        for root in roots:
            SmallPublisher(root, engine, BASE)
    yield Shop(made, folder, (roots[0], roots[1]))
    made.stop()
    shutil.rmtree(folder)
