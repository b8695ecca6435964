"""OSV and Debian's tracker as a small real HTTP server on loopback, with the holes that a test gives it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from images.core.site import SiteSettings

TORCH = {
    "id": "GHSA-63cw-57p8-fm3p",
    "aliases": ["CVE-2026-24747"],
    "summary": "the unpickler",
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:U/C:H/I:H/A:H"}],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "torch"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.10.0"}]}],
        }
    ],
}


def hole(identifier: str, package: str, *events: dict[str, str], **other: Any) -> dict[str, Any]:
    """A record of OSV's."""
    ranges = [{"type": "ECOSYSTEM", "events": list(events) or [{"introduced": "0"}]}]
    return {
        "id": identifier,
        "affected": [{"package": {"ecosystem": "PyPI", "name": package}, "ranges": ranges}],
        **other,
    }


@dataclass
class AdvisoryServices:
    """``records`` by id; ``named``: ids by "package==version"; ``broken``: what paths answer first, each once."""

    address: str = ""
    records: dict[str, Any] = field(default_factory=dict)
    named: dict[str, list[str]] = field(default_factory=dict)
    tracker: Any = field(default_factory=dict)
    broken: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    page: int = 1000  # ids in one answer

    @property
    def site(self) -> SiteSettings:
        return SiteSettings(osv=self.address, debian_tracker=f"{self.address}/tracker")

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if self.broken.get(path):
            return self.broken[path].pop(0)
        if path == "/tracker":
            return 200, json.dumps(self.tracker).encode()
        if path == "/v1/querybatch":
            return 200, json.dumps({"results": [self._result(one) for one in json.loads(body)["queries"]]}).encode()
        record = self.records.get(path.removeprefix("/v1/vulns/"))
        return (404, b"{}") if record is None else (200, json.dumps(record).encode())

    def _result(self, query: dict[str, Any]) -> dict[str, Any]:
        assert query["package"]["ecosystem"] == "PyPI"
        named = self.named.get(f"{query['package']['name']}=={query['version']}", [])
        start = int(query.get("page_token", "0"))
        some = named[start : start + self.page]
        more = {"next_page_token": str(start + self.page)} if start + self.page < len(named) else {}
        return {**({"vulns": [{"id": one} for one in some]} if some else {}), **more}


@contextmanager
def advisory_services(**given: Any) -> Iterator[AdvisoryServices]:
    """The services, answering until the end of the block."""
    services = AdvisoryServices(**given)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            services.seen.append(f"{self.command} {self.path}")
            status, content = services.answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        services.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield services
        finally:
            server.shutdown()
