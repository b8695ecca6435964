"""Token services: when they stumble, refuse, or are something else."""

from __future__ import annotations

from tests.helpers.registries import Asked, Reply
from tests.helpers.registry_auth import BASIC, BEARER
from tests.helpers.registry_behaviours.setting import (
    ME,
    Check,
    Setting,
    Told,
    behaviour,
    errors,
    same,
)

SPEC = "https://distribution.github.io/distribution/spec/auth/token/"


@behaviour(
    "GitLab, whose tokens last five minutes",
    "forgets a token in the middle",
    "https://gitlab.com/gitlab-org/gitlab-ce/issues/19867",
)
def token_ends(at: Setting) -> None:
    auth = at.want(BEARER)
    at.log_in()
    served = [0]

    def forget(asked: Asked) -> None:
        served[0] += auth.believes(asked.headers.get("Authorization", ""), asked.method)
        if served[0] % 3 == 2:
            served[0] += 1
            auth.issued.clear()

    at.on("/v2/", forget)


@behaviour("Docker Hub, GitLab", "its token service asks to come back after 7 seconds", SPEC)
def token_service_busy(at: Setting) -> Check:
    auth = at.want(BEARER)
    auth.faults, auth.after = [429, 503], "7"
    at.log_in()
    return lambda: same(at.waits[:2], [7.0, 7.0])


@behaviour("any", "its token service stays broken", SPEC, told=Told(6, "HTTP 503"))
def token_service_broken(at: Setting) -> Check:
    auth = at.want(BEARER)
    auth.faults = [503] * 500
    at.log_in()
    return lambda: same(len(auth.asked) <= 6, True)


@behaviour(
    "GHCR, private packages",
    "its token service refuses",
    "https://github.com/kedacore/http-add-on/issues/48",
    told=Told(6, "DENIED: denied"),
)
def token_denied(at: Setting) -> None:
    at.want(BEARER)
    at.log_in()
    at.on("/token", Reply(403, errors("DENIED", "denied")))


@behaviour(
    "GitLab without rights",
    "its token service refuses",
    "https://github.com/getwud/wud/issues/600",
    told=Told(6, "access forbidden"),
)
def token_forbidden(at: Setting) -> None:
    at.want(BEARER)
    at.log_in()
    at.on("/token", Reply(403, errors("DENIED", "access forbidden")))


def _answers(at: Setting, body: bytes) -> None:
    at.want(BEARER).answer = body
    at.log_in()


@behaviour(
    "a portal before the registry", "its token service answers with a page", told=Told(6, "answers without a token")
)
def token_is_a_page(at: Setting) -> None:
    _answers(at, b"<html><title>Sign in</title>")


@behaviour("broken services", 'its token service answers {"token": null}', told=Told(6, "answers without a token"))
def token_is_null(at: Setting) -> None:
    _answers(at, b'{"token": null, "access_token": null}')


@behaviour("broken services", "its token has a line break in it", told=Told(6, "answers without a token"))
def token_with_a_header(at: Setting) -> None:
    _answers(at, b'{"token": "a\\r\\nX-Other: b"}')


@behaviour("broken services", "its token is lists in lists without end", told=Told(6, "answers without a token"))
def token_is_deep(at: Setting) -> None:
    _answers(at, b"[" * 500_000)


@behaviour("broken services", "its token has two megabytes", told=Told(6, "longer than"))
def token_is_huge(at: Setting) -> None:
    _answers(at, b'{"token": "' + b"x" * (2 << 20) + b'"}')


@behaviour(
    "Harbor behind a proxy that ends TLS",
    "names a token service with http://",
    "https://github.com/goharbor/harbor/issues/20028",
    told=Told(6, "without encryption"),
)
def realm_in_the_clear(at: Setting) -> None:
    at.want(BEARER).realm = "http://auth.example.com/token"
    at.log_in()


@behaviour(
    "hostile registries", "names a token service with an escape sequence in it", told=Told(6, "auth?c.example.com")
)
def realm_for_a_terminal(at: Setting) -> None:
    at.want(BEARER).realm = "http://auth\x1bc.example.com/token"
    at.log_in()


@behaviour("any", "its token service asks to come back in a year", told=Told(6, "it asks to wait 365 days"))
def token_service_in_a_year(at: Setting) -> Check:
    auth = at.want(BEARER)
    auth.faults, auth.after = [429] * 9, str(365 * 86400)
    at.log_in()
    return lambda: same(at.waits, [])


@behaviour("broken services", "names a file as its token service", told=Told(6, "names no token service"))
def realm_is_a_file(at: Setting) -> None:
    at.want(BEARER).realm = "file:///etc/passwd"
    at.log_in()


@behaviour("Docker Hub, GitLab", "its token service is another host: it sees the login, and no token", SPEC)
def realm_elsewhere(at: Setting) -> Check:
    auth = at.want(BEARER)
    auth.realm = f"http://{at.other_host}/token"
    at.other.auth = type(auth)(users=auth.users, issued=auth.issued)
    at.log_in()
    return lambda: same({asked.authorization for asked in at.other.auth.asked}, {f"Basic {ME}"})  # type: ignore[union-attr]


@behaviour(
    "broken services", "its token service sends on to another host: without the login", told=Told(6, "gives no token")
)
def token_service_sends_on(at: Setting) -> Check:
    at.want(BEARER)
    at.on("/token", lambda asked: Reply(307, headers=(("Location", f"http://{at.other_host}{asked.path}"),)))
    at.other.auth = type(at.shelf.auth)()  # type: ignore[misc]
    at.log_in()
    return lambda: same({asked.authorization for asked in at.other.auth.asked}, {""})  # type: ignore[union-attr]


@behaviour("registries that offer both", "gives no token: then Basic", SPEC)
def basic_instead(at: Setting) -> None:
    auth = at.want(BEARER, BASIC)
    auth.answer = b"<html>"
    at.log_in()
