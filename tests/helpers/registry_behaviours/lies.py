"""What registries and those who write to them can lie about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.helpers.registries import Asked, Reply
from tests.helpers.registry_behaviours.setting import Setting, Told, behaviour

Change = Callable[[dict[str, Any]], object]


def _other_manifests(at: Setting, change: Change, tag: str = "") -> None:
    """Manifests by tag are changed, with a digest that fits: as one who writes there can leave them."""

    def rule(asked: Asked) -> Reply | None:
        kind, data = at.shelf.manifests.get(asked.path.rpartition("/")[2], ("", b""))
        if not data or ":" in asked.path.rpartition("/")[2] or tag not in asked.path:
            return None
        content = json.loads(data)
        if "layers" not in content:
            return None
        change(content)
        if content == json.loads(data):
            return None
        raw = json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        return Reply(200, raw, (("Content-Type", kind), ("Docker-Content-Digest", digest)))

    at.on("^GET .*/manifests/", rule)


@behaviour(
    "tampering",
    "gives other bytes of a blob than its digest",
    told=Told(7, "not what its digest says"),
)
def other_bytes(at: Setting) -> None:
    at.on(
        "^GET .*/blobs/",
        lambda asked: Reply(200, bytes(byte ^ 1 for byte in at.shelf.blobs[asked.path.rpartition("/")[2]])),
    )


@behaviour(
    "tampering",
    "gives more bytes of a blob than its size",
    told=Told(7, "not what its digest says"),
)
def more_bytes(at: Setting) -> None:
    at.on(
        "^GET .*/blobs/",
        lambda asked: Reply(200, (at.shelf.blobs[asked.path.rpartition("/")[2]] for _ in range(1 << 40))),
    )


@behaviour(
    "broken caches", "gives another manifest than the digest that it names", told=Told(7, "not what its digest says")
)
def other_manifest(at: Setting) -> None:
    def rule(asked: Asked) -> Reply | None:
        _, data = at.shelf.manifests.get(asked.path.rpartition("/")[2], ("", b""))
        return Reply(200, data + b" ", (("Docker-Content-Digest", "sha256:" + "0" * 64),)) if data else None

    at.on("^GET .*/manifests/", rule)


LIES: dict[str, tuple[str, Change]] = {
    "layers_are_a_number": ("layers that are a number", lambda c: c.update(layers=7)),
    "layers_are_texts": ("layers that are texts", lambda c: c.update(layers=["a", "b"])),
    "too_many_layers": ("fifteen thousand layers", lambda c: c.update(layers=c["layers"][:1] * 15_000)),
    "no_config": ("no configuration", lambda c: c.pop("config")),
    "config_is_a_list": ("a configuration that is a list", lambda c: c.update(config=[])),
    "size_without_measure": ("a size of four thousand digits", lambda c: c["layers"][0].update(size=10**4000)),
    "size_below_zero": ("a size below zero", lambda c: c["layers"][0].update(size=-1)),
    "size_is_true": ("a size that is true", lambda c: c["layers"][0].update(size=True)),
    "digest_is_a_path": ("a digest that is a path", lambda c: c["layers"][0].update(digest="sha256:../../etc")),
    "notes_are_a_list": ("notes that are a list", lambda c: c["layers"][0].update(annotations=[1])),
    "title_is_a_list": (
        "a file's name that is a list",
        lambda c: c["layers"][0].update(annotations={"org.opencontainers.image.title": ["a"]}),
    ),
    "title_is_a_path": (
        "a file's name that is a path",
        lambda c: c["layers"][0].update(annotations={"org.opencontainers.image.title": "../../x"}),
    ),
    "another_kind": ("another kind", lambda c: c.update(artifactType={"a": 1})),
}
for name, (does, change) in LIES.items():

    def arrange(at: Setting, change: Change = change) -> None:
        _other_manifests(at, change)

    arrange.__name__ = name
    behaviour("lying manifests", f"names {does}", told=Told(7, ""))(arrange)


@behaviour(
    "lying manifests",
    "says that a catalogue, a wheel's record, has a terabyte",
    pull=Told(7, "more than"),
    publish=Told(7, "more than"),
    wheels=Told(7, "more than"),
)
def file_without_measure(at: Setting) -> None:
    _other_manifests(at, lambda c: c["layers"][0].update(size=1 << 40))


@behaviour("a newer Cardstock", "has written there", told=Told(2, "newer version"))
def newer_kind(at: Setting) -> None:
    _other_manifests(
        at, lambda c: "artifactType" in c and c.update(artifactType=c["artifactType"].replace(".v1", ".v2"))
    )
