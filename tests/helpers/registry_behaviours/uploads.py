"""What registries do when something is written."""

from __future__ import annotations

from tests.helpers.registries import Asked, Reply
from tests.helpers.registry_auth import BEARER
from tests.helpers.registry_behaviours.setting import (
    Check,
    Setting,
    Told,
    behaviour,
    errors,
    same,
)

SPEC = "https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push"
PUT_BLOB = "^PUT .*/blobs/uploads/"
PUT_MANIFEST = "^PUT .*/manifests/"


@behaviour("GHCR, S3-backed stores", "takes uploads on another host, which gets no login", SPEC)
def uploads_elsewhere(at: Setting) -> Check:
    at.want(BEARER)
    at.log_in()
    at.other.blobs = at.shelf.blobs

    def begin(asked: Asked) -> Reply | None:
        if not asked.headers.get("Authorization", "").startswith("Bearer") or not _writes(at, asked):
            return None
        return Reply(202, headers=(("Location", f"http://{at.other_host}{asked.path}session?state=1"),))

    at.on("^POST ", begin)
    return lambda: same(set(at.other.logins), {""} if at.other.asked else set())


def _writes(at: Setting, asked: Asked) -> bool:
    token = asked.headers["Authorization"].removeprefix("Bearer ")
    return at.shelf.auth is not None and at.shelf.auth.issued.get(token) == "pull,push"


@behaviour(
    "distribution with relativeurls, Artifact Registry",
    "names the place of an upload without a host",
    "https://github.com/oras-project/rust-oci-client/pull/175",
)
def relative_place(at: Setting) -> None:
    at.on("^POST ", lambda asked: Reply(202, headers=(("Location", f"{asked.path}of-a-project/session"),)))


@behaviour("distribution", "names it with a state in the query, which must come back", SPEC)
def place_with_state(at: Setting) -> None:
    at.on("^POST ", lambda asked: Reply(202, headers=(("Location", f"{asked.path}id?_state=a%2Bb%3D"),)))
    at.on(f"{PUT_BLOB}(?!.*_state=a%2Bb%3D&digest=)", Reply(400, errors("BLOB_UPLOAD_INVALID", "no state")))


@behaviour(
    "a gateway before two registries",
    "sends the begin of an upload on, and names a place there",
    "https://github.com/containerd/containerd/issues/11949",
)
def upload_sent_on(at: Setting) -> None:
    at.other.blobs, at.other.manifests = at.shelf.blobs, at.shelf.manifests
    at.on("^POST ", lambda asked: Reply(307, headers=(("Location", f"http://{at.other_host}{asked.path}"),)))
    at.other.rules.append(
        lambda asked: Reply(202, headers=(("Location", f"{asked.path}there"),)) if asked.method == "POST" else None
    )


@behaviour(
    "broken registries",
    "names no place for an upload",
    publish=Told(6, "names no place"),
    wheels=Told(6, "names no place"),
)
def no_place(at: Setting) -> None:
    at.on("^POST ", Reply(202))


@behaviour(
    "broken registries",
    "names a file as the place of an upload",
    publish=Told(6, "names no place"),
    wheels=Told(6, "names no place"),
)
def place_is_a_file(at: Setting) -> None:
    at.on("^POST ", Reply(202, headers=(("Location", "file:///etc/passwd"),)))


@behaviour("older registries and proxies", "says 200, 202 or 204 where 201 is meant", SPEC)
def other_success(at: Setting) -> None:
    at.on(PUT_BLOB, lambda asked: _stored(at, asked, 204))
    at.on(PUT_MANIFEST, lambda asked: _stored(at, asked, 202))


def _stored(at: Setting, asked: Asked, status: int) -> Reply:
    import hashlib

    digest = f"sha256:{hashlib.sha256(asked.body).hexdigest()}"
    if "/blobs/" in asked.path:
        at.shelf.blobs[digest] = asked.body
    else:
        kind = asked.headers["Content-Type"]
        at.shelf.manifests |= {digest: (kind, asked.body), asked.path.rpartition("/")[2]: (kind, asked.body)}
    return Reply(status)


@behaviour("ECR Public", "refuses a HEAD of a blob with 403", "https://github.com/SgtSilvio/gradle-oci/pull/154")
def head_refused(at: Setting) -> None:
    at.on("^HEAD .*/blobs/", Reply(403))


@behaviour(
    "distribution on S3",
    "sends a HEAD on to a store that refuses it",
    "https://github.com/distribution/distribution/issues/2055",
)
def head_sent_to_a_store(at: Setting) -> None:
    at.on(
        "^HEAD .*/blobs/",
        lambda asked: Reply(307, headers=(("Location", f"http://{at.other_host}{asked.path}?signed=1"),)),
    )
    at.other.rules.append(lambda asked: Reply(400) if asked.method == "HEAD" else None)


@behaviour("proxies", "does not know HEAD", SPEC)
def head_not_known(at: Setting) -> None:
    at.on("^HEAD .*/blobs/", Reply(405))


@behaviour(
    "Artifactory",
    "says of a blob that it has it, and refuses the manifest that names it",
    "https://github.com/gardener/cc-utils/pull/1752",
    publish=Told(6, "MANIFEST_INVALID"),
    wheels=Told(6, "MANIFEST_INVALID"),
)
def head_that_lies(at: Setting) -> None:
    at.on("^HEAD .*/blobs/", Reply(200))
    at.on(PUT_MANIFEST, Reply(400, errors("MANIFEST_INVALID", "Failed to copy blob")))


@behaviour(
    "ECR",
    "has no such repository, and makes none",
    "https://github.com/plexsystems/sinker/issues/55",
    publish=Told(6, "make the repository"),
    wheels=Told(6, "make the repository"),
)
def repository_not_made(at: Setting) -> None:
    at.on(
        "^(POST|PUT) ",
        Reply(404, errors("NAME_UNKNOWN", "The repository with name 'team' does not exist in the registry")),
    )


@behaviour(
    "ECR",
    "hangs up where the repository is not there",
    "https://github.com/aws/containers-roadmap/issues/1970",
    publish=Told(6, "does not give or take"),
    wheels=Told(6, "does not give or take"),
)
def hangs_up(at: Setting) -> None:
    at.on("^POST ", Reply(0))


@behaviour(
    "nginx before a registry",
    "takes no large bodies",
    publish=Told(6, "client_max_body_size"),
    wheels=Told(6, "client_max_body_size"),
)
def body_too_large(at: Setting) -> None:
    at.on(PUT_BLOB, Reply(413, b"<html><head><title>413 Request Entity Too Large</title></head></html>"))


@behaviour(
    "Harbor",
    "has used up its quota",
    "https://github.com/goharbor/harbor/issues/8802",
    publish=Told(6, "quota raised"),
    wheels=Told(6, "quota raised"),
)
def quota(at: Setting) -> None:
    words = "Quota exceeded when processing the request of adding 1.3 MiB, which will exceed the configured upper limit"
    at.on(PUT_MANIFEST, Reply(412, errors("DENIED", words)))


@behaviour(
    "ECR, Harbor with immutable tags",
    "lets no tag be pointed anew",
    "https://github.com/moby/buildkit/issues/3776",
    publish=Told(6, "let the tags of this repository move"),
)
def immutable_tags(at: Setting) -> None:
    words = "The image tag 'x' already exists and cannot be overwritten because the repository is immutable."
    at.on(f"{PUT_MANIFEST}(catalogue|cu124-[^/]*sm75)$", Reply(400, errors("TAG_INVALID", words)))


@behaviour(
    "a mirror, Docker's own as a cache",
    "takes nothing",
    publish=Told(6, "UNSUPPORTED"),
    wheels=Told(6, "UNSUPPORTED"),
)
def read_only(at: Setting) -> None:
    at.on("^(POST|PUT) ", Reply(405, errors("UNSUPPORTED", "The operation is unsupported.")))


@behaviour(
    "registries of before OCI 1.1",
    "refuses a manifest of a kind that it does not know",
    SPEC,
    publish=Told(6, "takes OCI artifacts"),
    wheels=Told(6, "takes OCI artifacts"),
)
def kind_refused(at: Setting) -> None:
    at.on(
        PUT_MANIFEST,
        lambda asked: (
            Reply(415, errors("MANIFEST_INVALID", "unknown media type")) if b"artifactType" in asked.body else None
        ),
    )


@behaviour("a registry that is started anew", "forgets the upload that it began", SPEC)
def upload_forgotten(at: Setting) -> None:
    at.on(PUT_BLOB, Reply(404, errors("BLOB_UPLOAD_UNKNOWN", "blob upload unknown")), times=1)


@behaviour("any", "fails in each kind of write, once", SPEC)
def writes_fail_once(at: Setting) -> None:
    for pattern in ("^POST ", PUT_BLOB, PUT_MANIFEST):
        at.on(pattern, Reply(502, b"<html>bad gateway"), times=1)


@behaviour(
    "Harbor",
    "sets a cookie, and refuses who sends it back without its counterpart",
    "https://github.com/openai/tart/issues/295",
)
def cookie(at: Setting) -> None:
    def refuse(asked: Asked) -> Reply | None:
        if asked.headers.get("Cookie"):
            return Reply(403, errors("FORBIDDEN", "CSRF token invalid"))
        if asked.method == "POST":
            place = ("Location", f"{asked.path}session")
            return Reply(202, headers=(place, ("Set-Cookie", "sid=1; Path=/")))
        return None

    at.on("", refuse)


@behaviour(
    "a registry under another name",
    "sends what is written on with 301, which would lose it",
    SPEC,
    publish=Told(6, "it sends on to"),
    wheels=Told(6, "it sends on to"),
)
def moved(at: Setting) -> None:
    at.on("^POST ", Reply(301, headers=(("Location", "https://registry.example.com/v2/x/blobs/uploads/"),)))


@behaviour(
    "hostile registries",
    "sends an upload on to an address with an escape sequence",
    publish=Told(6, "it sends on to http://x?c/"),
    wheels=Told(6, "it sends on to http://x?c/"),
)
def sent_to_a_terminal(at: Setting) -> None:
    at.on("^POST ", Reply(301, headers=(("Location", "http://x\x1bc/"),)))


@behaviour("registries of several replicas", "shows a manifest a moment after it took it")
def seen_later(at: Setting) -> None:
    fresh: dict[str, int] = {}

    def rule(asked: Asked) -> Reply | None:
        if asked.method == "PUT":
            fresh[asked.path] = 2
        elif fresh.get(asked.path, 0):
            fresh[asked.path] -= 1
            return Reply(404, errors("MANIFEST_UNKNOWN", "manifest unknown"))
        return None

    at.on("/manifests/", rule)
