"""The audit of real images and containers, and entry by entry against NVIDIA's own cuobjdump."""

from __future__ import annotations

import io
import os
import re
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.audit import cuobjdump
from bench.stages import VARIABLE
from images.core import Chunks, process
from images.core.errors import UsageError
from images.device_code.elf import MAGIC
from images.device_code.fatbin import PTX, SASS, Library, read
from images.device_code.sources import may_hold_code, read_folder
from images.docker.engine import Engine
from images.proof.audit.target import audit_container, audit_image, audit_target
from images.render.checkout import Checkout
from images.render.labels import VARIANT
from tests.engine.conftest import host_tar
from tests.helpers.elf_files import library, sm

_LISTED = re.compile(r"^(ELF|PTX) file .*\.sm_(\d+)([af]?)\.\w+$", re.MULTILINE)


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    """This host's programs and two libraries with device code, of which one has none for 7.5."""
    packed = io.BytesIO(host_tar())
    with tarfile.open(fileobj=packed, mode="a") as tar:
        for name, content in {"opt/lib/a.so": library([sm(75, 80)]), "opt/lib/b.so": library([sm(80)])}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    name = f"cardstock/test-audit:{uuid.uuid4().hex[:12]}"
    engine.import_tar(io.BytesIO(packed.getvalue()), name)
    yield name
    engine.untag(name, force=True)


def test_an_image_is_audited_without_running_it(engine: Engine, image: str) -> None:
    found = audit_image(engine, image)
    assert [one.name for one in found.libraries] == ["opt/lib/a.so", "opt/lib/b.so"]
    assert found.others > 3
    assert list(found.failing([(7, 5), (8, 6)])) == ["opt/lib/b.so"]


def test_a_container_is_audited_with_what_it_changed(engine: Engine, image: str) -> None:
    name = f"cardstock-test-{uuid.uuid4().hex[:12]}"
    env = engine.cli_env()
    changed = "cat /opt/lib/a.so > /opt/lib/c.so"
    process.run(["docker", "run", "--name", name, "--network", "none", image, "sh", "-c", changed], env=env)
    try:
        found = audit_container(engine, name)
    finally:
        process.run(["docker", "rm", "-f", name], env=env)
    assert found is not None
    assert [one.name for one in found.libraries] == ["opt/lib/a.so", "opt/lib/b.so", "opt/lib/c.so"]


def test_a_name_that_nothing_has(engine: Engine) -> None:
    with pytest.raises(UsageError, match="nothing is named"):
        audit_target(f"absent-{uuid.uuid4().hex[:12]}", engine)


@pytest.fixture(scope="module")
def oracle() -> Path:
    """cuobjdump, from its Python package."""
    program = cuobjdump()
    if program is None:
        pytest.skip("nvidia-cuda-cuobjdump is not installed: entries were not compared with it")
    return program


def assert_agrees(oracle: Path, path: Path, found: Library) -> int:
    """Compare every entry, in order. cuobjdump lists linked code first, and names no `f` for SASS."""
    result = process.run([str(oracle), "--all-fatbin", "--list-elf", "--list-ptx", str(path)], check=False, timeout=300)
    if "Invalid ELF" in result.err:
        # Its own failure, on untouched libraries of CUDA 12.1 and on cuBLAS 12.4 alike: it stops in the middle.
        print(f"cuobjdump cannot read {path}, {found.size} bytes: not compared")
        return 0
    listed = [(kind, int(number), suffix) for kind, number, suffix in _LISTED.findall(result.out)]
    order = sorted(found.sections, key=lambda section: section.name != ".nv_fatbin")
    entries = [entry for section in order for container in section.containers for entry in container.entries]
    sass = [("ELF", e.arch, e.suffix.replace("f", "")) for e in entries if e.kind == SASS]
    ptx = [("PTX", e.arch, e.suffix) for e in entries if e.kind == PTX]
    assert [row for row in listed if row[0] == "ELF"] == sass, path
    assert [row for row in listed if row[0] == "PTX"] == ptx, path
    assert len(listed) == len(entries), path
    return len(entries)


def owned_by_nvidia(name: str) -> bool:
    """cuobjdump 13.5 itself fails on cuBLAS 12.4: "Invalid ELF". Its makers' own libraries are not compared."""
    return "/site-packages/nvidia/" in f"/site-packages/{name}" or "cusparselt" in name


@pytest.mark.timeout(1200)
def test_every_entry_of_built_images_agrees_with_cuobjdump(engine: Engine, oracle: Path, tmp_path: Path) -> None:
    own = f"{Checkout(Path(__file__).parents[2]).matrix().image}:cu124-"  # other tests make stand-ins with such tags
    names = [facts.tags[0] for facts in engine.images(VARIANT) if facts.tags and facts.tags[0].startswith(own)][:2]
    if not names:
        pytest.skip("this engine has no image of the cu124 stack: entries were not compared")
    compared = 0
    for name in names:
        with (
            engine.export_tar(name) as chunks,
            tarfile.open(fileobj=io.BufferedReader(Chunks(chunks), 1 << 20), mode="r|") as tar,
        ):
            for member in tar:
                stream = tar.extractfile(member) if member.isreg() and may_hold_code(member.name) else None
                if stream is None or owned_by_nvidia(member.name.partition("site-packages/")[2]):
                    continue
                head = stream.read(4)
                if head == MAGIC:
                    compared += compare(oracle, head + stream.read(), tmp_path / "lib.so")
    assert compared > 500


def compare(oracle: Path, content: bytes, path: Path) -> int:
    found = read(content)
    if not found.containers:
        return 0
    path.write_bytes(content)
    return assert_agrees(oracle, path, found)


def test_every_entry_of_a_named_folder_agrees_with_cuobjdump(oracle: Path) -> None:
    site = os.environ.get(VARIABLE)
    if not site:
        pytest.skip(f"{VARIABLE} names no folder of untouched libraries: their entries were not compared")
    compared = 0
    for name, found in read_folder(Path(site)):
        if isinstance(found, Library) and found.containers and not owned_by_nvidia(name):
            compared += assert_agrees(oracle, Path(site, name), found)
    assert compared > 500
