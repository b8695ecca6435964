"""Options and fixtures of the smoke levels, and the collector that writes the record; prove.py runs them."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from images.core import UTC, CardstockError, write_atomically
from images.proof.smoke import (
    LEVELS,
    STAND_INS_CALLED,
    Collector,
    Expectation,
    ProofContainers,
    ProofRecord,
    StandInCalls,
    level_of,
)
from images.proof.tiny_model import FAMILIES, QWEN2_5, Tiny, checkpoint
from images.render import INPUT

ROOT = Path(__file__).parents[4]
INSIDE = ROOT / "images" / "proof" / "smoke" / "inside"
CANNOT_START = 4
COLLECTOR = pytest.StashKey[Collector]()
CLOSED = pytest.StashKey[bool]()
HOST_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What prove.py tells."""
    group = parser.getgroup("smoke")
    group.addoption("--image", required=True, help="reference of the image under test")
    group.addoption("--expectation", required=True, type=Path, help="JSON file: what the image promises")
    group.addoption("--record", required=True, type=Path, help="JSON file to write")
    group.addoption("--run", required=True, help="id of the run: label of its containers")
    group.addoption("--checkpoint", type=Path, help="the tiny checkpoint's folder (made in a temporary one without)")
    group.addoption("--model", help="a real model: a folder, or an id of a hub")
    group.addoption("--gpus", help='"all": give the containers the host\'s cards')
    group.addoption("--health-limit", type=float, default=900.0, help="seconds a server may take to get healthy")
    group.addoption("--stop-limit", type=float, default=30.0, help="seconds a server may take to end on SIGTERM")


def pytest_configure(config: pytest.Config) -> None:
    """One collector a session."""
    config.stash[COLLECTOR] = Collector()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hand every outcome to the collector."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, CardstockError):
        report.longrepr = str(error)  # says all that is to be said; its traceback would bury it
    level = level_of(item.path.name)
    item.config.stash[COLLECTOR].add(level, item.name, report.outcome, error, call.duration, call.when)
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Nothing is tried on what is known to be broken: a level below, or this level's own container."""
    collector, level = item.config.stash[COLLECTOR], level_of(item.path.name)
    failed = collector.failed_below(level)
    if failed:
        pytest.skip(f"level {LEVELS[failed]} ({failed}) failed")
    if collector.broken(level):
        pytest.skip("not tried: see the failure above")


@pytest.fixture(scope="session")
def expectation(pytestconfig: pytest.Config) -> Expectation:
    """What the image promises."""
    path: Path = pytestconfig.getoption("--expectation")
    return Expectation.from_json(path.read_text(), str(path))


@pytest.fixture(scope="session")
def with_gpus(pytestconfig: pytest.Config) -> bool:
    """Whether the host's cards may be used."""
    return bool(pytestconfig.getoption("--gpus"))


@pytest.fixture(scope="session", autouse=True)
def containers(pytestconfig: pytest.Config, expectation: Expectation) -> Iterator[ProofContainers]:
    """The image's containers; the record is written when they are gone, so that it is there only after a whole run."""
    option = pytestconfig.getoption
    try:
        made = ProofContainers(option("--image"), option("--run"))
    except Exception as error:
        pytest.exit(f"the image cannot be examined: {error}", returncode=CANNOT_START)
    pytestconfig.stash[COLLECTOR].base = ProofRecord(
        variant_id=expectation.variant_id,
        image=made.image,
        image_id=made.image_id,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        card=None,
        driver=None,
        engine_version=made.engine_version,
        levels=(),
        input_hash=made.config.labels.get(INPUT, ""),
    )
    try:
        yield made
    finally:
        made.close()
        pytestconfig.stash[CLOSED] = True


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """The record, whole, if the session went to its end and nothing of it is left on the engine."""
    collector = session.config.stash[COLLECTOR]
    ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if ended and collector.base and session.config.stash.get(CLOSED, False):
        write_atomically(session.config.getoption("--record"), collector.record().to_json())


@pytest.fixture(scope="session")
def card(pytestconfig: pytest.Config, containers: ProofContainers, volume: str, with_gpus: bool) -> str | None:
    """The card's name as a container of the image sees it, None without --gpus; written to the record."""
    if not with_gpus:
        return None
    with containers.sleeping(volume, gpus=True) as container:
        finished = container.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    name, _, driver = (finished.out.splitlines() or [""])[0].partition(",")
    if finished.code or not driver:
        pytest.fail(f"--gpus was given, but no card is seen in the container: {finished.tail}", pytrace=False)
    pytestconfig.stash[COLLECTOR].note_card(name.strip(), driver.strip())
    return name.strip()


@pytest.fixture(scope="session")
def checkpoint_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint, made if it is not there."""
    folder: Path = pytestconfig.getoption("--checkpoint") or tmp_path_factory.mktemp("smoke") / "tiny"
    return checkpoint.write_checkpoint(folder).folder


@pytest.fixture(scope="session")
def others(expectation: Expectation) -> tuple[Tiny, ...]:
    """The families beside Qwen2.5-VL that the image's transformers knows."""
    version = Version(expectation.pins.get("transformers", "0"))
    return tuple(tiny for tiny in FAMILIES if tiny != QWEN2_5 and version >= Version(tiny.transformers))


@pytest.fixture(scope="session")
def volume(
    containers: ProofContainers,
    checkpoint_folder: Path,
    others: tuple[Tiny, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """A volume with the probe, the checkpoints and their golden answers."""
    place = tmp_path_factory.mktemp("families")
    made = {tiny.family: checkpoint.write_checkpoint(place / tiny.family, tiny).folder for tiny in others}
    return containers.proof_volume(
        {name: INSIDE / name for name in ("probe.py", "loaded_libraries.py")}
        | {"golden.json": QWEN2_5.golden, "tiny": checkpoint_folder}
        | {tiny.golden.name: tiny.golden for tiny in others}
        | made
    )


def require_no_call(called: StandInCalls, facts: dict[str, Any]) -> None:
    """Note how often stand-ins were called, where there are any, and fail where one was."""
    if called.stand_ins or called.calls:
        facts[STAND_INS_CALLED] = called.fact
    if complaint := called.complaint():
        pytest.fail(complaint, pytrace=False)


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the level measures, as JSON values: goes into its record."""
    return request.config.stash[COLLECTOR].facts(level_of(request.path.name))


@pytest.fixture(scope="session")
def private_cas() -> frozenset[str]:
    """SHA-256 of certificates that this host trusts and no public list holds, such as a proxy's own."""
    bundles = [Path("/etc/ssl/certs/ca-certificates.crt")]
    bundles += [Path(os.environ[name]) for name in HOST_BUNDLES if name in os.environ]
    own = {digest for path in bundles for digest in _certificates(path)}
    public = {digest for path in Path("/usr/share/ca-certificates").rglob("*.crt") for digest in _certificates(path)}
    return frozenset(own - public) if public else frozenset()


def _certificates(path: Path) -> Iterator[str]:
    text = path.read_text(errors="replace") if path.is_file() else ""
    for block in re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL):
        yield hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest()
