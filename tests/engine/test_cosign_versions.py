"""Real cosigns, Debian's of this release and of its newest, against a real registry and one that fails."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.core import debian, process
from images.core.errors import CardstockError, RegistryFailure, Unsafe, UsageError
from images.core.home import default_layout
from images.registry.client import Repository
from images.registry.cosign import PASSWORD, Cosign, Identity, find_cosign
from images.registry.cosign_program import NEW, OLD, flags_of
from images.registry.descriptor import Blob, digest_of
from images.registry.oci_image import CONFIG, make_manifest
from tests.engine.real_registry import RealRegistry
from tests.helpers.registries import Asked, Reply
from tests.helpers.registries import registry as fake_registry
from tests.unit.registry.test_transport import certificate_of_its_own, server

# The newest release of Debian has had cosign 2.5, the one in the making 3.1.
NEWEST = "sid"
NOWHERE = "http://127.0.0.1:9"  # what leaves this machine: no public log, no service of keys


def newest() -> str:
    """Debian's newest cosign, unpacked once; skips where it cannot be had."""
    place = default_layout().home / "test" / f"cosign-{NEWEST}"
    program = place / "usr/bin/cosign"
    mirror = debian.host_mirror()
    if program.is_file():
        return str(program)
    if mirror is None:
        pytest.skip("this host's apt names no Debian archive to take cosign from: not run here")
    work = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        apt = debian.PrivateApt(work / "apt", mirror.lines(NEWEST))
        apt.update()
        debian.unpack(apt.download(["cosign"], work / "debs"), work / "out")
        (work / "out").rename(place)
    except CardstockError as error:
        pytest.skip(f"Debian's archive gives no cosign of {NEWEST}: not run here ({error.what})")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return str(program)


@dataclass(frozen=True)
class Signer:
    """A pair of keys, and both cosigns."""

    folder: Path
    programs: tuple[str, str]

    def cosign(self, number: int, ca: Path | None = None) -> Cosign:
        environment = {PASSWORD: "of a test", "HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE, "HOME": str(self.folder)}
        return Cosign(self.programs[number], environment, ca)

    @property
    def private(self) -> Path:
        return self.folder / "cosign.key"

    @property
    def public(self) -> Path:
        return self.folder / "cosign.pub"


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    folder = tmp_path_factory.mktemp("keys")
    programs = (find_cosign(say=print), newest())
    process.run([programs[0], "generate-key-pair"], cwd=folder, env={PASSWORD: "of a test"})
    return Signer(folder, programs)


@pytest.fixture
def image(registry: RealRegistry, tmp_path: Path) -> tuple[str, str]:
    """A repository, and the digest of an image in it."""
    repository = Repository(f"{registry.host}/team/x")
    config = tmp_path / "config"
    config.write_text('{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}')
    digest = digest_of(config.read_bytes())
    repository.upload(config, digest)
    raw = make_manifest(Blob(CONFIG, digest, config.stat().st_size), [])
    return repository.name, repository.put_manifest(raw, digest_of(raw))


def test_the_flags_are_found_where_no_version_is_named(signer: Signer) -> None:
    assert flags_of(signer.programs[0]) == OLD
    assert flags_of(signer.programs[1]) == NEW


@pytest.mark.parametrize("signs", [0, 1])
def test_each_reads_what_the_other_signed_without_the_public_log(
    signer: Signer, image: tuple[str, str], tmp_path: Path, signs: int
) -> None:
    (tmp_path / "predicate.json").write_text("{}")
    cosign = signer.cosign(signs)
    for reads in (0, 1):
        with pytest.raises(Unsafe, match="is not signed by this signer"):
            signer.cosign(reads).verify(*image, signer.public)
    cosign.attest(*image, "cyclonedx", tmp_path / "predicate.json", signer.private)
    cosign.sign(*image, signer.private)
    process.run(
        [signer.programs[0], "generate-key-pair", "--output-key-prefix", "other"], cwd=tmp_path, env={PASSWORD: "x"}
    )
    for reads in (0, 1):
        signer.cosign(reads).verify(*image, signer.public)
        with pytest.raises(Unsafe):
            signer.cosign(reads).verify(*image, tmp_path / "other.pub")


def test_what_cosign_3_signs_in_its_own_form_is_read_by_it(
    signer: Signer, image: tuple[str, str], tmp_path: Path
) -> None:
    config = tmp_path / "signing.json"
    config.write_text('{"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}')
    reference = f"{image[0]}@{image[1]}"
    argv = [
        signer.programs[1],
        "sign",
        "--yes",
        "--key",
        str(signer.private),
        "--signing-config",
        str(config),
        reference,
    ]
    process.run(argv, env={PASSWORD: "of a test", "HTTPS_PROXY": NOWHERE, "HOME": str(tmp_path)})
    signer.cosign(1).verify(*image, signer.public)
    with pytest.raises(Unsafe, match="is not signed by this signer") as caught:
        signer.cosign(0).verify(*image, signer.public)
    assert "cosign before 3 does not see" in caught.value.do


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_registry_that_fails_is_told_as_one(signer: Signer, number: int, status: int) -> None:
    def rule(asked: Asked) -> Reply | None:
        return Reply(200, b"{}") if asked.path == "/v2/" and status != 401 else Reply(status, b"<html>")

    with fake_registry() as (host, shelf):
        shelf.rules.append(rule)
        for who in (signer.public, Identity("x")):
            with pytest.raises(RegistryFailure, match="could not be found out") as caught:
                signer.cosign(number).verify(f"{host}/team/x", digest_of(b"x"), who)
            assert caught.value.exit_code == 6
        with pytest.raises(RegistryFailure, match="no signature could be written"):
            signer.cosign(number).sign(f"{host}/team/x", digest_of(b"x"), signer.private)


@pytest.mark.parametrize("number", [0, 1])
def test_a_certificate_is_held_against_the_sites_bundle(signer: Signer, number: int, tmp_path: Path) -> None:
    certificate = certificate_of_its_own(tmp_path)
    with server(certificate) as (url, seen):
        name = f"{url.removeprefix('https://')}/team/x"
        with pytest.raises(RegistryFailure, match="could not be found out") as caught:
            signer.cosign(number).verify(name, digest_of(b"x"), signer.public)
        assert "x509" in caught.value.cause
        assert seen == []
        with pytest.raises(CardstockError):
            signer.cosign(number, certificate).verify(name, digest_of(b"x"), signer.public)
        assert [line for line, _, _ in seen if line.startswith("GET /v2/")]


@pytest.mark.parametrize("number", [0, 1])
def test_a_key_that_is_none(signer: Signer, number: int, image: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    with pytest.raises(UsageError):
        signer.cosign(number).verify(*image, tmp_path / "key")
    with pytest.raises(UsageError):
        signer.cosign(number).sign(*image, tmp_path / "key")
