"""What builds stand on: the base image, and what this host lends a build (apt sources, CA bundle) as secrets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from images.core import (
    EngineUnreachable,
    Layout,
    PrintLine,
    SiteSettings,
    Unsafe,
    debian,
    default_layout,
    hold,
    lock_path,
)
from images.docker import bootstrap
from images.docker.engine import Engine

REPOSITORY = "cardstock/base"
CONTEXT_SCHEME = "docker-image://"
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
HOST_CA = Path("/etc/ssl/certs/ca-certificates.crt")
_CHANGES = (
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    'CMD ["/bin/bash"]',
)


def recipe_hash(release: str) -> str:
    """Eight hex digits that change when the way a base is bootstrapped does."""
    text = bootstrap.recipe(release) + "\n".join(_CHANGES)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def local_reference(release: str) -> str:
    """The name of the base bootstrapped from packages, such as ``cardstock/base:bookworm-0123abcd``."""
    return f"{REPOSITORY}:{release}-{recipe_hash(release)}"


def base_context(
    release: str,
    engine: Engine,
    *,
    registry: str | None = None,
    site: SiteSettings | None = None,
    refresh: bool = False,
    layout: Layout | None = None,
    say: PrintLine = lambda _: None,
) -> str:
    """The buildx named context of a Debian release: ``docker-image://…``.

    ``registry`` (with a digest) is taken where the engine has it or can get it; else the release is bootstrapped from
    packages, once (``refresh``: anew, with today's security fixes), by the apt sources and CA of ``site`` or else of
    this host. Raises Unsafe for a registry image without a digest, EngineUnreachable where bootstrapping needs root or
    Debian, RegistryFailure where packages cannot be had, CardstockError where they do not install.
    """
    if registry is not None:
        reference = registry.removeprefix(CONTEXT_SCHEME)
        if "@sha256:" not in reference:
            raise Unsafe(f"base image without a digest: {reference}", do="pin it as name@sha256:… in matrix.yaml")
        if engine.inspect(reference) is not None or engine.registry_digest(reference):
            return CONTEXT_SCHEME + reference
        say(f"{reference} cannot be reached: taking Debian {release} from packages instead")
    reference, there = local_reference(release), layout or default_layout()
    if refresh or engine.inspect(reference) is None:
        with hold(lock_path("base", reference, there.home), f"the base image of {release}", say) as waited:
            if not waited or engine.inspect(reference) is None:
                _bootstrap(release, reference, engine, site or SiteSettings(), there, say)
    return CONTEXT_SCHEME + reference


def _bootstrap(
    release: str, reference: str, engine: Engine, site: SiteSettings, layout: Layout, say: PrintLine
) -> None:
    mirror = debian.host_mirror()
    sources = apt_sources(release, mirror=mirror, own=site.apt)
    if os.geteuid() != 0 or not sources:
        raise EngineUnreachable(
            f"there is no base image for Debian {release}",
            cause="bootstrapping it from packages needs root and a Debian host, or one with Debian's apt sources",
            do="reach an image registry (matrix.yaml: bases, with a digest), or run once as root (sudo) on Debian; "
            "elsewhere, name a file of Debian's sources in CARDSTOCK_APT",
        )
    with bootstrap.work_folder(layout.home) as folder:
        tar = bootstrap.make_tar(release, sources, folder, mirror=mirror, ca=site.ca, say=say)
        facts = engine.import_tar(tar, reference, _CHANGES)
    say(f"{reference}: {facts.size / 1e6:.0f} MB")


def apt_sources(
    suite: str = "bookworm", components: str = "main", *, mirror: debian.Mirror | None = None, own: Path | None = None
) -> str:
    """The build secret ``apt``: sources of ``suite`` in one-line form, from ``own`` or else from this host's mirrors.

    For ``apt-toolkit`` ask for the component non-free of the suite that has the toolkit. Empty where this host knows
    no Debian archive: the base's own sources serve then.
    """
    if own is not None:
        return own.read_text(encoding="utf-8")
    mirror = mirror or debian.host_mirror()
    return "\n".join([*mirror.lines(suite, components), ""]) if mirror else ""


def ca_bundle(own: Path | None = None, environment: Mapping[str, str] | None = None) -> Path | None:
    """The build secret ``ca``: ``own``, else the bundle that the environment names, else the host's; None without."""
    variables = os.environ if environment is None else environment
    named = [Path(variables[name]) for name in CA_VARIABLES if variables.get(name)]
    candidates = [own] if own is not None else [*named, HOST_CA]
    return next((path for path in candidates if path.is_file()), None)
