"""How registries ask for a login, and where docker keeps one."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tests.helpers.registries import Reply
from tests.helpers.registry_auth import BASIC, BEARER
from tests.helpers.registry_behaviours.setting import (
    ME,
    PASSWORD,
    REFRESH_TOKEN,
    USER,
    Check,
    Setting,
    Told,
    behaviour,
    errors,
)

SPEC = "https://distribution.github.io/distribution/spec/auth/token/"
RFC = "https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1"
CONFIG = "https://docs.docker.com/reference/cli/docker/login/"


@behaviour("distribution, zot", "asks for no login")
def open_to_all(at: Setting) -> None:
    at.shelf.auth = None


@behaviour(
    "distribution with htpasswd, ECR, Nexus",
    "wants Basic",
)
def basic(at: Setting) -> None:
    at.want(BASIC)
    at.log_in()


@behaviour("Docker Hub, GHCR, Quay, distribution with a token service", "wants a token, for user and password", SPEC)
def token(at: Setting) -> Check:
    auth = at.want(BEARER)
    at.log_in()
    return lambda: _all(asked.authorization == f"Basic {ME}" for asked in auth.asked)


@behaviour(
    "Docker Hub, GHCR, public images",
    "gives a token to read to everybody, and to write to nobody without a login",
    SPEC,
    publish=Told(6, "docker login"),
    wheels=Told(6, "docker login"),
)
def token_for_everybody(at: Setting) -> None:
    at.want(BEARER, anonymous=True).readers_only = True


@behaviour(
    "Gitea 1.26, Forgejo", "offers Bearer and Basic in two headers", "https://github.com/go-gitea/gitea/pull/36920"
)
def two_headers(at: Setting) -> None:
    at.want(BEARER, BASIC)
    at.log_in()


@behaviour("Gitea", "offers them in the other order", RFC)
def two_headers_basic_first(at: Setting) -> None:
    at.want(BASIC, BEARER)
    at.log_in()


@behaviour("registries that offer both", "offers Basic and Bearer in one header", RFC)
def one_header(at: Setting) -> None:
    at.want(f"{BASIC}, {BEARER}")
    at.log_in()


@behaviour("Gitea before 1.26", 'names the scope "*"', "https://github.com/go-gitea/gitea/issues/36907")
def scope_of_all(at: Setting) -> None:
    at.want('Bearer realm="{realm}",service="container_registry",scope="*"').scopes_count = False
    at.log_in()


@behaviour("proxies with Kerberos", "offers Negotiate first", RFC)
def negotiate(at: Setting) -> None:
    at.want("Negotiate", "Negotiate YIIabc+/==", BASIC)
    at.log_in()


@behaviour("Kerberos alone", "offers nothing that docker has a login for", RFC, told=Told(6, "offers Negotiate"))
def negotiate_alone(at: Setting) -> None:
    at.want("Negotiate")
    at.log_in()


@behaviour("home-made gateways", "writes parameters without quotes", RFC)
def unquoted(at: Setting) -> None:
    at.want("Bearer realm={realm},service=registry.test,scope={scope}")
    at.log_in()


@behaviour("home-made gateways", "writes scheme and names as it likes, with spaces around =", RFC)
def spaced(at: Setting) -> None:
    at.want('bEARER  Realm = "{realm}" , SERVICE = registry.test,\t scope="{scope}"')
    at.log_in()


@behaviour("home-made gateways", "leaves the service empty", RFC)
def empty_service(at: Setting) -> None:
    at.want('Bearer realm="{realm}",service="",scope="{scope}"')
    at.log_in()


@behaviour(
    "Artifact Registry", "names a realm and nothing else", "https://github.com/nicholas-fedor/watchtower/pull/1895"
)
def realm_alone(at: Setting) -> None:
    at.want('Bearer realm="{realm}"')
    at.log_in()


@behaviour(
    "Artifact Registry",
    "takes the key of a robot as the password of _json_key",
)
def robot_key(at: Setting) -> None:
    key = json.dumps({"type": "service_account", "private_key": "a:b\n" * 400})
    at.want(BEARER).users = {"_json_key": key}
    at.log_in(username="_json_key", password=key)


@behaviour(
    "Harbor", "answers Basic alone to a token that does not suffice", "https://github.com/goharbor/harbor/issues/18856"
)
def basic_after_token(at: Setting) -> None:
    at.want(BEARER, BASIC).challenges_of_tokens = [BASIC]
    at.log_in()


@behaviour("any", "refuses a wrong password", SPEC, told=Told(6, "docker login"))
def wrong_password(at: Setting) -> None:
    at.want(BASIC)
    at.log_in(username=USER, password="wrong")


@behaviour("any", "refuses, and docker has no login", SPEC, told=Told(6, "docker has no login"))
def no_login(at: Setting) -> None:
    at.want(BASIC)


@behaviour(
    "ECR, with a login of yesterday",
    "refuses with 403 and no challenge",
    "https://github.com/aws/aws-cli/issues/6580",
    told=Told(6, "expired"),
)
def expired(at: Setting) -> None:
    at.log_in()
    at.on("/v2/", Reply(403, errors("DENIED", "Your authorization token has expired. Reauthenticate and try again.")))


@behaviour(
    "Azure",
    "keeps an identity token in config.json: by POST, grant_type=refresh_token",
    "https://azure.github.io/acr/AAD-OAuth.html",
)
def identity_token(at: Setting) -> Check:
    auth = at.want(BEARER)
    auth.key = "access_token"
    at.log_in(auth="MDAwMDA6", identitytoken=REFRESH_TOKEN)  # "00000:"
    return lambda: _all(asked.fields["grant_type"] == ["refresh_token"] for asked in auth.asked)


@behaviour(
    "Azure's and Docker's helpers",
    "answers with the user <token>: a refresh token",
    "https://github.com/testcontainers/testcontainers-node/issues/651",
)
def helper_with_token(at: Setting) -> Check:
    auth = at.want(BEARER)
    at.helper(f"""echo '{{"ServerURL": "x", "Username": "<token>", "Secret": "{REFRESH_TOKEN}"}}'""")
    return lambda: _all(asked.method == "POST" for asked in auth.asked)


@behaviour("helpers", "answers with user and password")
def helper(at: Setting) -> None:
    at.want(BASIC)
    at.helper(f"""echo '{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}'""")


def _broken(at: Setting, script: str) -> Check:
    at.want(BEARER)
    at.helper(script)
    content = json.loads((at.folder / "config.json").read_text())
    at.config(**content, auths={at.host: {"auth": ME}})
    return lambda: _all(any("passed over" in line for line in at.said) for _ in (1,))


@behaviour("helpers", "says what is no JSON: told, and config.json's own login taken")
def helper_without_json(at: Setting) -> Check:
    return _broken(at, "echo unlocked the keyring")


@behaviour("helpers", "never ends: told after its time, and passed over")
def helper_without_end(at: Setting) -> Check:
    return _broken(at, "exec sleep 60")


@behaviour("helpers", "cannot be run: told, and passed over")
def helper_that_cannot_run(at: Setting) -> Check:
    return _broken(at, "exec /nothing/at/all")


@behaviour("docker", "keeps the login under a key with scheme and path", CONFIG)
def key_with_scheme(at: Setting) -> None:
    at.want(BEARER)
    at.log_in(f"https://{at.host}/v1/")


@behaviour(
    "podman's way",
    "keeps a login for a team's path",
)
def key_with_team(at: Setting) -> None:
    at.want(BASIC)
    at.config(auths={at.host: {"auth": "bWU6d3Jvbmc="}, f"{at.host}/team": {"auth": ME}})


@behaviour("a machine with ~/.netrc", "has other logins there: they take no token's place")
def netrc(at: Setting) -> Check:
    at.want(BEARER)
    at.log_in()
    (at.folder.parent / ".netrc").write_text("default login thief password netrc-1\n")
    return lambda: _all(not login.startswith("Basic") for login in at.shelf.logins)


def _all(good: Iterable[bool]) -> None:
    seen = list(good)
    assert seen
    assert all(seen)
