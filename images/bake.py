"""The bake file: what buildx builds for each variant, and what this machine adds to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images.matrix import Base, Matrix
from images.variants import Variant

CONTEXT = "dockerfiles"
DEVICE_CODE = "images/device_code"
STAGING = "cardstock/staging"


def target_name(variant_id: str) -> str:
    """A variant's bake target: bake allows no dots in names."""
    return variant_id.replace(".", "-")


def registry_reference(base: Base) -> str | None:
    """Such as "debian@sha256:…"; None while the digest is not resolved: a tag alone is never built on."""
    if base.digest is None:
        return None
    return f"{base.image.rpartition(':')[0] or base.image}@{base.digest}"


def bake_target(matrix: Matrix, variant: Variant) -> dict[str, Any]:
    """One target, without anything that belongs to a machine."""
    contexts: dict[str, str] = {"device-code": DEVICE_CODE}
    for name, base in _bases_of(matrix, variant).items():
        if reference := registry_reference(base):
            contexts[name] = f"docker-image://{reference}"
    return {
        "context": CONTEXT,
        "dockerfile": f"rendered/{variant.id}/Dockerfile",
        "contexts": contexts,
        "platforms": ["linux/amd64"],
        "target": "runtime",
    }


def _bases_of(matrix: Matrix, variant: Variant) -> dict[str, Base]:
    bases = {"base": matrix.bases["bookworm"]}
    if variant.kernel and variant.cuda and matrix.toolkits[variant.cuda].nvcc == "devel-image":
        bases["devel"] = matrix.devel_images[variant.cuda]
    return bases


def bake_file(matrix: Matrix, variants: Sequence[Variant]) -> str:
    """The committed docker-bake.json: every variant a target, a group for each stack and for all."""
    groups: dict[str, list[str]] = {"default": [target_name(v.id) for v in variants]}
    for variant in variants:
        groups.setdefault(variant.stack, []).append(target_name(variant.id))
    return _json(
        {
            "group": {name: {"targets": targets} for name, targets in groups.items()},
            "target": {target_name(v.id): bake_target(matrix, v) for v in variants},
        }
    )


def bake_plan(matrix: Matrix, variants: Mapping[Variant, Sequence[str]]) -> dict[str, Any]:
    """What a build would hand to bake, for people: targets with the names their images get."""
    return {"target": {target_name(v.id): bake_target(matrix, v) | {"tags": list(t)} for v, t in variants.items()}}


@dataclass(frozen=True)
class Site:
    """What this machine adds: named contexts for bases, build secrets (id -> file)."""

    contexts: tuple[tuple[str, str], ...]
    secrets: tuple[tuple[str, str], ...]


def override_file(variants: Mapping[str, str], site: Site) -> str:
    """The second bake file, never committed: ``variants`` maps id to the staging reference it is built as."""
    secrets = [f"id={name},src={path}" for name, path in site.secrets]
    return _json(
        {
            "target": {
                target_name(variant_id): {
                    "contexts": dict(site.contexts),
                    "secret": secrets,
                    "tags": [reference],
                    "output": ["type=docker"],
                }
                for variant_id, reference in variants.items()
            }
        }
    )


def finish_file(reference: str, tags: Sequence[str], labels: Mapping[str, str]) -> str:
    """A bake file that gives a built image its labels and tags: configuration only, no new layer."""
    return _json(
        {
            "target": {
                "finish": {
                    "context": CONTEXT,
                    "dockerfile-inline": "FROM built\n",
                    "contexts": {"built": f"docker-image://{reference}"},
                    "labels": {name: _literal(value) for name, value in labels.items()},
                    "tags": list(tags),
                    "output": ["type=docker"],
                }
            }
        }
    )


def _literal(text: str) -> str:
    """Text that bake's template language leaves as it is."""
    return text.replace("${", "$${").replace("%{", "%%{")


def _json(data: Any) -> str:
    return json.dumps(data, indent=1) + "\n"
