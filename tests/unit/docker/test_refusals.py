"""What engines say when they break off, told as errors of its kind."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest
import requests
import urllib3

from images.core.errors import CardstockError, EngineUnreachable, RegistryFailure, Unsafe
from images.docker.docker_py import docker, translated
from images.docker.layer_store import layers_folder
from images.docker.refusals import DiskFull, RateLimited, refuse_old_engine, refused_pull


@pytest.mark.parametrize(
    ("said", "kind", "code", "do"),
    [
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", DiskFull, 1, "--prune"),
        ("failed to register layer: ApplyLayer exit status 1: write /x: no space left on device", DiskFull, 1, "prune"),
        ("failed to copy: write /var/lib/containerd/ingest/a/data: disk quota exceeded",
         DiskFull, 1, "--prune"),
        ("toomanyrequests: You have reached your pull rate limit.", RateLimited, 6, "docker login"),
        ("received unexpected HTTP status: 429 Too Many Requests", RateLimited, 6, "docker login"),
        ("failed to register layer: archive/tar: invalid tar header", EngineUnreachable, 5, "Docker 23.0"),
        ("mediaType in manifest should be 'x': unsupported media type", EngineUnreachable, 5, "Docker 23.0"),
        ("filesystem layer verification failed for digest sha256:0", Unsafe, 7, "do not use it"),
        ("unauthorized: authentication required", RegistryFailure, 6, "login"),
        ("connection reset by peer", RegistryFailure, 6, "run the same again"),
    ],
)  # fmt: skip
def test_each_is_of_its_kind(said: str, kind: type[CardstockError], code: int, do: str) -> None:
    error = refused_pull("r.example/x@sha256:0", said)
    assert type(error) is kind
    assert (error.exit_code, said in error.cause) == (code, True)
    assert do in error.do
    if code != 6:
        assert "login" not in error.do


@pytest.mark.parametrize(
    ("packing", "version", "refused"),
    [
        ("zstd", "20.10.24", True),
        ("zstd", "19.03.15+dfsg1", True),
        ("zstd", "23.0.0", False),
        ("zstd", "26.1.5+dfsg1", False),
        ("zstd", "", False),
        ("zstd", "dev", False),
        ("gzip", "20.10.24", False),
    ],
)
def test_an_engine_too_old_for_zstd_is_refused_before_a_byte_moves(packing: str, version: str, refused: bool) -> None:
    if not refused:
        refuse_old_engine("x", packing, version)
        return
    with pytest.raises(EngineUnreachable, match="cannot unpack") as caught:
        refuse_old_engine("x", packing, version)
    assert version in caught.value.cause and "23.0" in caught.value.do


@pytest.mark.parametrize(
    "fault",
    [
        urllib3.exceptions.ProtocolError("Connection broken: IncompleteRead(12 bytes read)"),
        http.client.IncompleteRead(b"x"),
        docker.errors.StreamParseError("half a line"),
        requests.exceptions.ChunkedEncodingError("broken"),
    ],
)
def test_an_answer_that_breaks_off_is_the_engines(fault: Exception) -> None:
    with pytest.raises(EngineUnreachable, match="x could not be pulled"), translated("x could not be pulled"):
        raise fault


def test_a_full_disk_is_told_whatever_was_asked() -> None:
    answer = requests.Response()
    answer.status_code = 500
    answer._content = json.dumps({"message": "mkdir /x: no space left on device"}).encode()
    with pytest.raises(DiskFull, match="a container could not be made"), translated("a container could not be made"):
        raise docker.errors.APIError("500", answer, "mkdir /x: no space left on device")


SNAPSHOTTER = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}


def test_layers_lie_where_the_store_is(tmp_path: Path) -> None:
    root, config = tmp_path / "docker", tmp_path / "config.toml"
    info = {"DockerRootDir": str(root)}
    assert layers_folder({**info, "DriverStatus": [["Backing Filesystem", "extfs"]]}, config) == root
    outside = {**info, **SNAPSHOTTER, "Containerd": {"Address": "/run/containerd/containerd.sock"}}
    assert layers_folder(outside, config) == Path("/var/lib/containerd")
    config.write_text('version = 2\nroot = "/mnt/big/containerd"\n')
    assert layers_folder(outside, config) == Path("/mnt/big/containerd")
    config.write_text("no toml at = all = [")
    assert layers_folder(outside, config) == Path("/var/lib/containerd")
    own = {**outside, "Containerd": {"Address": "/var/run/docker/containerd/containerd.sock"}}
    assert layers_folder(own, config) == root / "containerd/daemon"
    (root / "containerd/daemon").mkdir(parents=True)
    assert layers_folder({**info, **SNAPSHOTTER}, config) == root / "containerd/daemon"
