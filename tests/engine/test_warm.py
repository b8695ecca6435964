"""Compiled code for real: kept of a server that ends, put into another's cache, by way of a real registry with cosign.

The image is the CPU's with its server on transformers, which compiles nothing; so a module that Python imports by
itself stands in for a compiler: it writes a file where Triton would, and says whether it found it. Real compilation
takes minutes and wants a compiler: `tests/engine/test_warm_compiling.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from images.catalogue import SigningKeys
from images.commands import warm as warming
from images.compiled import remote
from images.compiled.record import ARCHIVE
from images.compiled.store import default_store
from images.core import process
from images.docker import Mount
from images.docker.engine import Engine
from images.proof.tiny_model.checkpoint import write_checkpoint
from images.registry import artifact
from images.registry.client import Repository
from images.registry.cosign import PASSWORD, find_cosign
from images.run.serve import Place, bring_all
from tests.engine.cpu_server import docker, image_for_the_cpu
from tests.engine.real_registry import RealRegistry
from tests.engine.warmed import Here, left
from tests.helpers.contexts import context
from tests.helpers.matrices import matrix

pytestmark = pytest.mark.timeout(900)
# Imported by every Python of the image (PYTHONPATH has this folder); the server's alone has the variable.
COMPILER = """
import os, pathlib
place = os.environ.get("TRITON_CACHE_DIR")
if place:
    kernel = pathlib.Path(place, "PLANTED", "kernel.json")
    print("compiled code:", "found" if kernel.is_file() else "made", flush=True)
    kernel.parent.mkdir(parents=True, exist_ok=True)
    kernel.write_text("{}")
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> Iterator[str]:
    """The image for the CPU with the stand-in for a compiler in it."""
    identifier = image_for_the_cpu()
    base = f"{matrix().image}:{identifier}"
    if engine.inspect(base) is None:
        pytest.skip(f"{identifier} is not built: ./inv build --only 'cpu*'")
    name = f"cardstock/test-warm:{uuid.uuid4().hex[:12]}"
    made = docker(engine, ["create", base]).strip()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(COMPILER)
        docker(engine, ["cp", f"{folder}/sitecustomize.py", f"{made}:/opt/cardstock/plugins/sitecustomize.py"])
    docker(engine, ["commit", made, name])
    docker(engine, ["rm", "--volumes", made])
    yield name
    docker(engine, ["rmi", "--force", name])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_checkpoint(folder)
    return str(folder)


@pytest.fixture
def here(engine: Engine, image: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    engine.cli_env()  # before the state folder is another
    monkeypatch.setenv("PATH", f"{Path(find_cosign()).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "home"))
    return Here(engine, image, model)


def test_kept_code_is_used_and_the_answer_is_the_same(here: Here, tmp_path: Path) -> None:
    said, log, cold = here.served()
    assert "compiled code" not in said and "compiled code: made" in log
    _, said = here.said("warm", out=str(tmp_path / "one.tar"))
    assert re.search(r"kept by [0-9a-f]{12}: 1 files", said), said
    assert left(here.engine) == ""
    said, log, warm = here.served()
    assert re.search(r"compiled code for cpu \(made here\): 1 files, 2 B, put into cardstock-test-", said), said
    assert "compiled code: found" in log
    assert warm == cold
    said, log, off = here.served(no_artifact=True)
    assert "compiled code" not in said and "compiled code: made" in log
    assert off == cold
    shutil.rmtree(default_store().root)
    said, log, by_file = here.served(artifact=str(tmp_path / "one.tar"))
    assert "not verified): 1 files" in said and "compiled code: found" in log
    assert by_file == cold


def test_by_a_registry_signed_and_verified(
    here: Here, registry: RealRegistry, keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, "of a test")
    place = f"{registry.host}/team/qwen"
    _, said = here.said("warm", push=place, key=str(keys.private))
    kept = default_store().entries()[0]
    assert f"pushed: {place}:{kept.record.key.tag}" in said
    shutil.rmtree(default_store().root)
    how: dict[str, Any] = {"source": place, "key": str(keys.signer)}

    said, log, _ = here.served(**how)
    assert "signed (key sha256:" in said and "compiled code: found" in log

    # Without a word on who must have signed it, it is not used.
    shutil.rmtree(default_store().root)
    said, log, _ = here.served(source=place)
    assert "it is not used: it is code, and no signer was named" in said and "compiled code: made" in log

    # Foreign: for other flags. Stale: of another image.
    said, log, _ = here.served(**how, flags=("--max-model-len 1024",))
    assert "does not fit and is not used: flags: --max-model-len" in said and "compiled code: made" in log
    other = f"{here.image}-other"
    docker(here.engine, ["tag", here.image, other])
    made = docker(here.engine, ["create", other]).strip()
    docker(here.engine, ["commit", "--change", "ENV ANOTHER=1", made, other])
    docker(here.engine, ["rm", "--volumes", made])
    try:
        said, log, _ = replace(here, image=other).served(**how)
    finally:
        docker(here.engine, ["rmi", "--force", other])
    assert f"{place} has no compiled code of this image" in said and "compiled code: made" in log

    # Damaged: the registry gives other bytes under the archive's digest.
    there = artifact.look(Repository(place), kept.record.key.tag, remote.KIND)
    assert there is not None
    blob = registry.blob(there.files[ARCHIVE].digest)
    blob.write_bytes(b"x" * blob.stat().st_size)
    said, log, _ = here.served(**how)
    assert "is not what its digest says" in said and "the server starts without compiled code" in said
    assert "compiled code: made" in log


def test_the_signature_of_somebody_else_is_refused(
    here: Here, registry: RealRegistry, keys: SigningKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, "of a test")
    place = f"{registry.host}/team/qwen"
    process.run([find_cosign(), "generate-key-pair"], cwd=tmp_path, env={PASSWORD: "of a test"})
    here.said("warm", push=place, key=str(tmp_path / "cosign.key"))
    shutil.rmtree(default_store().root)
    said, log, _ = here.served(source=place, key=str(keys.signer))
    assert "is not signed by this signer" in said and "compiled code: made" in log


def test_an_archive_that_leads_elsewhere_is_refused_inside(here: Here) -> None:
    """What the checks of this machine would have let through."""
    from images.compiled import cache, fill

    here.said("warm")
    kept = default_store().entries()[0]
    with tarfile.open(kept.archive, "w:gz") as tar:
        entry = tarfile.TarInfo("triton/../../models/x")
        tar.addfile(entry)
    name = f"cardstock-test-{uuid.uuid4().hex[:8]}"
    try:
        with pytest.raises(Exception, match=r"(?s)the compiled code was refused.*leads elsewhere"):
            fill(here.engine, here.image, name, kept)
        listed = here.engine.run(
            here.image, ["-c", "import os, json; print(json.dumps(sorted(os.listdir('/cache'))))"],
            entrypoint=(cache.PYTHON,), mounts=(Mount(name, "/cache"),),
        )  # fmt: skip
        assert json.loads(listed.out) == [".compiled"]
    finally:
        docker(here.engine, ["volume", "rm", "--force", name])


def test_a_server_that_compiles_nothing_leaves_nothing(here: Here) -> None:
    base = f"{matrix().image}:{image_for_the_cpu()}"
    with pytest.raises(Exception, match="there is nothing to keep: the server has compiled nothing"):
        replace(here, image=base).said("warm")
    assert left(here.engine) == ""
    assert not default_store().entries()


def test_published_beside_its_image_and_fetched_by_a_pull(
    here: Here, registry: RealRegistry, keys: SigningKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `invoke publish --warm` and `invoke pull` do it, with vLLM as the image starts it."""
    monkeypatch.setenv(PASSWORD, "of a test")
    place = Repository(f"{registry.host}/team/qwen")
    pushed = f"{place.name}:an-image"
    docker(here.engine, ["tag", here.image, pushed])
    docker(here.engine, ["push", "--quiet", pushed])
    docker(here.engine, ["rmi", pushed])
    manifest = place.manifest("an-image")
    assert manifest is not None
    published = cast("Any", SimpleNamespace(variant=image_for_the_cpu(), digest=manifest.digest, archs=()))
    told = context(engine=here.engine, locked={})
    warming.keep_published(told, place, [published], here.model, "", keys)
    (kept,) = default_store().entries()
    there = place.manifest(kept.record.key.tag)
    assert there is not None and there.content["subject"]["digest"] == manifest.digest
    assert keys.signer is not None
    keys.cosign.verify(place.name, there.digest, keys.signer)

    shutil.rmtree(default_store().root)
    how = Place(place, replace(keys, private=None))
    (fetched,) = bring_all(told, place, here.image, False, how)
    assert fetched.record == kept.record and fetched.origin.trusted
    assert default_store().get(kept.record.key) == fetched
