"""Bases and what a host lends a build, without an engine, a mirror or root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from images.core import debian
from images.core.debian import Mirror
from images.core.errors import EngineUnreachable, RegistryFailure, Unsafe
from images.core.home import Layout
from images.core.site import SiteSettings
from images.docker import base_image as bases
from images.docker import bootstrap
from images.docker.engine import Engine

DIGEST = "docker-image://debian@sha256:" + "a" * 64
MIRROR = Mirror("bookworm", "http://mirror.example/debian", "http://mirror.example/debian-security")


class FakeEngine:
    """Holds images by name, reaches the registry or not."""

    def __init__(self, *images: str, reachable: bool = False) -> None:
        self.held = set(images)
        self.registry = reachable
        self.imported: list[tuple[str, tuple[str, ...]]] = []

    def inspect(self, reference: str) -> object | None:
        return SimpleNamespace(size=73_000_000) if reference in self.held else None

    def registry_digest(self, reference: str) -> str | None:
        return "sha256:" + "a" * 64 if self.registry else None

    def import_tar(self, source: Path, reference: str, changes: tuple[str, ...]) -> object:
        assert source.read_bytes() == b"tar"
        self.imported.append((reference, changes))
        self.held.add(reference)
        return self.inspect(reference)


def context(fake: FakeEngine, tmp_path: Path, **options: object) -> str:
    make = cast(Callable[..., str], bases.base_context)
    return make("bookworm", cast(Engine, fake), layout=Layout(tmp_path), **options)


@pytest.fixture
def bootstraps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As root on Debian, with a bootstrap that takes no time; the releases it made."""
    made: list[str] = []

    def make_tar(release: str, sources: str, folder: Path, **_: object) -> Path:
        made.append(release)
        assert sources == "".join(f"{line}\n" for line in MIRROR.lines(release))
        (folder / "base.tar").write_bytes(b"tar")
        return folder / "base.tar"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "host_mirror", lambda: MIRROR)
    monkeypatch.setattr(bootstrap, "make_tar", make_tar)
    return made


def left_over(home: Path) -> list[Path]:
    """What lies in a state folder, but for locks and the gate of work folders."""
    return [path for path in home.rglob("*") if path.is_file() and path.parent.name != "locks" and path.name != ".gate"]


def test_a_registry_base_is_taken_where_it_can_be_reached(tmp_path: Path, bootstraps: list[str]) -> None:
    assert context(FakeEngine(reachable=True), tmp_path, registry=DIGEST) == DIGEST
    assert context(FakeEngine(DIGEST.removeprefix("docker-image://")), tmp_path, registry=DIGEST) == DIGEST
    assert bootstraps == []


@pytest.mark.parametrize("reference", ["docker-image://debian:bookworm-slim", "debian"])
def test_a_registry_base_without_a_digest_is_refused(tmp_path: Path, reference: str) -> None:
    with pytest.raises(Unsafe, match="without a digest") as caught:
        context(FakeEngine(reachable=True), tmp_path, registry=reference)
    assert caught.value.exit_code == 7


def test_out_of_reach_it_is_made_from_packages_once(tmp_path: Path, bootstraps: list[str]) -> None:
    fake = FakeEngine()
    said: list[str] = []
    first = context(fake, tmp_path, registry=DIGEST, say=said.append)
    assert first == f"docker-image://cardstock/base:bookworm-{bases.recipe_hash('bookworm')}"
    assert "cannot be reached" in said[0]
    assert context(fake, tmp_path) == first
    assert bootstraps == ["bookworm"]
    assert context(fake, tmp_path, refresh=True) == first
    assert bootstraps == ["bookworm", "bookworm"]
    assert not left_over(tmp_path), "the work folder is gone"


def test_a_bootstrap_that_breaks_leaves_nothing(
    tmp_path: Path, bootstraps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Path:
        raise RegistryFailure("no mirror")

    monkeypatch.setattr(bootstrap, "make_tar", broken)
    fake = FakeEngine()
    with pytest.raises(RegistryFailure):
        context(fake, tmp_path)
    assert (fake.held, left_over(tmp_path)) == (set(), [])


@pytest.mark.parametrize(("uid", "mirror"), [(1000, MIRROR), (0, None)])
def test_neither_registry_nor_root_on_debian_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, mirror: Mirror | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(debian, "host_mirror", lambda: mirror)
    with pytest.raises(EngineUnreachable, match=r"(?s)needs root and a Debian host.*sudo"):
        context(FakeEngine(), tmp_path)


def test_elsewhere_the_sites_own_sources_and_ca_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, ca = tmp_path / "sources", tmp_path / "ca.pem"
    own.write_text("deb https://inside.example/debian bookworm main\n")
    given: list[object] = []

    def make_tar(release: str, sources: str, folder: Path, **others: object) -> Path:
        given.extend([release, sources, others["mirror"], others["ca"]])
        (folder / "base.tar").write_bytes(b"tar")
        return folder / "base.tar"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "host_mirror", lambda: None)
    monkeypatch.setattr(bootstrap, "make_tar", make_tar)
    context(FakeEngine(), tmp_path / "home", site=SiteSettings(apt=own, ca=ca))
    assert given == ["bookworm", own.read_text(), None, ca]


def test_the_name_follows_from_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bases.local_reference("bookworm")
    assert before != bases.local_reference("trixie").replace("trixie", "bookworm")
    monkeypatch.setattr(bootstrap, "EPOCH", bootstrap.EPOCH + 1)
    assert bases.local_reference("bookworm") != before


def test_apt_sources_are_the_hosts_or_the_sites_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "host_mirror", lambda: MIRROR)
    assert bases.apt_sources("trixie", "non-free").splitlines() == list(MIRROR.lines("trixie", "non-free"))
    own = tmp_path / "sources"
    own.write_text("deb http://inside.example/debian bookworm main\n")
    assert bases.apt_sources(own=own) == own.read_text()
    monkeypatch.setattr(debian, "host_mirror", lambda: None)
    assert bases.apt_sources() == ""


def test_the_ca_bundle_is_the_sites_then_the_environments_then_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, named, host = (tmp_path / name for name in ("own", "named", "host"))
    monkeypatch.setattr(bases, "HOST_CA", host)
    assert bases.ca_bundle(environment={}) is None
    for path in (own, named, host):
        path.write_text("pem")
    assert bases.ca_bundle(environment={"PATH": "/bin"}) == host
    assert bases.ca_bundle(environment={"SSL_CERT_FILE": str(tmp_path / "gone"), "PIP_CERT": str(named)}) == named
    assert bases.ca_bundle(own, {"SSL_CERT_FILE": str(named)}) == own
