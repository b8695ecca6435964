"""Signing and verifying: what cosign is asked, and what its refusals become. cosign itself runs in tests/engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.core.errors import CardstockError, RegistryFailure, Unsafe, UsageError
from images.distribution import provenance
from images.registry.cosign import PASSWORD, Cosign, Identity
from tests.helpers.catalogues import SM75 as VARIANT
from tests.helpers.catalogues import image

DIGEST = image(VARIANT).digest


class Fake:
    """A program in cosign's place that writes down how it was called, says something, and exits."""

    def __init__(self, folder: Path, says: str = "", code: int = 0) -> None:
        self.file = folder / "called"
        self.program = folder / "cosign"
        self.program.write_text(f"#!/bin/sh\necho \"$@\" >>{self.file}\necho '{says}' >&2\nexit {code}\n")
        self.program.chmod(0o755)
        self.cosign = Cosign(str(self.program), {PASSWORD: "x"})

    @property
    def called(self) -> list[str]:
        return self.file.read_text().split()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "cosign.key"
    path.write_text("a key")
    return path


def test_signing_by_key_leaves_the_public_log_alone(tmp_path: Path, key: Path) -> None:
    fake = Fake(tmp_path)
    fake.cosign.sign("r.example.com/x", DIGEST, key)
    assert fake.called == ["sign", "--yes", "--key", str(key), "--tlog-upload=false", f"r.example.com/x@{DIGEST}"]


def test_signing_as_a_ci_job_names_no_key(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.cosign.sign("r.example.com/x", DIGEST, None)
    assert fake.called == ["sign", "--yes", f"r.example.com/x@{DIGEST}"]


def test_only_this_machine_is_spoken_to_in_the_clear(tmp_path: Path, key: Path) -> None:
    fake = Fake(tmp_path)
    fake.cosign.verify("127.0.0.1:5000/x", DIGEST, key)
    assert "--allow-http-registry" in fake.called
    fake.file.unlink()
    fake.cosign.verify("r.example.com/x", DIGEST, key)
    assert "--allow-http-registry" not in fake.called


def test_verifying_by_identity_names_who_vouches(tmp_path: Path) -> None:
    fake = Fake(tmp_path)
    fake.cosign.verify("r.example.com/x", DIGEST, Identity("^https://github.com/o/r/"))
    assert fake.called[1:5] == [
        "--certificate-identity-regexp",
        "^https://github.com/o/r/",
        "--certificate-oidc-issuer",
        "https://token.actions.githubusercontent.com",
    ]


def test_a_password_is_never_asked_for(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(UsageError, match=r"password of .* is not known"):
        Cosign(str(Fake(tmp_path).program)).sign("r.example.com/x", DIGEST, key)


@pytest.mark.parametrize(
    "verb, says, kind",
    [
        ("verify", "Error: no matching signatures: invalid signature", Unsafe),
        ("verify", "Error: no signatures found", Unsafe),
        ("verify", "dial tcp: connection refused", RegistryFailure),
        ("sign", "reading key: decrypt: encrypted: decryption failed", UsageError),
        ("sign", "PUT: unexpected status code 500", RegistryFailure),
    ],
)
def test_refusals_keep_their_kind(tmp_path: Path, key: Path, verb: str, says: str, kind: type[CardstockError]) -> None:
    fake = Fake(tmp_path, f"WARNING: noise\n{says}", 1)
    with pytest.raises(kind) as caught:
        getattr(fake.cosign, verb)("r.example.com/x", DIGEST, key)
    assert caught.value.cause == says


def test_a_key_that_is_not_there_is_a_mistake_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no key"):
        Fake(tmp_path).cosign.verify("r.example.com/x", DIGEST, tmp_path / "cosign.pub")


# -- provenance


def test_provenance_names_commit_inputs_and_builder() -> None:
    run = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "7",
    }
    builder = provenance.builder_of(run)
    text = provenance.predicate(VARIANT, "1" * 64, "2" * 40, "2026-11-21T12:00:00Z", builder)
    assert builder.id == "https://github.com/o/r/actions/runs/7"
    for word in (VARIANT, "1" * 64, "2" * 40, builder.id, "git+https://github.com/o/r"):
        assert word in text
    assert provenance.builder_of({**run, "GITHUB_RUN_ID": ""}).id == "urn:cardstock:local"
    assert DIGEST[7:] in provenance.statement("r.example.com/x", DIGEST, text)
