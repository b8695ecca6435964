"""Signatures with cosign: made by key (or without one, by an identity, in CI), and verified by either.

cosign runs as a process; where there is none, it is taken from Debian's package, as the embedded engine's parts are. A
key signs without the public transparency log: an image of a private registry is nobody else's business.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import CardstockError, Layout, RegistryFailure, Unsafe, UsageError, debian, default_layout, process
from images.registry.address import is_loopback

# Debian's cosign starts with the release after bookworm; it needs nothing but libc, and runs on bookworm as well.
_SUITE = {"bookworm": "trixie"}
_SECONDS = 300.0
PASSWORD = "COSIGN_PASSWORD"  # noqa: S105 - the name of the variable that holds it
Say = Callable[[str], None]


def find_cosign(layout: Layout | None = None, say: Say = lambda _: None) -> str:
    """The program: of $PATH, or fetched once into $CARDSTOCK_HOME. Raises CardstockError with what to do."""
    if found := shutil.which("cosign"):
        return found
    layout = layout or default_layout()
    program = layout.home / "cosign" / "usr" / "bin" / "cosign"
    if not program.is_file():
        mirror = debian.host_mirror()
        if mirror is None:
            raise CardstockError(
                "cosign is not installed",
                cause="this host is not Debian, so it cannot be fetched",
                do="install cosign (https://docs.sigstore.dev/cosign), then run again",
            )
        say(f"fetching cosign from Debian's package into {program.parents[2]}")
        work = layout.home / "cosign.new"
        shutil.rmtree(work, ignore_errors=True)
        apt = debian.PrivateApt(work / "apt", mirror.lines(_SUITE.get(mirror.codename, mirror.codename)))
        apt.update()
        debian.unpack(apt.download(["cosign"], work / "debs"), work / "prefix")
        shutil.rmtree(program.parents[2], ignore_errors=True)
        os.replace(work / "prefix", program.parents[2])
        shutil.rmtree(work)
    return str(program)


@dataclass(frozen=True)
class Identity:
    """Who signed without a key: a regular expression on the identity (a workflow's URL), and who vouched for it."""

    pattern: str
    issuer: str = "https://token.actions.githubusercontent.com"


class Cosign:
    """Signs and verifies what a repository has by digest. ``environment`` is added to this process's own."""

    def __init__(self, program: str, environment: Mapping[str, str] | None = None) -> None:
        self._program = program
        self._environment = dict(environment or {})

    def sign(self, repository: str, digest: str, key: Path | None) -> None:
        """Sign ``repository@digest`` with a key, or by the identity of the CI job that this is.

        The key's password is that of $COSIGN_PASSWORD. Raises UsageError for a key that cannot be used, RegistryFailure
        when the signature cannot be written.
        """
        self._sign("sign", [], repository, digest, key)

    def attest(self, repository: str, digest: str, kind: str, predicate: Path, key: Path | None) -> None:
        """Sign what a file says of ``repository@digest`` ("cyclonedx", "slsaprovenance1"), as `sign` does.

        Said again, it takes the place of what was said before.
        """
        how = ["--type", kind, "--predicate", str(predicate), "--replace"]
        self._sign("attest", how, repository, digest, key)

    def _sign(self, verb: str, more: Sequence[str], repository: str, digest: str, key: Path | None) -> None:
        how = ["--yes", *more]
        if key is not None:
            if PASSWORD not in self._environment and PASSWORD not in os.environ:
                raise UsageError(
                    f"the password of {key} is not known", do=f"set {PASSWORD} (empty for a key without one)"
                )
            how += ["--key", str(key), "--tlog-upload=false"]
        try:
            self._run(verb, how, repository, digest)
        except process.ProcessFailed as error:
            if "decrypt" in error.tail or "reading key" in error.tail or "no such file" in error.tail:
                raise UsageError(
                    f"cosign cannot use the key {key}", cause=_last(error), do=f"see the path and {PASSWORD}"
                ) from error
            raise RegistryFailure(
                f"{repository}: no signature could be written",
                cause=_last(error),
                do="see that the registry answers and that this login may write; run the same again",
            ) from error

    def verify(self, repository: str, digest: str, signer: Path | Identity) -> None:
        """Hold ``repository@digest`` against a public key, or an identity.

        Raises Unsafe where no signature of this signer is on it, RegistryFailure where that cannot be found out.
        """
        if isinstance(signer, Identity):
            how = ["--certificate-identity-regexp", signer.pattern, "--certificate-oidc-issuer", signer.issuer]
        elif signer.is_file():
            how = ["--key", str(signer), "--insecure-ignore-tlog=true"]
        else:
            raise UsageError(f"there is no key {signer}", do="give the public key's file (cosign.pub)")
        try:
            self._run("verify", how, repository, digest)
        except process.ProcessFailed as error:
            said = _last(error)
            if any(word in error.tail for word in ("connection refused", "timeout", " 500 ", "TOOMANYREQUESTS", "EOF")):
                raise RegistryFailure(
                    f"{repository}: the registry did not give the signature of {digest}",
                    cause=said,
                    do="see that it answers, then run the same again",
                ) from error
            raise Unsafe(
                f"{repository}@{digest} is not signed by this signer",
                cause=said,
                do="do not use it; or see that it is the publisher's",
                where=str(signer.pattern if isinstance(signer, Identity) else signer),
            ) from error

    def _run(self, verb: str, how: Sequence[str], repository: str, digest: str) -> None:
        argv = [self._program, verb, *how]
        if is_loopback(repository.partition("/")[0]):
            argv += ["--allow-http-registry"]
        process.run([*argv, f"{repository}@{digest}"], env=self._environment, timeout=_SECONDS)


def _last(error: process.ProcessFailed) -> str:
    """What cosign said in the end, without its warnings."""
    lines = [line for line in error.tail.splitlines() if line.strip() and not line.startswith("WARNING")]
    return "\n".join(lines[-3:])
