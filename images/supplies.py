"""What this machine hands to a build: named contexts for its bases, build secrets for its site. Nothing of it stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.bake import registry_reference
from images.bases import apt_sources, base_context, ca_bundle
from images.engine import Engine
from images.errors import RegistryFailure
from images.jobs import Job
from images.matrix import Base, Matrix
from images.report import Report
from images.site import SiteSettings
from images.states import lock_indexes

# The Debian suite whose non-free part packages a CUDA compiler (12.4).
TOOLKIT_SUITE = "trixie"


def resolve(image: Base, engine: Engine, site: SiteSettings, report: Report) -> str | None:
    """An image by digest: as pinned, else as the registry of the user's own engine has it today; None out of reach.

    The embedded engine is for machines without a registry: it is not asked.
    """
    if site.bases == "packages":
        return None
    if image.digest is None and not engine.embedded and (digest := engine.registry_digest(image.image)):
        report.line(f"{image.image} is {digest} today; matrix.yaml does not pin it, so this image is for local use")
        image = Base(image=image.image, digest=digest)
    return registry_reference(image)


def named_contexts(
    matrix: Matrix, jobs: Sequence[Job], engine: Engine, site: SiteSettings, report: Report
) -> tuple[tuple[str, str], ...]:
    """What the Dockerfiles' ``FROM base`` and ``FROM devel`` are on this machine.

    Raises RegistryFailure for a job whose kernels need a compiler image that cannot be had.
    """
    contexts: dict[str, str] = {}
    for job in jobs:
        cuda = job.variant.cuda
        if job.variant.kernel is None or cuda is None or matrix.toolkits[cuda].nvcc != "devel-image":
            continue
        devel = matrix.devel_images[cuda]
        reference = resolve(devel, engine, site, report)
        if reference is None:
            raise RegistryFailure(
                f"{job.variant.id} cannot be built here: no compiler for CUDA {cuda}",
                cause=f"nvcc {cuda} comes in {devel.image}, which has no digest in matrix.yaml and no registry here",
                do=f"use an engine that reaches a registry, or take sdpa: ./inv plan --cuda {cuda} --attention sdpa",
                where=matrix.where("devel_images", cuda, "digest"),
            )
        contexts["devel"] = f"docker-image://{reference}"
    with report.step("base image"):
        base = resolve(matrix.bases["bookworm"], engine, site, report)
        contexts["base"] = base_context("bookworm", engine, registry=base, say=report.line)
    return tuple(contexts.items())


def unlocked_indexes(matrix: Matrix, jobs: Sequence[Job]) -> tuple[str, ...]:
    """Package indexes that jobs without a lock need beside the default one."""
    keys = [(job.variant.stack, job.variant.engine) for job in jobs if job.state != "locked"]
    return tuple(dict.fromkeys(index for key in keys for index in lock_indexes(matrix, *key)))


def secrets(folder: Path, site: SiteSettings, indexes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Build secrets of this site: id -> file. They exist while a RUN step does, and in no layer."""
    sources = {"apt": apt_sources(own=site.apt), "apt-toolkit": apt_sources(TOOLKIT_SUITE, "non-free")}
    found: dict[str, Path | None] = {"ca": ca_bundle(site.ca), "uv": site.uv, "pip": site.pip}
    if indexes:
        own = site.uv.read_text(encoding="utf-8") if site.uv else ""
        sources["uv"] = own + "".join(f'\n[[index]]\nurl = "{index}"\n' for index in indexes)
    for name, text in sources.items():
        if text:
            found[name] = folder / name
            (folder / name).write_text(text, encoding="utf-8")
    return tuple((name, str(path)) for name, path in found.items() if path)
