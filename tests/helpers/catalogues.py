"""Catalogues for tests: images of the project's own variants, with digests that are sums of small words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from images.catalogue.model import SCHEMA, Catalogue, PublishedImage, immutable_tag
from images.matrix.variants import Variant
from tests.helpers.matrices import variants

NOW = "2026-11-21T12:00:00Z"
SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SM75_SDPA = "cu124-transformers5.24.0-sdpa-sm75"
CPU = "cpu-vllm0.32.0-sdpa"
SHARED = 1_500_000_000


def digest(word: str) -> str:
    return f"sha256:{hashlib.sha256(word.encode()).hexdigest()}"


def fields(variant: Variant, salt: str = "", published: str = NOW) -> dict[str, Any]:
    """An image of a variant, as JSON has it; another ``salt`` is another image of it."""
    archs = [str(arch) for arch in variant.archs]
    digits = digest(f"input {variant.id} {salt}")[7:]
    proof = {"status": "passed", "reason": "", "card": None, "driver": None, "at": published}
    return {
        "variant": variant.id,
        "digest": digest(f"manifest {variant.id} {salt}"),
        "config": digest(f"config {variant.id} {salt}"),
        "tag": immutable_tag(variant.id, digits),
        "input": digits,
        "stack": variant.stack,
        "engine": variant.backend,
        "attention": variant.attention,
        "cuda": variant.cuda,
        "archs": archs,
        "audited": archs,
        "min_driver": variant.min_driver,
        "pins": {name: pin.version for name, pin in variant.pins},
        "packing": "gzip",
        "layers": [digest(f"stack {variant.lock}"), digest(f"own {variant.id} {salt}")],
        "compressed": SHARED + 7,
        "unpacked": 5_000_000_000,
        "evidence": [{"level": level, **proof} for level in ("audit", "stack", "canary")],
        "revision": "0" * 40,
        "created": published,
        "published": published,
    }


def content(images: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A catalogue as JSON has it: each variant's tag names its last image."""
    listed = list(images)
    moving: dict[str, list[str]] = {}
    for image in listed:
        moving.setdefault(image["variant"], []).append(image["digest"])
    layers = {image["layers"][0]: SHARED for image in listed} | {image["layers"][1]: 7 for image in listed}
    return {"schema": SCHEMA, "updated": NOW, "images": listed, "layers": layers, "moving": moving}


def image(name: str, salt: str = "") -> PublishedImage:
    return PublishedImage.model_validate_json(json.dumps(fields(variants().valid[name], salt)))


def catalogue(*names: str) -> Catalogue:
    """A catalogue with the named variants, or with all."""
    return catalogue_of([variants().valid[name] for name in names] or variants().valid.values())


def catalogue_of(chosen: Iterable[Variant]) -> Catalogue:
    """A catalogue with these variants."""
    return Catalogue.model_validate_json(json.dumps(content(fields(variant) for variant in chosen)))
