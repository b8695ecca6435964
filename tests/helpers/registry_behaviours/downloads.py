"""What registries do when something is read."""

from __future__ import annotations

import gzip
import itertools

from tests.helpers.registries import Asked, Reply
from tests.helpers.registry_auth import BASIC
from tests.helpers.registry_behaviours.setting import (
    Check,
    Setting,
    Told,
    behaviour,
    errors,
    same,
)

SPEC = "https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull"
RATE = "https://github.com/docker/docs/pull/21905"
GET_BLOB = "^GET .*/blobs/sha256"
GET_MANIFEST = "^GET .*/manifests/"
LIMIT = "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"


def _once_each(at: Setting, pattern: str, reply: Reply) -> None:
    """The first time that each path is asked for."""
    seen: set[str] = set()

    def rule(asked: Asked) -> Reply | None:
        if asked.path in seen:
            return None
        seen.add(asked.path)
        return reply

    at.on(pattern, rule)


@behaviour(
    "ECR, Docker Hub, Quay",
    "sends on to a store, which refuses a second login",
    "https://github.com/open-policy-agent/opa/pull/6728",
)
def blobs_elsewhere(at: Setting) -> Check:
    at.want(BASIC)
    at.log_in()
    at.other.blobs = at.shelf.blobs
    at.on(
        GET_BLOB,
        lambda asked: (
            Reply(307, headers=(("Location", f"http://{at.other_host}{asked.path}?X-Amz-Signature=1"),))
            if asked.headers.get("Authorization")
            else None
        ),
    )
    at.other.rules.append(
        lambda asked: Reply(400, b"Only one auth mechanism allowed") if asked.headers.get("Authorization") else None
    )
    return lambda: same(set(at.other.logins), {""} if at.other.asked else set())


@behaviour(
    "Artifact Registry", "sends on to a place without a host", "https://github.com/sonatype/nexus-public/issues/1061"
)
def relative_redirect(at: Setting) -> None:
    at.on(
        GET_BLOB,
        lambda asked: (
            None
            if "elsewhere" in asked.path
            else Reply(302, headers=(("Location", f"/v2/elsewhere/blobs/{asked.path.rpartition('/')[2]}"),))
        ),
    )


@behaviour(
    "a store behind a registry",
    "asks for a login of its own: it gets none",
    told=None,
    pull=Told(6, "gets no login"),
    publish=Told(6, "gets no login"),
    wheels=Told(6, "gets no login"),
)
def store_asks_for_a_login(at: Setting) -> Check:
    at.want(BASIC)
    at.log_in()
    at.on("^GET ", lambda asked: Reply(307, headers=(("Location", f"http://{at.other_host}{asked.path}"),)))
    at.other.rules.append(lambda _: Reply(401, headers=(("WWW-Authenticate", 'Basic realm="give it to me"'),)))
    return lambda: same(set(at.other.logins), {""})


@behaviour("broken registries", "sends on in a circle", told=Told(6, "it sends on to"))
def circle(at: Setting) -> Check:
    at.on("^GET ", lambda asked: Reply(307, headers=(("Location", asked.path),)))
    return lambda: same(len(at.shelf.asked) < 20, True)


@behaviour("Docker Hub", "limits pulls without a login, for hours", RATE, told=Told(6, LIMIT))
def rate_limit(at: Setting) -> None:
    at.on("^GET ", Reply(429, errors("TOOMANYREQUESTS", LIMIT)))


@behaviour("Docker Hub's guard", "limits requests with a plain text", RATE, told=Told(6, "Too Many Requests (HAP429)"))
def rate_limit_in_plain_text(at: Setting) -> None:
    at.on("^GET ", Reply(429, b"Too Many Requests (HAP429).\n"))


@behaviour("any", "asks to come back in a year", told=Told(6, "it asks to wait 365 days"))
def wait_a_year(at: Setting) -> Check:
    at.on("^GET ", Reply(429, errors("TOOMANYREQUESTS", "later"), (("Retry-After", str(365 * 86400)),)))
    return lambda: same(at.waits, [])


@behaviour("any", "asks to come back in 3 seconds", "https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3")
def wait_a_little(at: Setting) -> Check:
    at.on("^GET ", Reply(429, b"", (("Retry-After", "3"),)), times=2)
    return lambda: same(at.waits[:2], [3.0, 3.0])


@behaviour("any", "asks to come back at a time that is over", "https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3")
def wait_until(at: Setting) -> Check:
    at.on("^GET ", Reply(503, b"", (("Retry-After", "Thu, 01 Jan 1970 00:00:00 GMT"),)), times=1)
    return lambda: same(at.waits[:1], [0.5])


@behaviour("load balancers, Cloudflare", "fails for a moment (500, 502, 503, 504, 520)", SPEC)
def fails_for_a_moment(at: Setting) -> None:
    for status in (500, 502, 503, 504, 520):
        at.on("^GET ", Reply(status, b"<html><title>error</title>"), times=1)


@behaviour("any", "stays broken", told=Told(6, "6 attempts"))
def stays_broken(at: Setting) -> None:
    at.on("^GET ", Reply(503, b"<html><title>Service Unavailable</title>"))


@behaviour("any", "breaks every blob off in the middle, once", SPEC)
def breaks_off(at: Setting) -> None:
    at.shelf.on, at.shelf.faults = "GET /v2/team/images/blobs/", ["cut", "reset", "short"]


@behaviour("proxies that cut", "gives no rests: the whole again", SPEC)
def no_ranges(at: Setting) -> None:
    at.shelf.on, at.shelf.faults = "GET /v2/team/images/blobs/", ["cut"]
    at.on(GET_BLOB, lambda asked: Reply(200, at.shelf.blobs[_name(asked)]) if asked.headers.get("Range") else None)


@behaviour("proxies that cut", "answers a rest with 416: it begins anew", SPEC)
def no_such_rest(at: Setting) -> None:
    at.shelf.on, at.shelf.faults = "GET /v2/team/images/blobs/", ["short"]
    at.on(GET_BLOB, lambda asked: Reply(416) if asked.headers.get("Range") else None)


@behaviour("broken proxies", "gives another rest than was asked for: it begins anew", SPEC)
def another_rest(at: Setting) -> None:
    at.shelf.on, at.shelf.faults = "GET /v2/team/images/blobs/", ["short"]
    at.on(GET_BLOB, lambda asked: _rest(at, asked, "bytes 0-9/10"))


@behaviour("broken proxies", "gives another rest and does not say so: it begins anew", SPEC)
def another_rest_silently(at: Setting) -> None:
    at.shelf.on, at.shelf.faults = "GET /v2/team/images/blobs/", ["short"]
    at.on(GET_BLOB, lambda asked: _rest(at, asked, ""))


def _rest(at: Setting, asked: Asked, said: str) -> Reply | None:
    begin = asked.headers.get("Range", "")
    if not begin:
        return None
    data = at.shelf.blobs[_name(asked)]
    size = len(data) - int(begin.removeprefix("bytes=").rstrip("-"))
    return Reply(206, data[:size], (("Content-Range", said),) if said else ())


def _name(asked: Asked) -> str:
    return asked.path.partition("?")[0].rpartition("/")[2]


@behaviour("older registries", "names no digest beside a manifest", SPEC)
def no_digest_header(at: Setting) -> None:
    def plain(asked: Asked) -> Reply | None:
        kind, data = at.shelf.manifests.get(_name(asked), ("", b""))
        return Reply(200, data, (("Content-Type", f"{kind}; charset=utf-8"),)) if data else None

    at.on(GET_MANIFEST, plain)


@behaviour("nginx with gzip on", "packs manifests though nobody asked")
def packed(at: Setting) -> None:
    def pack(asked: Asked) -> Reply | None:
        kind, data = at.shelf.manifests.get(_name(asked), ("", b""))
        return Reply(200, gzip.compress(data), (("Content-Type", kind), ("Content-Encoding", "gzip"))) if data else None

    at.on(GET_MANIFEST, pack)


@behaviour("any", "says no length, and closes at the end", SPEC)
def no_length(at: Setting) -> None:
    def pieces(asked: Asked) -> Reply | None:
        data = at.shelf.blobs.get(_name(asked))
        return Reply(200, (bytes([byte]) for byte in data)) if data and len(data) < 10_000 else None

    at.on(GET_BLOB, pieces)


@behaviour("captive networks", "answers everything with a page", told=Told(6, "is no manifest"))
def page(at: Setting) -> None:
    at.on("^GET ", Reply(200, b"<html><title>Welcome to the hotel</title>", (("Content-Type", "text/html"),)))


@behaviour(
    "a wrong name",
    "is a web server, and knows no such page",
    pull=Told(3, "nothing is published"),
    publish=Told(6, "make the repository"),
    wheels=Told(6, "make the repository"),
)
def web_server(at: Setting) -> None:
    at.on("", Reply(404, b"<html><title>404 Not Found</title>", (("Content-Type", "text/html"),)))


@behaviour("hostile registries", "gives a manifest without end", told=Told(6, "longer than 4194304 bytes"))
def manifest_without_end(at: Setting) -> None:
    at.on(GET_MANIFEST, Reply(200, itertools.repeat(b"x" * 65536)))


@behaviour(
    "hostile registries",
    "packs 256 megabytes into a small manifest",
    told=Told(6, "longer than 4194304 bytes"),
)
def bomb(at: Setting) -> None:
    at.on(GET_MANIFEST, Reply(200, gzip.compress(b"x" * (256 << 20), 1), (("Content-Encoding", "gzip"),)))


@behaviour("hostile registries", "gives a manifest of lists in lists", told=Told(6, "is no manifest"))
def deep_manifest(at: Setting) -> None:
    at.on(GET_MANIFEST, Reply(200, b"[" * 1_000_000))
