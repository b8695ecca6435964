"""The bake file: what buildx builds for each variant, and what this machine adds to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images.matrix import WHOLE, Base, Kernel, Matrix, Variant

CONTEXT = "dockerfiles"
DEVICE_CODE = "images/device_code"
KERNEL_BUILD = "images/kernels/inside"
STAGING = "cardstock/staging"
# The build argument with which an image has all of NVIDIA's libraries.
WHOLE_ARGUMENT = "CARDSTOCK_WHOLE"


def target_name(variant_id: str) -> str:
    """A variant's bake target: bake allows no dots in names."""
    return variant_id.replace(".", "-")


def registry_reference(base: Base) -> str | None:
    """Such as "debian@sha256:…"; None while the digest is not resolved: a tag alone is never built on."""
    if base.digest is None:
        return None
    return f"{base.image.rpartition(':')[0] or base.image}@{base.digest}"


def bake_target(matrix: Matrix, variant: Variant) -> dict[str, Any]:
    """One target, without anything that belongs to a machine; its kernel is another target's output.

    An image with all of NVIDIA's libraries is the same Dockerfile with a build argument.
    """
    contexts = {"device-code": DEVICE_CODE} | _references({"base": matrix.bases["bookworm"]})
    if variant.kernel:
        contexts["kernels"] = f"target:{variant.kernel.target}"
    target = {
        "context": CONTEXT,
        "dockerfile": f"rendered/{variant.plain.id}/Dockerfile",
        "contexts": contexts,
        "platforms": ["linux/amd64"],
        "target": "runtime",
    }
    return target | ({"args": {WHOLE_ARGUMENT: WHOLE}} if variant.whole_of else {})


def kernel_target(matrix: Matrix, kernel: Kernel) -> dict[str, Any]:
    """The target of one kernel wheel; by itself it leaves nothing but its cache."""
    bases = {"base": matrix.bases["bookworm"]}
    if matrix.toolkits[kernel.cuda].nvcc == "devel-image":
        bases["devel"] = matrix.devel_images[kernel.cuda]
    return {
        "context": CONTEXT,
        "dockerfile": f"rendered/kernels/{kernel.id}/Dockerfile",
        "contexts": {"device-code": DEVICE_CODE, "kernel-build": KERNEL_BUILD} | _references(bases),
        "platforms": ["linux/amd64"],
        "target": "wheels",
        "output": ["type=cacheonly"],
    }


def _references(bases: Mapping[str, Base]) -> dict[str, str]:
    """Named contexts of the images whose digest is known."""
    known = {name: registry_reference(base) for name, base in bases.items()}
    return {name: f"docker-image://{reference}" for name, reference in known.items() if reference}


def bake_file(matrix: Matrix, variants: Sequence[Variant], kernels: Sequence[Kernel]) -> str:
    """The committed docker-bake.json: variants and kernel wheels as targets; groups of a stack, all, the kernels."""
    groups: dict[str, list[str]] = {"default": [target_name(v.id) for v in variants]}
    for variant in variants:
        groups.setdefault(variant.stack, []).append(target_name(variant.id))
    groups["kernels"] = [kernel.target for kernel in kernels]
    targets = {target_name(v.id): bake_target(matrix, v) for v in variants}
    targets |= {kernel.target: kernel_target(matrix, kernel) for kernel in kernels}
    return _json({"group": {name: {"targets": names} for name, names in groups.items()}, "target": targets})


def bake_plan(matrix: Matrix, variants: Mapping[Variant, Sequence[str]]) -> dict[str, Any]:
    """What a build would hand to bake, for people: targets with the names their images get."""
    return {"target": {target_name(v.id): bake_target(matrix, v) | {"tags": list(t)} for v, t in variants.items()}}


@dataclass(frozen=True)
class MachineInputs:
    """What this machine adds: named contexts for bases, build secrets (id -> file)."""

    contexts: tuple[tuple[str, str], ...]
    secrets: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pushing:
    """What a builder of its own is told: the ``repository`` that it pushes to, and the one of its ``cache``, if any."""

    repository: str
    packing: str = "gzip"
    cache: str = ""

    def target(self, name: str) -> dict[str, Any]:
        """Of an image: pushed by digest alone."""
        # Not stored at the builder: two images of one build would be stored under one name, and the later one refused.
        by_digest = f"name={self.repository},push-by-digest=true,name-canonical=true,push=true,store=false"
        # Forced: the layers of a base that came as a layout are not packed at all, and would be pushed so.
        packed = f"oci-mediatypes=true,compression={self.packing},force-compression=true"
        return {"tags": [], "output": [f"type=image,{by_digest},{packed}"], **self.cached(name)}

    def cached(self, name: str) -> dict[str, Any]:
        """Of any target: all its steps kept in the registry, and taken from there."""
        if not self.cache:
            return {}
        place = f"type=registry,ref={self.cache}:cache-{name}"
        return {"cache-from": [place], "cache-to": [f"{place},mode=max,image-manifest=true,oci-mediatypes=true"]}


def override_file(
    variants: Mapping[Variant, str],
    site: MachineInputs,
    *,
    wheels: Mapping[str, str] | None = None,
    kernels: Sequence[Kernel] = (),
    pushed: Pushing | None = None,
) -> str:
    """The second bake file, never committed: ``variants`` maps each to the staging reference it is built as.

    With ``pushed`` no image comes to the engine: a builder pushes it by its digest, and it has no name.

    The committed file has no target of an image with all of NVIDIA's libraries: here it inherits that of its variant.
    ``wheels`` maps a variant's id to the folder with its kernel's wheel, so that nothing is compiled; ``kernels`` are
    compiled along, as parts of the variants that need them.
    """
    secrets = [f"id={name},src={path}" for name, path in site.secrets]
    machine: dict[str, Any] = {"contexts": dict(site.contexts), "secret": secrets}
    folders = {variant_id: {"kernels": folder} for variant_id, folder in (wheels or {}).items()}
    targets: dict[str, Any] = {
        target_name(variant.id): {
            **_whole(variant),
            **machine,
            "contexts": dict(site.contexts) | folders.get(variant.id, {}),
            **(pushed.target(variant.id) if pushed else {"tags": [reference], "output": ["type=docker"]}),
        }
        for variant, reference in variants.items()
    }
    along = {kernel.target: machine | (pushed.cached(kernel.target) if pushed else {}) for kernel in kernels}
    return _json({"target": targets | along})


def _whole(variant: Variant) -> dict[str, Any]:
    if variant.whole_of is None:
        return {}
    return {"inherits": [target_name(variant.whole_of.id)], "args": {WHOLE_ARGUMENT: WHOLE}}


def kernel_override_file(
    kernels: Mapping[Kernel, str], site: MachineInputs, args: Mapping[str, str], pushed: Pushing | None = None
) -> str:
    """The second bake file of kernel wheels by themselves: ``kernels`` maps each to the folder its files go to.

    ``args`` are build arguments: CARDSTOCK_KERNEL_JOBS, CARDSTOCK_KERNEL_CACHE (dockerfiles/templates/kernel.j2);
    of ``pushed`` the cache counts.
    """
    secrets = [f"id={name},src={path}" for name, path in site.secrets]
    machine: dict[str, Any] = {"contexts": dict(site.contexts), "secret": secrets, "args": dict(args)}
    targets = {
        kernel.target: machine
        | {"output": [f"type=local,dest={folder}"]}
        | (pushed.cached(kernel.target) if pushed else {})
        for kernel, folder in kernels.items()
    }
    return _json({"target": targets})


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
