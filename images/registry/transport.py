"""Requests to registries and to what they name: bounded in size and time, with no login but the one a caller gives."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import IO, Literal
from urllib.parse import urljoin

import requests
import requests.utils

from images.core import RegistryFailure
from images.registry.address import host_of, is_loopback, same_origin, without_query
from images.registry.response import Response, reason
from images.registry.retry import TransientError

Method = Literal["GET", "HEAD", "POST", "PUT"]
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of an answer
_REDIRECTS = 5
_CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # the variables that requests knows
# Bytes as they are: a layer packed once more would not have its digest, and a small answer could unpack to a huge one.
_HEADERS = {"Accept-Encoding": "identity"}


Body = bytes | IO[bytes] | Mapping[str, str] | None


class Transport:
    """One session: its connections are kept. ``ca`` is a bundle of certificate authorities; ``clock`` gives seconds.

    What requests does by itself is off: logins of ~/.netrc (they replace a token) and of URLs, cookies, redirects.
    """

    def __init__(self, ca: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = _as_it_is
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._ca = ca
        self._clock = clock

    def send(
        self,
        method: Method,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, str | list[str]] | None = None,
        body: Body = None,
        redirects: int = _REDIRECTS,
        timeout: tuple[float, float] = _TIMEOUT,
    ) -> Response:
        """The beginning of an answer, whatever its status; its body is still to be read. A mapping is sent as a form.

        A redirect is followed, without the login where it leads elsewhere. What writes is sent again only where the
        status says so (307, 308). Raises TransientError where the connection fails, RegistryFailure for what does not
        mend itself, a redirect from https to http among it.
        """
        sent = {**_HEADERS, **(headers or {})}
        response = self._ask(method, url, sent, query, body, timeout)
        for _ in range(redirects):
            target = _redirect(response, method)
            if not target:
                break
            response.close()
            if not same_origin(response.url, target):
                sent.pop("Authorization", None)
            response = self._ask(method, target, sent, None, body, timeout)
        return response

    def _ask(
        self,
        method: Method,
        url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str | list[str]] | None,
        body: Body,
        timeout: tuple[float, float],
    ) -> Response:
        host = host_of(url)
        if body is not None and not isinstance(body, bytes | Mapping):
            body.seek(0)
        try:
            response = self._session.request(
                method,
                url,
                headers=headers,
                params=query,
                data=body,
                stream=True,
                verify=self._verify(),
                # No proxy stands between this machine and itself.
                proxies={} if is_loopback(host) else requests.utils.get_environ_proxies(url),
                timeout=timeout,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError as error:
            raise _tls_failure(host, error, url) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise TransientError(f"{host}: {reason(error)}") from error
        except (requests.RequestException, ValueError) as error:
            raise RegistryFailure(f"{host} cannot be asked", cause=reason(error), where=without_query(url)) from error
        return Response(response, self._clock)

    def _verify(self) -> bool | str:
        named = (os.environ.get(name) for name in _CA_BUNDLES)
        return str(self._ca) if self._ca else next((path for path in named if path), True)


def _redirect(response: Response, method: Method) -> str:
    """Where a redirect leads; empty for none, and for one that cannot be followed with this method."""
    followed = (301, 302, 303, 307, 308) if method in ("GET", "HEAD") else (307, 308)
    if response.status not in followed or not response.headers.get("Location"):
        return ""
    try:
        target = urljoin(response.url, response.headers["Location"])
    except ValueError:
        return ""
    refuse_downgrade(response.url, target)
    return target


def refuse_downgrade(url: str, target: str) -> None:
    """Raise RegistryFailure where an https address names one without encryption to go on at."""
    if url.startswith("https:") and not target.startswith("https:"):
        raise RegistryFailure(
            f"{host_of(url)} sends on to an address without encryption",
            cause=without_query(target),
            do="tell whoever runs this registry to give it its own https address (X-Forwarded-Proto, or http.host)",
            where=without_query(url),
        )


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _tls_failure(host: str, error: Exception, url: str) -> RegistryFailure | TransientError:
    text = reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return RegistryFailure(
            f"{host}: its certificate is not trusted here",
            cause=text,
            do="name your site's CA bundle: CARDSTOCK_CA=/path/to/bundle.pem (or ca: in site.yaml)",
            where=without_query(url),
        )
    if "WRONG_VERSION_NUMBER" in text:
        return RegistryFailure(
            f"{host} does not speak https",
            cause=text,
            do="give it a certificate; plain http is spoken to this machine alone",
            where=without_query(url),
        )
    return TransientError(f"{host}: {text}")
