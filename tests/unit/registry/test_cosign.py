"""Signing and verifying: what cosign is asked, and what its refusals become. cosign itself runs in tests/engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.commands.publish import PublishOptions
from images.commands.pull import PullOptions
from images.core.errors import CardstockError, RegistryFailure, Unsafe, UsageError
from images.distribution import provenance
from images.registry import cosign
from images.registry.cosign import PASSWORD, Cosign, Identity
from tests.helpers.catalogues import SM75 as VARIANT
from tests.helpers.catalogues import image
from tests.helpers.contexts import context

DIGEST = image(VARIANT).digest


VERSIONS = {  # what `cosign version` names, and the flags of `cosign sign` beside those of every version
    "2.0": ("v2.0.2", "--tlog-upload"),
    "2.5": ("v2.5.3", "--tlog-upload"),
    "2.5 of Debian": ("devel", "--tlog-upload"),
    "2.6": ("v2.6.3", "--tlog-upload --new-bundle-format --use-signing-config"),
    "3.0": ("v3.0.2", "--tlog-upload --new-bundle-format --use-signing-config"),
    "3.1": ("3.1.2-3-gd6d86c22", "--tlog-upload --new-bundle-format --use-signing-config"),
    "3.1 of Debian": ("devel", "--tlog-upload --new-bundle-format --use-signing-config"),
}
LEARNED = ("2.6", "3.0", "3.1", "3.1 of Debian")
FORM = ["--new-bundle-format=false", "--use-signing-config=false"]
# A program in cosign's place: it tells its version, writes down how else it was called, knows the flags that it has,
# and like 3.x refuses a key that stays out of the public log beside a signing config. What it says and exits with
# stand in the folder.
PROGRAM = """#!/bin/sh
folder=$(dirname "$0")
[ "$1" = version ] && { echo "GitVersion:    {version}"; exit 0; }
case "$*" in *--help*) echo "{flags}"; exit 0;; esac
echo "$@" >>"$folder/called"
for word; do
    case "${word%%=*}" in --tlog-upload|--new-bundle-format|--use-signing-config)
        case " {flags} " in *" ${word%%=*} "*) ;; *) echo "Error: unknown flag: $word" >&2; exit 1;; esac;;
    esac
done
case "$1 $* {version} {flags}" in
    *sign*--use-signing-config=false*) ;;
    "sign "*--tlog-upload=false*3.*--use-signing-config*)
        echo "Error: --tlog-upload=false is not supported with --signing-config or --use-signing-config" >&2; exit 1;;
esac
cat "$folder/says" >&2
exit $(cat "$folder/code")
"""


class Fake:
    """A program in cosign's place that writes down how it was called, says something, and exits."""

    def __init__(
        self, folder: Path, says: str = "", code: int = 0, version: str = "2.5", ca: Path | None = None
    ) -> None:
        self.file = folder / "called"
        self.program = folder / "cosign"
        named, flags = VERSIONS.get(version, (version, ""))
        self.program.write_text(PROGRAM.replace("{version}", named).replace("{flags}", flags))
        self.program.chmod(0o755)
        (folder / "says").write_text(says + "\n" if says else "")
        (folder / "code").write_text(str(code))
        self.cosign = Cosign(str(self.program), {PASSWORD: "x"}, ca)

    @property
    def called(self) -> list[str]:
        return self.file.read_text().split()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "cosign.key"
    path.write_text("a key")
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_signing_by_key_leaves_the_public_log_alone(tmp_path: Path, key: Path, version: str) -> None:
    fake = Fake(tmp_path, version=version)
    fake.cosign.sign("r.example.com/x", DIGEST, key)
    form = FORM if version in LEARNED else []
    assert fake.called == [
        *("sign", "--yes", *form),
        *("--key", str(key), "--tlog-upload=false", f"r.example.com/x@{DIGEST}"),
    ]


def test_the_public_key_of_a_private_one(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(tmp_path)
    assert fake.cosign.public_key(key) == ""  # this one prints nothing
    assert fake.called == ["public-key", "--key", str(key)]
    with pytest.raises(UsageError, match="cannot use the key"):
        Fake(tmp_path, "decrypt: wrong password", code=1).cosign.public_key(key)
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(UsageError, match="the password of"):
        Cosign(str(fake.program)).public_key(key)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_said_of_an_image_is_signed_in_the_same_way(tmp_path: Path, key: Path, version: str) -> None:
    fake = Fake(tmp_path, version=version)
    fake.cosign.attest("r.example.com/x", DIGEST, "cyclonedx", tmp_path / "bill.json", key)
    assert fake.called[0] == "attest"
    assert [word for word in fake.called if word in FORM] == (FORM if version in LEARNED else [])
    assert "--tlog-upload=false" in fake.called


@pytest.mark.parametrize("version", VERSIONS)
def test_signing_as_a_ci_job_names_no_key(tmp_path: Path, version: str) -> None:
    fake = Fake(tmp_path, version=version)
    fake.cosign.sign("r.example.com/x", DIGEST, None)
    form = FORM if version in LEARNED else []
    assert fake.called == ["sign", "--yes", *form, f"r.example.com/x@{DIGEST}"]


@pytest.mark.parametrize("version", ["v1.13.6", "v4.0.0"])
def test_a_cosign_that_cannot_stay_out_of_the_log_is_refused(tmp_path: Path, key: Path, version: str) -> None:
    fake = Fake(tmp_path, version=version)
    with pytest.raises(CardstockError, match="without the public log") as caught:
        fake.cosign.sign("r.example.com/x", DIGEST, key)
    assert caught.value.exit_code == 1
    assert "2.x or 3.x" in caught.value.do
    assert "1.13" in caught.value.cause or "unknown flag: --tlog-upload" in caught.value.cause


def test_a_program_that_cannot_be_run(tmp_path: Path, key: Path) -> None:
    for program in (tmp_path / "nothing", key):
        with pytest.raises(CardstockError, match="cosign cannot be run") as caught:
            Cosign(str(program), {PASSWORD: "x"}).verify("r.example.com/x", DIGEST, key)
        assert caught.value.exit_code == 1


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


@pytest.mark.parametrize("version", VERSIONS)
def test_a_signature_is_looked_for_in_each_form_that_this_cosign_reads(tmp_path: Path, key: Path, version: str) -> None:
    fake = Fake(tmp_path, NO_SIGNATURE, 10, version)
    with pytest.raises(Unsafe, match="is not signed by this signer"):
        fake.cosign.verify("r.example.com/x", DIGEST, key)
    forms = [word for word in fake.called if word.startswith("--new-bundle-format")]
    assert forms == (["--new-bundle-format=false", "--new-bundle-format=true"] if version in LEARNED else [])


def test_a_signature_that_does_not_match_is_not_looked_for_in_another_form(tmp_path: Path, key: Path) -> None:
    fake = Fake(tmp_path, NO_MATCH, 12, "3.1")
    with pytest.raises(Unsafe):
        fake.cosign.verify("r.example.com/x", DIGEST, key)
    assert fake.called.count("verify") == 1


def test_the_sites_ca_reaches_cosign(tmp_path: Path, key: Path) -> None:
    fake = Fake(tmp_path, ca=tmp_path / "ca.pem")
    script = '[ $1 = version ] && exec echo GitVersion: v3.0.2\necho "$SSL_CERT_FILE" >>"$(dirname "$0")/called"\n'
    fake.program.write_text(f"#!/bin/sh\n{script}")
    fake.cosign.verify("r.example.com/x", DIGEST, key)
    fake.cosign.sign("r.example.com/x", DIGEST, key)
    assert set(fake.called) == {str(tmp_path / "ca.pem")}


@pytest.mark.parametrize("command", ["pull", "publish"])
def test_the_commands_hand_the_sites_ca_to_cosign(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("a bundle")
    fake = Fake(tmp_path)
    script = '[ $1 = version ] && exec echo GitVersion: v3.0.2\necho "$SSL_CERT_FILE" >>"$(dirname "$0")/called"\n'
    fake.program.write_text(f"#!/bin/sh\n{script}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv(PASSWORD, "x")
    made = context(environment={"CARDSTOCK_CA": str(ca)})
    options = PullOptions(key=str(key)) if command == "pull" else PublishOptions(key=str(key))
    keys = options.keys(made)
    assert keys is not None
    keys.cosign.verify("r.example.com/x", DIGEST, key)
    assert fake.called == [str(ca)]


def test_a_password_is_never_asked_for(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(UsageError, match=r"password of .* is not known"):
        Cosign(str(Fake(tmp_path).program)).sign("r.example.com/x", DIGEST, key)


# What cosign 2.5.0 and 3.1.1 said when they were tried, and what Go's HTTP client says of each fault.
NO_SIGNATURE = "Error: no signatures found"
NO_MATCH = "Error: no matching signatures: invalid signature when validating ASN.1 encoded signature"
NO_MATCH_NEW = "Error: no matching attestations: failed to verify signature: could not verify envelope"
NO_CERTIFICATE = "Error: no certificate found on signature"
URL = "https://r.example.com/v2/x/manifests/sha256-1.sig"
REGISTRY_FAILED = [
    f"Error: GET {URL}: UNAUTHORIZED: authentication required; [map[Action:pull Class: Name:x Type:repository]]",
    f"Error: GET {URL}: unexpected status code 401 Unauthorized",
    f"Error: GET {URL}: DENIED: requested access to the resource is denied",
    f"Error: GET {URL}: unexpected status code 500 Internal Server Error",
    f"Error: GET {URL}: unexpected status code 503 Service Unavailable: <html>",
    f"Error: GET {URL}: TOOMANYREQUESTS: You have reached your pull rate limit",
    'Error: Get "https://r.example.com/v2/": dial tcp: lookup r.example.com on 127.0.0.53:53: no such host',
    'Error: Get "https://r.example.com/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    'Error: Get "https://r.example.com/v2/": tls: failed to verify certificate: x509: certificate signed by unknown '
    "authority",
    'Error: Get "https://r.example.com/v2/": context deadline exceeded',
    'Error: getting Rekor public keys: updating local metadata: Get "https://tuf.example/13.root.json": EOF',
    f"Error: no matching signatures: GET {URL}: unexpected status code 502 Bad Gateway",
    "Error: something that nobody has seen yet",
    "",
]


def told(folder: Path, verb: str, says: str, code: int, key: Path | None, version: str = "3.1") -> CardstockError:
    """What a failure of cosign's comes to."""
    said = f"WARNING: noise\n{says}\n{says.replace('Error', 'error during command execution', 1)}"
    fake = Fake(folder, said, code, version)
    with pytest.raises(CardstockError) as caught:
        if verb == "verify":
            fake.cosign.verify("r.example.com/x", DIGEST, key or Identity("x"))
        else:
            fake.cosign.sign("r.example.com/x", DIGEST, key)
    return caught.value


@pytest.mark.parametrize(
    "says, code", [(NO_SIGNATURE, 10), (NO_SIGNATURE, 1), (NO_MATCH, 12), (NO_MATCH_NEW, 1), (NO_CERTIFICATE, 13)]
)
def test_what_is_not_signed(tmp_path: Path, key: Path, says: str, code: int) -> None:
    error = told(tmp_path, "verify", says, code, key)
    assert isinstance(error, Unsafe)
    assert error.cause == says


@pytest.mark.parametrize("code", [1, 12])
@pytest.mark.parametrize("says", REGISTRY_FAILED[:-2])
def test_a_registry_that_fails_is_never_called_not_signed(tmp_path: Path, key: Path, says: str, code: int) -> None:
    for signer in (key, None):
        error = told(tmp_path, "verify", says, code, signer)
        assert (type(error), error.exit_code) == (RegistryFailure, 6)
        assert "could not be found out" in error.what
        assert error.cause == says


@pytest.mark.parametrize("says", REGISTRY_FAILED)
def test_what_is_not_known_to_mean_not_signed_is_not_called_so(tmp_path: Path, key: Path, says: str) -> None:
    assert told(tmp_path, "verify", says, 1, key).exit_code == 6


def test_a_cosign_that_never_ends(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(tmp_path)
    monkeypatch.setattr(cosign, "_SECONDS", 0.2)
    fake.program.write_text('#!/bin/sh\n[ "$1" = version ] && exec echo GitVersion: v2.5.0\nexec sleep 60\n')
    with pytest.raises(RegistryFailure, match="could not be found out") as caught:
        fake.cosign.verify("r.example.com/x", DIGEST, key)
    assert "no end after 0.2 s" in caught.value.cause


@pytest.mark.parametrize(
    "verb, says, kind",
    [
        ("verify", "Error: loading public key: pem to public key: PEM decoding failed", UsageError),
        ("sign", "Error: signing x: getting signer: reading key: decrypt: encrypted: decryption failed", UsageError),
        (
            "sign",
            "Error: signing x: getting signer: reading key: open cosign.key: no such file or directory",
            UsageError,
        ),
        ("sign", f"Error: signing x: PUT {URL}: unexpected status code 500", RegistryFailure),
        ("sign", f"Error: signing x: POST {URL}: DENIED: no such file in this registry", RegistryFailure),
        ("sign", "Error: unknown flag: --tlog-upload", CardstockError),
        ("verify", "Error: unknown flag: --insecure-ignore-tlog", CardstockError),
    ],
)
def test_refusals_keep_their_kind(tmp_path: Path, key: Path, verb: str, says: str, kind: type[CardstockError]) -> None:
    error = told(tmp_path, verb, says, 1, key, "2.5")
    assert type(error) is kind
    assert error.cause == says


def test_what_a_registry_says_reaches_no_terminal_as_it_is(tmp_path: Path, key: Path) -> None:
    error = told(tmp_path, "verify", f"Error: GET {URL}: DENIED: \x1b[31mred{'x' * 5000}", 1, key)
    assert "\x1b" not in error.cause
    assert len(error.cause) < 1000


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
