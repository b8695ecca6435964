"""What this machine hands to a build: named contexts for its bases, build secrets for its site. Nothing of it stays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from images.core import RegistryFailure, Report, SiteSettings
from images.docker.base_image import apt_sources, base_context, ca_bundle
from images.docker.engine import Engine
from images.matrix import Base, Kernel, Matrix
from images.render import registry_reference

# The Debian suite whose non-free part packages a CUDA compiler (12.4).
TOOLKIT_SUITE = "trixie"
# What says that sccache's storage is elsewhere, and what belongs to it (sccache, docs/Configuration.md).
_REMOTE_CACHE = re.compile(r"SCCACHE_(BUCKET|ENDPOINT|REDIS|MEMCACHED|GCS|GHA|AZURE|WEBDAV|OSS|COS)")
_CACHE_SETTINGS = ("SCCACHE_", "AWS_", "ACTIONS_", "ALIBABA_CLOUD_", "TENCENTCLOUD_")


def pin_base(image: Base, engine: Engine, site: SiteSettings, report: Report) -> str | None:
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
    matrix: Matrix, kernels: Iterable[Kernel], engine: Engine, site: SiteSettings, report: Report
) -> tuple[tuple[str, str], ...]:
    """What the Dockerfiles' ``FROM base`` is on this machine, and ``FROM devel`` if these kernels are compiled along.

    Raises RegistryFailure for a kernel whose compiler image cannot be had.
    """
    contexts = dict(compiler_image(matrix, kernels, engine, site, report))
    with report.step("base image"):
        base = pin_base(matrix.bases["bookworm"], engine, site, report)
        contexts["base"] = base_context("bookworm", engine, registry=base, site=site, say=report.line)
    return tuple(contexts.items())


def compiler_image(
    matrix: Matrix, kernels: Iterable[Kernel], engine: Engine, site: SiteSettings, report: Report
) -> dict[str, str]:
    """The context ``devel`` where some of these kernels want one. Raises RegistryFailure where it cannot be had."""
    contexts = {}
    for kernel in kernels:
        if matrix.toolkits[kernel.cuda].nvcc != "devel-image":
            continue
        devel = matrix.devel_images[kernel.cuda]
        reference = pin_base(devel, engine, site, report)
        if reference is None:
            raise RegistryFailure(
                f"{kernel.id} cannot be compiled here: no compiler for CUDA {kernel.cuda}",
                cause=f"nvcc {kernel.cuda} comes in {devel.image}: no digest in matrix.yaml, no registry here",
                do="take the finished wheel from a registry (--wheels REPO), use an engine that reaches one, or take "
                f"sdpa: ./inv plan --cuda {kernel.cuda} --attention sdpa",
                where=matrix.where("devel_images", kernel.cuda, "digest"),
            )
        contexts["devel"] = f"docker-image://{reference}"
    return contexts


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


def compiler_secrets(folder: Path, site: SiteSettings, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """As `secrets`, for compiling: with the settings of a compiler cache elsewhere, if the site has one.

    They are the site's file, or what sccache itself would read from ``environment``. Without one, the builder keeps
    its own cache.
    """
    found = secrets(folder, site, ())
    path = site.sccache
    if path is None and any(_REMOTE_CACHE.match(name) for name in environment):
        path = folder / "sccache"
        lines = (f"{name}={value}\n" for name, value in environment.items() if name.startswith(_CACHE_SETTINGS))
        path.write_text("".join(lines), encoding="utf-8")
    return (*found, ("sccache", str(path))) if path else found
