"""Registries: manifests and blobs over the OCI distribution API. The only module that talks to one.

Logins are docker's own (config.json, credential helpers), token exchange is oras'. What comes back is bytes that have
the digest they were asked by, or an error; nothing half-written stays. Faults that pass (a reset connection, 429, 5xx)
are tried again, as long as the registry asks to wait, if it does.
"""

from __future__ import annotations

import email.utils
import hashlib
import ipaddress
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import oras.auth
import oras.container
import oras.logger
import requests

from images.core import RegistryFailure, Unsafe

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_ACCEPT = ", ".join(
    (
        MANIFEST,
        INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_HOST = re.compile(r"(?:[a-z0-9]+(?:[.-]+[a-z0-9]+)*|\[[0-9a-f:]+\])(?::\d{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_{1,2}|-+|/)[a-z0-9]+)*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PASSING = (408, 429, 500, 502, 503, 504)
ATTEMPTS = 6
_LONGEST_WAIT = 120.0
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
_CHUNK = 1 << 20
_MANIFEST_MAX = 4 << 20  # what registries accept (distribution specification 1.1)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Blob:
    """A descriptor: what is in a blob, its digest ("sha256:…"), its size in bytes, and notes on it."""

    media_type: str
    digest: str
    size: int
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A manifest as its registry has it: digest of ``raw``, its media type, and what it says."""

    digest: str
    media_type: str
    raw: bytes
    content: Mapping[str, Any]


def digest_of(data: bytes) -> str:
    """ "sha256:…" of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_of_file(path: Path) -> str:
    """ "sha256:…" of a file, read in pieces."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def is_loopback(host: str) -> bool:
    """Whether a registry's host (with or without port) is this machine: only then plain http is spoken."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    try:
        return name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def docker_logins(environment: Mapping[str, str]) -> dict[str, Any]:
    """Logins of docker's config.json: $DOCKER_CONFIG's, else ~/.docker's. Raises RegistryFailure if it is broken."""
    folder = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return {name: told.get(name) or {} for name in ("auths", "credHelpers")} | {
            "credsStore": told.get("credsStore")
        }
    except (OSError, ValueError, AttributeError) as error:
        raise RegistryFailure("docker's logins cannot be read", cause=str(error), where=str(path)) from error


class TransientError(Exception):
    """A fault that may be over in a moment; ``wait`` is what the registry asked for, in seconds."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class Repository:
    """One repository of a registry, such as "registry.example.com/team/wheels".

    ``ca`` is a CA bundle for a site's proxy. Methods raise RegistryFailure (exit code 6) when the registry cannot be
    reached, refuses or stays broken, Unsafe (7) when what it gives has another digest than was asked for.
    """

    def __init__(
        self,
        name: str,
        *,
        ca: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
        say: Say = lambda _: None,
    ) -> None:
        host, _, path = name.partition("/")
        if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or not (set(host) & set(".:") or host == "localhost"):
            raise RegistryFailure(
                f"{name!r} is not a repository",
                cause="it needs a host, then a path in lower case, and neither tag nor digest",
                do="write it as in registry.example.com/team/wheels",
            )
        self.name, self._host = name, host
        self._plain = is_loopback(host)
        self._base = f"{'http' if self._plain else 'https'}://{host}/v2/"
        self._container = oras.container.Container(name)
        self._session = requests.Session()
        self._session.trust_env = not self._plain  # no proxy stands between this machine and itself
        self._verify: bool | str = str(ca) if ca else True
        self._auth: Any = None
        self._sleep, self._say = sleep, say

    # -- what a caller wants

    def manifest(self, reference: str) -> Manifest | None:
        """The manifest of a tag or digest, its digest checked; None where the registry has none."""
        told: requests.Response = self._retry(
            reference, lambda: self._once("GET", f"manifests/{reference}", {"Accept": _ACCEPT}, ok=(200, 404))
        )
        if told.status_code == 404:
            return None
        raw, found = told.content, digest_of(told.content)
        for wanted in (reference, told.headers.get("Docker-Content-Digest", "")):
            if DIGEST.fullmatch(wanted) and wanted != found:
                raise self._unsafe(f"the manifest of {reference}", wanted, found)
        try:
            content = json.loads(raw) if len(raw) <= _MANIFEST_MAX else None
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise RegistryFailure(f"{self.name}: what {reference} names is no manifest", where=self._base)
        return Manifest(found, str(content.get("mediaType") or told.headers.get("Content-Type", "")), raw, content)

    def put_manifest(self, raw: bytes, reference: str, media_type: str = MANIFEST) -> str:
        """Write a manifest and point a tag (or its own digest) at it; its digest."""
        headers = {"Content-Type": media_type}
        told = self._retry(
            reference, lambda: self._once("PUT", f"manifests/{reference}", headers, body=raw, ok=(200, 201))
        )
        mine, its = digest_of(raw), told.headers.get("Docker-Content-Digest", "")
        if its and its != mine:
            raise self._unsafe(f"the manifest written as {reference}", mine, its)
        return mine

    def pause(self, seconds: float) -> None:
        """Wait, as between two attempts."""
        self._sleep(seconds)

    def tags(self) -> tuple[str, ...]:
        """All tags, as the registry orders them; none where it does not know the repository yet."""
        found: list[str] = []
        page = "tags/list?n=1000"
        while page:
            told = self._retry("the tags", partial(self._once, "GET", page, ok=(200, 404)))
            if told.status_code == 404:
                break
            found += told.json().get("tags") or []
            last = re.search(r"[?&](last=[^&>]+)", told.links.get("next", {}).get("url", ""))
            page = f"tags/list?n=1000&{last[1]}" if last else ""
        return tuple(found)

    def has_blob(self, digest: str) -> bool:
        """Whether the registry says that it has these bytes."""
        told = self._retry(digest, lambda: self._once("HEAD", f"blobs/{digest}", ok=(200, 404)))
        return bool(told.status_code == 200)

    def upload(self, path: Path, digest: str) -> None:
        """Write a file's bytes, unless they are there. One that broke off begins anew."""

        def once() -> None:
            begun = self._once("POST", "blobs/uploads/", ok=(202,))
            place = urljoin(begun.url, begun.headers.get("Location", ""))
            place += f"{'&' if '?' in place else '?'}digest={digest}"
            with path.open("rb") as file:
                headers = {"Content-Type": "application/octet-stream"}
                told = self._once("PUT", place, headers, body=file, ok=(201, 404))
            if told.status_code == 404:
                raise TransientError("the registry has forgotten the upload that it began")  # it was started anew

        if not self.has_blob(digest):
            self._retry(path.name, once)

    def download(self, blob: Blob, into: Path, *, keep: bool = False) -> None:
        """Write a blob's bytes to ``into``, whole and with its digest, or raise and leave nothing there.

        One that breaks off goes on where it was; with ``keep`` also in the next call, if the registry stays broken or
        this process ends.
        """
        if not DIGEST.fullmatch(blob.digest):
            raise RegistryFailure(f"{self.name}: {blob.digest!r} is no sha256 digest", where=self._base)
        part = into.with_name(f".{into.name}.part")
        try:
            self._retry(blob.digest, lambda: self._fetch_once(blob, part))
            if (found := digest_of_file(part)) != blob.digest:
                raise self._unsafe("a blob", blob.digest, found)
            part.replace(into)
        except RegistryFailure:
            if not keep:
                part.unlink(missing_ok=True)
            raise
        except BaseException as error:
            if not (keep and isinstance(error, KeyboardInterrupt)):
                part.unlink(missing_ok=True)
            raise

    # -- how it is asked

    def _fetch_once(self, blob: Blob, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        if have == blob.size:
            return
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._once("GET", f"blobs/{blob.digest}", headers, ok=(200, 206), stream=True) as told:
            begin = have if told.status_code == 206 else 0
            with part.open("r+b" if begin else "wb") as out:
                out.seek(begin)
                out.truncate()
                for chunk in told.iter_content(_CHUNK):
                    out.write(chunk)
                    if out.tell() > blob.size:
                        raise self._unsafe("a blob", f"{blob.digest} of {blob.size} bytes", "more bytes than that")
                if out.tell() < blob.size:
                    raise TransientError(f"the answer ended after {out.tell()} of {blob.size} bytes")

    def _retry(self, what: str, once: Callable[[], Any]) -> Any:
        fault: Exception | None = None
        for attempt in range(ATTEMPTS):
            if fault is not None:
                self._wait(attempt, fault)
            try:
                return once()
            except requests.exceptions.SSLError as error:
                fault = error  # a certificate does not mend itself
                break
            except (TransientError, requests.RequestException) as error:
                fault = error
        raise RegistryFailure(
            f"{self.name}: the registry does not give or take {what}",
            cause=f"{fault} ({ATTEMPTS} attempts)" if isinstance(fault, TransientError) else _reason(fault),
            do="see that its name is right and that it runs; run the same again to go on",
            where=self._base,
        ) from fault

    def _wait(self, attempt: int, fault: Exception) -> None:
        asked = fault.wait if isinstance(fault, TransientError) else None
        seconds = min(_LONGEST_WAIT, asked if asked is not None else 0.5 * 2 ** (attempt - 1))
        self._say(f"{self._host}: {_reason(fault)}; again in {seconds:g} s")
        self._sleep(seconds)

    def _once(
        self,
        method: str,
        place: str,
        headers: Mapping[str, str] | None = None,
        *,
        ok: Sequence[int],
        body: bytes | IO[bytes] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """One request, with a login if the registry wants one. Raises what `_retry` knows, or RegistryFailure."""
        url = place if "://" in place else f"{self._base}{self._container.api_prefix}/{place}"

        def ask(sent: Mapping[str, str]) -> requests.Response:
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            return self._session.request(
                method, url, data=body, headers=dict(sent), stream=stream, verify=self._verify, timeout=_TIMEOUT
            )

        told = ask({**(headers or {}), **self._login()})
        if told.status_code in (401, 403) and (login := self._authenticate(told)):
            told.close()
            told = ask({**(headers or {}), **login})
        if told.status_code in ok:
            return told
        with told:
            if told.status_code in _PASSING:
                raise TransientError(f"HTTP {told.status_code}", retry_after(told.headers.get("Retry-After")))
            raise RegistryFailure(
                f"{self.name}: the registry refuses to {_VERBS.get(method, method)} {place.partition('?')[0]}",
                cause=f"HTTP {told.status_code}: {_said(told)}",
                do="docker login, if it wants one; see that this login may do that" if told.status_code < 404 else "",
                where=self._base,
            )

    def _login(self) -> Mapping[str, str]:
        return self._auth.get_auth_header() if self._auth is not None else {}

    def _authenticate(self, told: requests.Response) -> Mapping[str, str]:
        """The header that answers a refusal; empty where there is no login for this registry."""
        wanted = told.headers.get("Www-Authenticate", "")
        if not wanted or told.request.url is None or urlsplit(told.request.url).netloc != self._host:
            return {}
        kind = "basic" if wanted.lower().startswith("basic") else "token"
        oras.logger.setup_logger(quiet=True)  # what it has to say is said here
        self._auth = oras.auth.get_auth_backend(kind, self._session, insecure=self._plain, tls_verify=self._verify)
        self._auth._auth_config = docker_logins(os.environ)  # oras itself knows nothing of $DOCKER_CONFIG
        self._auth.load_configs(self._container)
        if kind == "basic" and not hasattr(self._auth, "_basic_auth"):
            self._auth = None
            return {}
        headers, changed = self._auth.authenticate_request(told, {}, refresh=True)
        return headers if changed else {}

    def _unsafe(self, what: str, wanted: str, found: str) -> Unsafe:
        return Unsafe(
            f"{self.name}: {what} is not what its digest says",
            cause=f"asked for {wanted}, got {found}",
            do="do not use it; tell whoever runs this registry",
            where=self._base,
        )


def retry_after(text: str | None, now: float | None = None) -> float | None:
    """The seconds that a Retry-After header asks for, given as a number or as a date; None without a sensible one."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, until - (time.time() if now is None else now))


def answer(host: str, *, ca: Path | None = None, seconds: float = 10.0) -> int:
    """The HTTP status with which a registry's host answers to "are you one" (200 and 401 say yes); no login, one try.

    Raises RegistryFailure where none answers within ``seconds``.
    """
    plain = is_loopback(host)
    session = requests.Session()
    session.trust_env = not plain
    url = f"{'http' if plain else 'https'}://{host}/v2/"
    try:
        with session.get(url, timeout=seconds, verify=str(ca) if ca else True, stream=True) as told:
            return int(told.status_code)
    except requests.exceptions.SSLError as error:
        raise RegistryFailure(
            f"{host}: its certificate is not trusted here",
            cause=_reason(error),
            do="name your site's CA bundle: CARDSTOCK_CA=/path/to/bundle.pem (or ca: in site.yaml)",
            where=url,
        ) from error
    except requests.RequestException as error:
        raise RegistryFailure(f"{host} does not answer", cause=_reason(error), where=url) from error


_VERBS = {"GET": "give", "HEAD": "show", "PUT": "take", "POST": "take"}


def _reason(fault: Exception | None) -> str:
    """The innermost reason of a failed request, in a line."""
    seen: BaseException | None = fault
    while seen is not None and (seen.__cause__ or seen.__context__) is not None:
        seen = seen.__cause__ or seen.__context__
    return str(seen).strip() or type(seen).__name__


def _said(told: requests.Response) -> str:
    """What the registry's error body says, in the form of the distribution API, else its first words."""
    try:
        errors = told.json().get("errors", [])
        return "; ".join(f"{one.get('code')}: {one.get('message')}" for one in errors) or told.reason
    except (ValueError, AttributeError, requests.RequestException):
        return told.reason or "no reason given"
