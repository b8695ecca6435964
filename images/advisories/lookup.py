"""Asking the services: OSV for Python packages, Debian's security tracker for the rest. Bounded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from images.advisories.found import Found, from_osv, from_tracker, merged
from images.core import RegistryFailure, SiteSettings
from images.registry import Retry, TransientError, Transport

_BATCH = 500  # packages in one question; OSV takes 1000
_PAGES = 20  # of one package's list
_HOLES = 3000  # details that are asked for
_ANSWER = 8 << 20  # bytes of a list
_RECORD = 4 << 20  # bytes of one hole's details
_TRACKER = 160 << 20  # bytes of Debian's list
_TRACKER_SECONDS = 600.0
Package = tuple[str, str]  # name, version
OSV_NAME, TRACKER_NAME = "OSV", "Debian's security tracker"


@dataclass(frozen=True)
class Services:
    """Where to ask, and how: the site's addresses and CA; proxies are those of the environment."""

    site: SiteSettings
    ca: Path | None = None
    say: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep

    def python(self, packages: Iterable[Package]) -> list[Found]:
        """The holes that OSV knows in these. Raises RegistryFailure where it cannot be asked."""
        return self._asked(OSV_NAME, self.site.osv, lambda ask: _ask_osv(ask, self.site.osv, sorted(set(packages))))

    def debian(self, packages: Mapping[str, str]) -> list[Found]:
        """The holes that Debian's tracker knows in these source packages. Raises RegistryFailure."""

        def ask_tracker(ask: _Asking) -> list[Found]:
            data = ask.json("GET", self.site.debian_tracker, most=_TRACKER, seconds=_TRACKER_SECONDS)
            return from_tracker(data, packages)

        return self._asked(TRACKER_NAME, self.site.debian_tracker, ask_tracker)

    def _asked(self, name: str, where: str, ask: Callable[[_Asking], list[Found]]) -> list[Found]:
        try:
            return ask(_Asking(Transport(self.ca), Retry(self.sleep, self.say)))
        except TransientError as error:
            raise _nothing(name, where, str(error)) from error
        except RegistryFailure as error:
            raise _nothing(name, where, "; ".join(part for part in (error.what, error.cause) if part)) from error


def _nothing(name: str, where: str, cause: str) -> RegistryFailure:
    return RegistryFailure(
        f"{name} does not answer: nothing was looked up, and nothing is written",
        cause=cause,
        do="run it where the service can be reached; a proxy is HTTPS_PROXY, a CA is CARDSTOCK_CA, a mirror "
        "CARDSTOCK_OSV or CARDSTOCK_DEBIAN_TRACKER (docs/sites.md)",
        where=where,
    )


class _Asking:
    """Questions whose answers are JSON objects."""

    def __init__(self, transport: Transport, retry: Retry) -> None:
        self._transport, self._retry = transport, retry

    def json(self, method: str, url: str, body: object = None, *, most: int, seconds: float = 120.0) -> dict[str, Any]:
        """The object that a service answers. Raises RegistryFailure, TransientError."""

        def once() -> bytes:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            sent = json.dumps(body).encode() if body is not None else None
            with self._transport.send("POST" if method == "POST" else "GET", url, headers, body=sent) as told:
                if (fault := told.fault()) is not None:
                    raise fault
                if told.status != 200:
                    raise RegistryFailure(f"HTTP {told.status}", cause=told.words(), where=url)
                return told.read(most, seconds)

        try:
            content = json.loads(self._retry.run(once))
        except (ValueError, RecursionError) as error:
            raise RegistryFailure("what it answers is no JSON", where=url) from error
        if not isinstance(content, dict):
            raise RegistryFailure("what it answers is no JSON object", where=url)
        return content


def _ask_osv(ask: _Asking, address: str, packages: list[Package]) -> list[Found]:
    """The ids that are known for each package and version, then the details of each id."""
    by_id: dict[str, set[str]] = {}
    for start in range(0, len(packages), _BATCH):
        for (name, _), identifiers in _ids(ask, address, packages[start : start + _BATCH]).items():
            for identifier in identifiers:
                by_id.setdefault(identifier, set()).add(name)
    if len(by_id) > _HOLES:
        raise RegistryFailure(f"{len(by_id)} holes at once, more than {_HOLES}", where=address)
    found = []
    for identifier, names in sorted(by_id.items()):
        record = ask.json("GET", f"{address}/v1/vulns/{quote(identifier, safe='')}", most=_RECORD)
        found += [one for name in sorted(names) if (one := from_osv(record, name)) is not None]
    return merged(found)


def _ids(ask: _Asking, address: str, packages: list[Package]) -> dict[Package, set[str]]:
    out: dict[Package, set[str]] = {package: set() for package in packages}
    open_: list[tuple[Package, str]] = [(package, "") for package in packages]
    for _ in range(_PAGES):
        queries = [
            {
                "package": {"name": name, "ecosystem": "PyPI"},
                "version": version,
                **({"page_token": token} if token else {}),
            }
            for (name, version), token in open_
        ]
        answer = ask.json("POST", f"{address}/v1/querybatch", {"queries": queries}, most=_ANSWER)
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != len(queries):
            raise RegistryFailure("its answer is not one result for each question", where=address)
        following = []
        for (package, _token), result in zip(open_, results, strict=True):
            told = result if isinstance(result, dict) else {}
            for one in told.get("vulns") or []:
                if not isinstance(one, dict) or not isinstance(one.get("id"), str):
                    raise RegistryFailure("a hole without an id", where=address)
                out[package].add(one["id"])
            if isinstance(token := told.get("next_page_token"), str) and token:
                following.append((package, token))
        if not following:
            return out
        open_ = following
    raise RegistryFailure("its list has no end", where=address)
