"""The base from packages, for real, and what a build and a container on it can reach."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from images.core import debian, process
from images.docker import base_image as bases
from images.docker import bootstrap
from images.docker.engine import Engine
from tests.engine.conftest import needs_root_on_debian


@pytest.fixture(autouse=True)
def only_where_it_can_be_made() -> None:
    needs_root_on_debian()


def test_the_base_is_bookworm_and_holds_nothing_of_this_host(engine: Engine, base: str) -> None:
    script = (
        ". /etc/os-release; echo $VERSION_CODENAME;"
        "find /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists /var/cache/apt /var/log -type f;"
        "find /usr/share/man /usr/share/locale -type f;"
        "find /usr/share/doc -type f ! -name copyright;"
        "find / -xdev -newermt 2025-01-02 -type f ! -path '/etc/host*' ! -path /etc/resolv.conf ! -path /.dockerenv"
    )
    assert engine.run(base, ["sh", "-c", script]).out == "bookworm\n"
    mirror = debian.host_mirror()
    assert mirror is not None
    host = mirror.archive.split("/")[2]
    found = engine.run(base, ["grep", "-rlF", host, "/etc/apt", "/var/lib/apt", "/var/lib/dpkg", "/root"], check=False)
    assert (found.code, found.out) == (1, "")


def test_the_base_is_whole_and_small(engine: Engine, base: str) -> None:
    facts = engine.inspect(base)
    assert facts is not None
    assert 40_000_000 < facts.size < 120_000_000
    assert len(facts.layers) == 1
    assert engine.run(base, ["dpkg", "--audit"]).out == ""
    assert engine.run(base, ["sh", "-c", "stat -c %a /tmp; stat -c %a /etc/shadow; ls /usr/share/doc/dpkg"]).out == (
        "1777\n640\ncopyright\n"
    )


def test_the_base_has_the_set_id_programs_of_its_packages_and_no_devices(
    engine: Engine, base: str, tmp_path: Path
) -> None:
    found = engine.run(base, ["sh", "-c", "find / -xdev -perm /6000 -type f | sort"]).out.split()
    programs = "chage chfn chsh expiry gpasswd mount newgrp passwd su umount".split()
    assert found == [*(f"/usr/bin/{name}" for name in programs), "/usr/sbin/unix_chkpwd"]
    with engine.export_tar(base) as chunks:
        (tmp_path / "base.tar").write_bytes(b"".join(chunks))
    with tarfile.open(tmp_path / "base.tar") as tar:
        assert [member.name for member in tar if member.isdev()] == []


@pytest.mark.timeout(1800)
def test_the_same_packages_make_the_same_bytes(tmp_path: Path) -> None:
    """Made twice, with other rights for new files the second time."""
    mirror = debian.host_mirror()
    sums = []
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            with bootstrap.work_folder(tmp_path) as folder:
                tar = bootstrap.make_tar("bookworm", bases.apt_sources(), folder, mirror=mirror)
                sums.append(hashlib.sha256(tar.read_bytes()).hexdigest())
        finally:
            os.umask(before)
    assert sums[0] == sums[1]
    # What is left is the folder for such folders, empty but for its gate.
    assert [path.name for path in (tmp_path / "bootstrap").iterdir() if path.is_dir()] == []


def test_a_second_call_reuses_it(engine: Engine, base: str) -> None:
    before = engine.inspect(base)
    said: list[str] = []
    assert bases.base_context("bookworm", engine, say=said.append) == bases.CONTEXT_SCHEME + base
    assert said == []
    assert engine.inspect(base) == before


def test_a_registry_base_out_of_reach_falls_back_to_packages(engine: Engine, base: str) -> None:
    said: list[str] = []
    gone = "docker-image://localhost:1/debian@sha256:" + "0" * 64
    assert bases.base_context("bookworm", engine, registry=gone, say=said.append) == bases.CONTEXT_SCHEME + base
    assert "cannot be reached" in said[0]


def test_a_build_installs_packages_through_secrets_that_leave_no_trace(
    engine: Engine, base: str, tmp_path: Path
) -> None:
    """Over the engine's own network: names resolve, mirrors answer, signatures hold."""
    name = f"cardstock/test-host:apt-{uuid.uuid4().hex[:12]}"
    (tmp_path / "sources").write_text(bases.apt_sources())
    apt = "apt-get -o Dir::Etc::SourceList=/run/secrets/apt -o APT::Sandbox::User=root"
    (tmp_path / "Dockerfile").write_text(
        f"FROM base\nRUN --mount=type=secret,id=apt {apt} -q update --error-on=any \\\n"
        f" && {apt} -q -y install --no-install-recommends tini \\\n"
        " && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*\n"
    )
    bake = {
        "target": {
            "apt": {
                "context": str(tmp_path),
                "contexts": {"base": bases.CONTEXT_SCHEME + base},
                "secret": [f"id=apt,src={tmp_path / 'sources'}"],
                "tags": [name],
                "output": ["type=docker"],
                "no-cache": True,
            }
        }
    }
    (tmp_path / "bake.json").write_text(json.dumps(bake))
    argv = ["docker", "buildx", "bake", "--progress=plain", "-f", str(tmp_path / "bake.json"), "apt"]
    try:
        process.run(argv, env=engine.cli_env(), timeout=300)
        assert "tini version" in engine.run(name, ["tini", "--version"]).out
        archive = next(line.split()[2] for line in (tmp_path / "sources").read_text().splitlines())
        host = archive.split("/")[2]
        found = engine.run(name, ["grep", "-rlF", host, "/etc/apt", "/var", "/root", "/run"], check=False)
        assert (found.code, found.out) == (1, "")
    finally:
        engine.untag(name, force=True)


def test_a_port_published_on_loopback_answers(engine: Engine, base: str) -> None:
    """With perl, which every Debian base has, as the server."""
    server = (
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 8000, Listen => 5, ReuseAddr => 1) or die;"
        "while (my $c = $s->accept) { while (<$c>) { last if /^\\s*$/ }"
        'print $c "HTTP/1.0 200 OK\\r\\n\\r\\nhello"; close $c }'
    )
    ports: dict[str, tuple[str, int]] = {"8000/tcp": ("127.0.0.1", 0)}
    container = engine._client.containers.run(
        base, ["perl", "-e", server], ports=ports, labels={"dev.cardstock.run": "test"}, detach=True
    )
    try:
        container.reload()
        published = container.ports["8000/tcp"]
        assert published is not None
        url = f"http://127.0.0.1:{published[0]['HostPort']}/"
        said = ""
        end = time.monotonic() + 20
        while said != "hello":
            assert time.monotonic() < end, said
            said = get(url)
    finally:
        container.remove(force=True)


def get(url: str) -> str:
    """The answer, or why there is none yet."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError as error:
        time.sleep(0.2)
        return str(error)
