"""Temporary containers without an engine: what is put in, and what testcontainers is told."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from images.docker import temporary_containers
from images.docker.container_arguments import create_arguments
from images.docker.container_spec import ContainerSpec
from images.docker.temporary_containers import pack
from tests.helpers.containers import specs


class Told:
    """Stands for testcontainers' client, whose `create` gets what its DockerContainer passes on."""

    def __init__(self, **_: Any) -> None: ...


@given(spec=specs())
def test_testcontainers_passes_on_all_that_docker_py_gets(spec: ContainerSpec) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("testcontainers.core.container.DockerClient", Told)
        made = temporary_containers._prepared(spec, {})
    own = {"command": made._command, "name": made._name, "environment": made.env, "ports": made.ports}
    assert {**made._kwargs, **own, "tmpfs": made.tmpfs} == create_arguments(spec, {})
    assert made.image == spec.image
    # What testcontainers always names by itself must not be named twice.
    assert not {*own, "tmpfs", "image", "volumes"} & set(made._kwargs)
    assert "network" in made._kwargs  # else it looks for one


def test_what_goes_in_can_be_read_by_every_user(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir(mode=0o700)
    (folder / "config.json").write_text("{}")
    (folder / "config.json").chmod(0o600)
    packed = io.BytesIO()
    pack({"a.json": b"[]", "model": folder}, packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        modes = {entry.name: (entry.mode, entry.uid) for entry in tar}
    assert modes == {"a.json": (0o644, 0), "model": (0o755, 0), "model/config.json": (0o644, 0)}
