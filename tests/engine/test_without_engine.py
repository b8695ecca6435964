"""The proof without an engine, for real: images from a registry, unpacked, entered, and what they prove.

The engine here only makes the images. Entering one wants a mount namespace or PRoot.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.commands.test import TestOptions, prove_without_engine
from images.core import process
from images.core.errors import CardstockError, RegistryFailure, Unsafe
from images.distribution.unpack import DONE, ROOT, UNPACKED, Unpacking
from images.docker.engine import Engine
from images.proof.on_card.records.reading import read_gpu_record, read_with_data
from images.proof.on_card.records.record import GpuRecord, Step
from images.proof.on_card.records.seal import why_not_sealed
from images.proof.on_card.without_engine import Entry, Unpacked, choose_entry, entries, prove_unpacked
from images.registry.oci_image import Packing
from tests.engine.conftest import PROGRAMS, host_tar
from tests.engine.cpu_server import image_for_the_cpu
from tests.engine.faulty import Fault, faulty
from tests.engine.real_registry import RealRegistry
from tests.helpers import small_publisher as publishing
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import ROOT as CHECKOUT
from tests.helpers.nonempty import nonempty
from tests.helpers.small_publisher import SM75, SmallPublisher

# What answers for Python in a small image: it leaves the record that lies in the image, and says who it is and sees.
PYTHON = """#!/bin/sh
case "$*" in
*images.proof.on_card.prove*)
    echo "$*" >/proof/words
    echo "uid $(id -u), $WHO, $(cat /checkout/seen), $(cat /proc/self/comm)"
    cat /opt/venv/record.json >/proof/record.json ;;
*getuid*) exit 0 ;;
*) echo '{"python": [["torch", "2.6.0", "BSD-3-Clause"]], "debian": [["tini", "0.19", "amd64"]]}' ;;
esac
"""
RECORD = GpuRecord(
    "Tesla T4", "7.5", 1, "535.104.05", "", "unpacked", SM75, "", {}, (Step("vllm: tiny image", "passed"),)
)


def ways_here(folder: Path) -> list[Entry]:
    """The ways into an image that work on this machine; each is tried with a root of this host's programs."""
    root, proof = folder / "try", folder / "proof"
    for place in (*(root / name for name in ("dev", "proc", "sys", "checkout", "proof")), proof):
        place.mkdir(parents=True)
    Unpacking(root, 10**9, owners=os.geteuid() == 0).layer(io.BytesIO(host_tar((*PROGRAMS, "env"))))
    found = []
    for way in entries(root, CHECKOUT, proof, superuser=os.geteuid() == 0):
        words = way.words(["/bin/sh", "-c", "exit 0"])
        try:
            process.run(words, env=dict(way.env), timeout=60)
        except process.ProcessFailed:
            continue
        found.append(way)
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of this test's own; skips where no image can be entered."""
    if not ways_here(tmp_path / "ways"):
        pytest.skip("neither a mount namespace nor PRoot works here: not run")
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def small(engine: Engine, registry: RealRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallPublisher]:
    """Publishes images of this host's programs, whose Python leaves a record."""
    monkeypatch.setattr(publishing, "PYTHON", PYTHON)
    base = f"cardstock/test-unpacked:{uuid.uuid4().hex[:12]}"
    changes = ['ENV WHO="host image"', "ENV PATH=/opt/venv/bin:/bin", f"LABEL dev.cardstock.test={base}"]
    engine.import_tar(io.BytesIO(_with_env()), base, changes)
    made = SmallPublisher(Path(tempfile.gettempdir(), f"publisher-{uuid.uuid4().hex[:12]}"), engine, base)
    (made.root / "seen").write_text("the checkout")
    made.commit()
    yield made
    made.clear(registry.host)
    engine.untag(base, force=True)


def _with_env() -> bytes:
    """This host's programs, env under the name that the proof calls it by, and the record."""
    packed = io.BytesIO(host_tar((*PROGRAMS, "env")))
    out = io.BytesIO()
    with tarfile.open(fileobj=packed) as source, tarfile.open(fileobj=out, mode="w") as target:
        for member in source:
            target.addfile(member, source.extractfile(member) if member.isreg() else None)
        link = tarfile.TarInfo("usr/bin/env")
        link.type, link.linkname = tarfile.LNKTYPE, "bin/env"
        target.addfile(link)
        content = RECORD.to_json().encode()
        entry = tarfile.TarInfo("opt/venv/record.json")
        entry.size, entry.mode = len(content), 0o644
        target.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def prove(small: SmallPublisher, repository: str) -> str:
    """As `./inv test --gpu --without-engine --from REPO --name TAG` does it; what is told."""
    report, err = silent()
    options = TestOptions(gpu=True, without_engine=True, source=repository, name=SM75)
    prove_without_engine(context(report, root=small.root), options)
    return err.getvalue()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_published_image_proves_itself_unpacked(
    home: Path, small: SmallPublisher, registry: RealRegistry, capsys: pytest.CaptureFixture[str], packing: Packing
) -> None:
    repository = f"{registry.host}/team/qwen"
    (image,) = small.publish(repository, SM75, packing=packing)
    told = prove(small, repository)
    who = "10001" if os.geteuid() == 0 else "0"
    assert f"uid {who}, host image, the checkout, cat" in told
    assert "Tesla T4, driver 535.104.05: steps 1 passed" in told
    kept = small.root / f"build/records/tesla-t4-{SM75}.json"
    assert read_gpu_record(kept).place == "unpacked"
    assert json.loads(capsys.readouterr().out) == json.loads(kept.read_text())
    folder = home / UNPACKED / image.digest.replace(":", "-")
    assert sorted(path.name for path in folder.iterdir()) == [ROOT, DONE]  # no packed layer, no checkpoint stays
    before = registry.log.read_text().count("GET /v2/team/qwen/blobs/")
    assert "is unpacked already" in prove(small, repository)
    after = registry.log.read_text().count("GET /v2/team/qwen/blobs/")
    assert after - before <= 4  # the catalogue and the configuration, and no layer


@pytest.mark.timeout(600)
def test_a_layer_that_lies_is_refused_and_a_pull_that_broke_goes_on(
    home: Path, small: SmallPublisher, registry: RealRegistry
) -> None:
    (image,) = small.publish(f"{registry.host}/team/qwen", SM75)
    folder = home / UNPACKED / image.digest.replace(":", "-")
    with faulty(registry.port) as plan:
        repository = f"127.0.0.1:{plan.port}/team/qwen"
        plan.faults.append(Fault(f"GET /v2/team/qwen/blobs/{image.layers[0]}", "lie"))
        with pytest.raises((Unsafe, RegistryFailure)):
            prove(small, repository)
        assert not (folder / DONE).exists()
        assert "steps 1 passed" in prove(small, repository)
    assert (folder / DONE).exists()


@pytest.fixture(scope="module")
def cpu_image(engine: Engine) -> Iterator[Unpacked]:
    """The image for the CPU, unpacked out of the engine that has built it."""
    reference = f"cardstock/qwen2.5-vl:{image_for_the_cpu()}"
    facts = engine.inspect(reference)
    if facts is None:
        pytest.skip(f"{reference} is not built: ./inv build --only 'cpu*'")
    folder = Path(tempfile.mkdtemp(prefix="cardstock-unpacked-"))
    (folder / ROOT).mkdir()
    with engine.export_tar(reference) as chunks:
        unpacking = Unpacking(folder / ROOT, 2 * facts.size, owners=os.geteuid() == 0)
        unpacking.layer(io.BufferedReader(_Chunks(iter(chunks)), 1 << 20))
    pairs = [f"{name}={value}" for name, value in facts.env.items()]
    configuration = json.dumps({"config": {"Env": pairs, "Labels": dict(facts.labels)}}).encode()
    yield Unpacked(folder / ROOT, configuration, "", facts.id)
    shutil.rmtree(folder, ignore_errors=True)


class _Chunks(io.RawIOBase):
    """Chunks as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._held = self._held or next(self._chunks, b"")
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size


@pytest.mark.timeout(900)
def test_the_image_for_the_cpu_proves_itself_in_every_way_that_works_here(cpu_image: Unpacked, tmp_path: Path) -> None:
    """Also the seal: torch's logits of this very record are those that numpy works out."""
    names = {way.name for way in ways_here(tmp_path / "ways")}
    if not names:
        pytest.skip("neither a mount namespace nor PRoot works here: not run")
    proof = cpu_image.root.parent / "proof"
    ways = entries(cpu_image.root, CHECKOUT, proof, superuser=os.geteuid() == 0)
    for way in nonempty([way for way in ways if way.name in names]):
        said: list[str] = []
        kept, record = prove_unpacked(cpu_image, CHECKOUT, tmp_path / "kept", said.append, ways=[way])
        assert f"the image is entered by {way.name}" in said
        assert (record.card, record.place, record.given) == ("no card", "unpacked", "host")
        verdicts = {step.name: step.verdict for step in record.steps}
        assert verdicts["stack: image"] == verdicts["canary on the processor"] == "passed"
        assert {verdicts["vllm: tiny image"], verdicts["canary on the card"]} == {"not run"}
        assert "failed" not in verdicts.values()
        read, data = read_with_data(kept)
        assert read.seal
        assert read.seal.device == "cpu"
        assert why_not_sealed(data) == ""
        assert record.versions["python"].startswith("3.11.")  # the image's own, whatever this machine has


def test_an_image_whose_python_does_not_start_is_told(tmp_path: Path) -> None:
    if not ways_here(tmp_path / "ways"):
        pytest.skip("neither a mount namespace nor PRoot works here: not run")
    root = tmp_path / "ways/try"
    ways = entries(root, CHECKOUT, tmp_path / "ways/proof", superuser=os.geteuid() == 0)
    with pytest.raises(CardstockError, match="the image's programs cannot be started here"):
        choose_entry(ways, {"PATH": "/bin"})
