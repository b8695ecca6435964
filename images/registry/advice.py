"""What to do about an answer that refuses, by its status and its words. Pure."""

from __future__ import annotations

from images.registry.retry import TOO_MANY

_IMMUTABLE = ("immutable", "cannot be overwritten", "already exists")
_FULL = ("quota", "exceed", "insufficient storage", "no space")


def what_to_do(host: str, status: int | None, words: str, *, writes: bool) -> str:
    """The advice for a status of a registry's host; empty where the cause says it all.

    The order of the questions is that of certainty: a status that means one thing comes before words.
    """
    said = words.lower()
    if status == TOO_MANY:
        return (
            f"wait, then run the same again to go on; docker login {host}, if you have not (most registries allow more "
            "with a login), or take a mirror of your site"
        )
    if status == 413:
        return (
            "tell whoever runs this registry to take larger uploads: a proxy in front of it has a limit "
            "(client_max_body_size of nginx)"
        )
    if writes and any(word in said for word in _IMMUTABLE):
        return (
            "let the tags of this repository move: publishing points them at newer images; or take another repository"
        )
    if status == 507 or (writes and any(word in said for word in _FULL)):
        return "make room in the registry, or have its quota raised; then run the same again to go on"
    if status in (401, 403):
        return f"docker login {host}, if it wants a login; see that it may do that"
    if status == 404 and writes:
        return (
            "make the repository in the registry first, if it does not make them by itself; see that its name is right"
        )
    if status is not None and 300 <= status < 400:
        return "name the registry by the address that it sends to, or tell whoever runs it"
    if writes and status in (400, 405, 406, 415):
        return "see that this registry takes OCI artifacts, and that it is not read-only"
    return ""
