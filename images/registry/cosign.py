"""Signatures with cosign: made by key (or without one, by an identity, in CI), and verified by either.

cosign runs as a process; where there is none, it is taken from Debian's package, as the embedded engine's parts are. A
key signs without the public transparency log: an image of a private registry is nobody else's business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from images.core import CardstockError, RegistryFailure, Unsafe, UsageError, process
from images.registry.address import is_loopback
from images.registry.cosign_program import CosignFlags, flags_of, unfit
from images.registry.cosign_program import find_cosign as find_cosign
from images.registry.response import printable

_SECONDS = 300.0
PASSWORD = "COSIGN_PASSWORD"  # noqa: S105 - the name of the variable that holds it
_CA = "SSL_CERT_FILE"  # Go's own variable: for the registry, and for the services that vouch for identities

# Exit codes of `cosign verify` (cmd/cosign/errors/exit_codes.go): no signature, none that matches, one without a
# certificate. What it finds in signatures of the newer form ends with 1, and these words.
_NO_SIGNATURE = 10
_NOT_SIGNED = (_NO_SIGNATURE, 12, 13)
_NOT_SIGNED_WORDS = ("no signatures found", "no matching signatures", "no matching attestations")
# How Go's HTTP client and go-containerregistry begin what a request ended with. It may stand inside "no matching
# signatures", where a signature is listed and its blob cannot be had.
_REQUEST_FAILED = re.compile(r'\b(?:get|head|put|post|patch) "?https?://', re.IGNORECASE)
_KEY_WORDS = ("decrypt", "reading key", "no such file", "loading public key", "getting signer", "pem")
_FLAG_WORDS = ("unknown flag", "unknown shorthand flag", "tlog-upload=false is not supported")
_NOISE = ("WARNING", "Flag --", "error during command execution:")


@dataclass(frozen=True)
class Identity:
    """Who signed without a key: a regular expression on the identity (a workflow's URL), and who vouched for it."""

    pattern: str
    issuer: str = "https://token.actions.githubusercontent.com"


class Cosign:
    """Signs and verifies what a repository has by digest.

    ``environment`` is added to this process's own. ``ca`` is a bundle of certificate authorities, for all that cosign
    asks.
    """

    def __init__(self, program: str, environment: Mapping[str, str] | None = None, ca: Path | None = None) -> None:
        self._program = program
        self._environment = dict(environment or {})
        if ca:
            self._environment[_CA] = str(ca)

    @cached_property
    def _flags(self) -> CosignFlags:
        return flags_of(self._program)

    def sign(self, repository: str, digest: str, key: Path | None) -> None:
        """Sign ``repository@digest`` with a key, or by the identity of the CI job that this is.

        The key's password is that of $COSIGN_PASSWORD. Raises UsageError for a key that cannot be used, RegistryFailure
        when the signature cannot be written, CardstockError for a cosign that cannot sign without the public log.
        """
        self._sign("sign", [], repository, digest, key)

    def public_key(self, key: Path) -> str:
        """The public key of a private one, as PEM. Raises UsageError for a key that cannot be used."""
        self._need_password(key)
        try:
            return process.run([self._program, "public-key", "--key", str(key)], env=self._environment).out
        except process.ProcessFailed as error:
            self._refuse_program(error)
            raise UsageError(
                f"cosign cannot use the key {key}", cause=_last(error), do=f"see the path and {PASSWORD}"
            ) from error

    def attest(self, repository: str, digest: str, kind: str, predicate: Path, key: Path | None) -> None:
        """Sign what a file says of ``repository@digest`` ("cyclonedx", "slsaprovenance1"), as `sign` does.

        Said again, it takes the place of what was said before.
        """
        how = ["--type", kind, "--predicate", str(predicate), "--replace"]
        self._sign("attest", how, repository, digest, key)

    def _sign(self, verb: str, more: Sequence[str], repository: str, digest: str, key: Path | None) -> None:
        how = ["--yes", *more, *self._flags.sign]
        if key is not None:
            self._need_password(key)
            how += ["--key", str(key), "--tlog-upload=false"]
        try:
            self._run(verb, how, repository, digest)
        except process.ProcessFailed as error:
            self._refuse_program(error)
            if key is not None and _says(error, _KEY_WORDS) and not _REQUEST_FAILED.search(error.tail):
                raise UsageError(
                    f"cosign cannot use the key {key}", cause=_last(error), do=f"see the path and {PASSWORD}"
                ) from error
            raise RegistryFailure(
                f"{repository}: no signature could be written",
                cause=_last(error),
                do="see that the registry answers and that this login may write; run the same again",
            ) from error

    def _need_password(self, key: Path) -> None:
        if PASSWORD not in self._environment and PASSWORD not in os.environ:
            raise UsageError(f"the password of {key} is not known", do=f"set {PASSWORD} (empty for a key without one)")

    def verify(self, repository: str, digest: str, signer: Path | Identity) -> None:
        """Hold ``repository@digest`` against a public key, or an identity.

        Raises Unsafe where no signature of this signer is on it, RegistryFailure where that cannot be found out,
        UsageError for a key that is none.
        """
        if isinstance(signer, Identity):
            how = ["--certificate-identity-regexp", signer.pattern, "--certificate-oidc-issuer", signer.issuer]
        elif signer.is_file():
            how = ["--key", str(signer), "--insecure-ignore-tlog=true"]
        else:
            raise UsageError(f"there is no key {signer}", do="give the public key's file (cosign.pub)")
        *before, last = self._flags.verify
        for form in before:
            try:
                return self._run("verify", [*how, *form], repository, digest)
            except process.ProcessFailed as error:
                if error.code != _NO_SIGNATURE:
                    raise self._not_verified(error, repository, digest, signer) from error
        try:
            return self._run("verify", [*how, *last], repository, digest)
        except process.ProcessFailed as error:
            raise self._not_verified(error, repository, digest, signer) from error

    def _not_verified(
        self, error: process.ProcessFailed, repository: str, digest: str, signer: Path | Identity
    ) -> CardstockError:
        """What a failed `verify` comes to. What is not known to mean "not signed" is not called so."""
        self._refuse_program(error)
        asked = bool(_REQUEST_FAILED.search(error.tail))
        if not asked and (error.code in _NOT_SIGNED or _says(error, _NOT_SIGNED_WORDS)):
            return Unsafe(
                f"{repository}@{digest} is not signed by this signer",
                cause=_last(error),
                do="do not use it; or see that key or identity is the publisher's (cosign before 3 does not see what "
                "cosign 3 signs in its newer form)",
                where=str(signer.pattern if isinstance(signer, Identity) else signer),
            )
        if not asked and isinstance(signer, Path) and _says(error, _KEY_WORDS):
            return UsageError(
                f"{signer} is no public key that cosign reads",
                cause=_last(error),
                do="give the publisher's public key (cosign.pub)",
            )
        return RegistryFailure(
            f"{repository}: whether {digest} is signed could not be found out",
            cause=_last(error),
            do="see that the registry answers, that its login and its certificate are right (docker login, "
            "CARDSTOCK_CA); run the same again",
            where=repository.partition("/")[0],
        )

    def _refuse_program(self, error: process.ProcessFailed) -> None:
        """Raise CardstockError where it was the program: it cannot be run, or does not know its flags."""
        if error.code in (126, 127) or _says(error, _FLAG_WORDS):
            raise unfit(self._program, _last(error)) from error

    def _run(self, verb: str, how: Sequence[str], repository: str, digest: str) -> None:
        argv = [self._program, verb, *how]
        if is_loopback(repository.partition("/")[0]):
            argv += ["--allow-http-registry"]
        process.run([*argv, f"{repository}@{digest}"], env=self._environment, timeout=_SECONDS)


def _says(error: process.ProcessFailed, words: Sequence[str]) -> bool:
    said = error.tail.lower()
    return any(word in said for word in words)


def _last(error: process.ProcessFailed) -> str:
    """What cosign said in the end, without its warnings; what a registry said stands in it."""
    lines = [line for line in error.tail.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(_NOISE)] or lines
    return "\n".join(printable(line) for line in kept[-3:])
