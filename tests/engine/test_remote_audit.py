"""An image in a real registry and the same image in the engine: two audits that say the same."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from images.core import Report, Unsafe, process
from images.device_code.audit import Audit
from images.docker.engine import Engine
from images.proof.audit.remote.from_registry import RemoteAudit, audit_remote
from images.proof.audit.remote.layer_reader import WHOLE
from images.proof.audit.remote.reference import parse_image_name
from images.proof.audit.target import FromRegistry, audit_command, audit_image
from images.registry import Repository
from tests.engine.faulty import Fault, faulty
from tests.engine.real_registry import RealRegistry
from tests.helpers.remote_images import LOWER, PACKINGS, UPPER, Packed, image_of, tar_layer
from tests.helpers.small_images import archive


def put(registry: RealRegistry, packing: str, folder: Path) -> str:
    """Put the two layers into the registry, packed so; the image by its digest."""
    return put_layers(registry, [PACKINGS[packing](LOWER), PACKINGS[packing](UPPER)], folder)


def put_layers(registry: RealRegistry, layers: Sequence[Packed], folder: Path) -> str:
    """Put an image of these layers into the registry, the lowest first; the image by its digest."""
    blobs, manifest = image_of(layers)
    repository = Repository(f"{registry.host}/team/thing")
    for digest, data in blobs.items():
        path = folder / "blob"
        path.write_bytes(data)
        repository.upload(path, digest)
    return f"{registry.host}/team/thing@{repository.put_manifest(json.dumps(manifest).encode(), 'v1')}"


def remote(reference: str) -> RemoteAudit:
    name = parse_image_name(reference)
    assert name is not None
    return audit_remote(name, lambda: Repository(name.repository), print)


def contents(found: Audit) -> object:
    return found.libraries, found.others


@pytest.mark.parametrize("packing", sorted(PACKINGS))
def test_it_says_what_the_audit_in_the_engine_says(
    engine: Engine, registry: RealRegistry, packing: str, tmp_path: Path
) -> None:
    reference = put(registry, packing, tmp_path)
    far = remote(reference)
    engine.pull(reference)
    try:
        near = audit_image(engine, reference)
    finally:
        engine.untag(reference, force=True)
    assert len(near.libraries) == 7
    assert contents(far.audit) == contents(near)


def test_an_image_that_the_engine_pushed(
    engine: Engine, registry: RealRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{registry.host}/team/pushed:{uuid.uuid4().hex[:12]}"
    engine.load(iter([archive([tar_layer(LOWER), tar_layer(UPPER)], {}, name)]))
    try:
        process.run(["docker", "push", "--quiet", name], env=engine.cli_env())
        near = audit_image(engine, name)
        report = Report()
        audit_command(name, [], json=True, report=report, registry=FromRegistry(Repository))
        local = json.loads(capsys.readouterr().out)
        audit_command(name, [], json=True, report=report, registry=FromRegistry(Repository, always=True))
        far = json.loads(capsys.readouterr().out)
    finally:
        engine.untag(name, force=True)
    assert len(near.libraries) == 7
    assert far.pop("registry")["platform"] == "linux/amd64"
    assert far == local


@pytest.mark.parametrize("kind", ["cut", "reset", 502, "short"])
def test_a_line_that_breaks_off(registry: RealRegistry, tmp_path: Path, kind: str | int) -> None:
    reference = put(registry, "gzip", tmp_path)
    whole = remote(reference)
    with faulty(registry.port) as plan:
        plan.faults = [Fault("GET /v2/team/thing/blobs", "none"), *[Fault("GET /v2/team/thing/blobs", kind)] * 2]
        far = remote(reference.replace(registry.host, f"127.0.0.1:{plan.port}"))
        assert plan.done == 3
    assert contents(far.audit) == contents(whole.audit)
    assert all(layer.how == WHOLE for layer in far.layers)


def test_a_layer_that_was_changed_in_the_registry(registry: RealRegistry, tmp_path: Path) -> None:
    reference = put(registry, "plain", tmp_path)
    [largest] = sorted(remote(reference).image.layers, key=lambda layer: -layer.size)[:1]
    path = registry.blob(largest.digest)
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    name = parse_image_name(reference)
    assert name is not None
    with pytest.raises(Unsafe, match="not what its digest says"):
        audit_remote(name, lambda: Repository(name.repository), print, whole=True)
