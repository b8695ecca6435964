"""Images built at a builder of their own: pushed by digest there, pulled from there to be proven, labelled there.

No layer goes through this machine but by the engine's own pull, and none is sent twice: labels are in an image's
configuration, so a labelled image is a new configuration and a manifest beside the layers that were pushed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from images.build.job import Job
from images.core import RegistryFailure, Report, work_folder
from images.docker import Builder, Engine, ImageFacts
from images.registry import CONFIG, Blob, Packing, RemoteImage, Repository, digest_of, make_manifest, read_image
from images.render import Pushing


@dataclass(frozen=True)
class AtBuilder:
    """Where to build, where to push to, how layers are packed, and the repository of the build's cache ("": none)."""

    builder: Builder
    repository: Repository
    packing: Packing = "gzip"
    cache: str = ""

    @property
    def pushing(self) -> Pushing:
        """As the bake file has it."""
        return Pushing(self.repository.name, self.packing, self.cache)


def take(engine: Engine, at: AtBuilder, job: Job, digest: str, report: Report) -> RemoteImage:
    """Have the engine pull what was pushed, under the working name of its job: so what is proven is what was pushed.

    Raises RegistryFailure where it is not there or comes back as another.
    """
    with report.step(f"pull {job.variant.id} by digest") as step:
        step.note(digest)
        return _pulled(engine, at.repository, digest, (job.staging,))


def name(
    engine: Engine, at: AtBuilder, job: Job, image: RemoteImage, labels: Mapping[str, str], report: Report
) -> RemoteImage:
    """The image with these labels too: pushed by its digest, pulled, and named as its job wants it; what it is then."""
    with report.step(f"label {job.variant.id} in {at.repository.name}") as step:
        digest = _push_labelled(at.repository, image, labels)
        step.note(digest)
        return _pulled(engine, at.repository, digest, job.tags)


def _push_labelled(repository: Repository, image: RemoteImage, labels: Mapping[str, str]) -> str:
    """The digest of the manifest whose configuration has the labels; the layers stay where they are."""
    content = json.loads(image.configuration)
    settings = content.setdefault("config", {})
    settings["Labels"] = {**(settings.get("Labels") or {}), **labels}
    raw = json.dumps(content).encode()
    with work_folder("labels") as folder:
        path = folder / "config.json"
        path.write_bytes(raw)
        repository.upload(path, digest_of(raw))
    manifest = make_manifest(Blob(CONFIG, digest_of(raw), len(raw)), _plain(image.layers))
    return repository.put_manifest(manifest, digest_of(manifest))


def _plain(layers: tuple[Blob, ...]) -> list[Blob]:
    """The layers without a builder's notes on them: the same layers give the same manifest."""
    return [Blob(layer.media_type, layer.digest, layer.size) for layer in layers]


def _pulled(engine: Engine, repository: Repository, digest: str, names: tuple[str, ...]) -> RemoteImage:
    reference = f"{repository.name}@{digest}"
    image = read_image(repository, digest)
    if image is None:
        raise RegistryFailure(
            f"{reference} is not there",
            cause="it was pushed a moment ago",
            do="see who cleans up there, then run the same again",
        )
    engine.pull(reference)
    facts = engine.inspect(reference)
    # An image's id is its configuration's digest; for an engine with the containerd store, its manifest's.
    if facts is None or facts.id not in (image.config, image.digest):
        raise RegistryFailure(
            f"{reference} does not come back as the image that was pushed",
            cause=f"it is {facts.id if facts else 'not there'}, pushed was {image.config}",
        )
    for one in names:
        engine.tag(reference, one)
    engine.drop_name(reference)  # it would keep the image on the engine for good
    return image


def unpacked_sizes(engine: Engine, reference: str, image: RemoteImage, facts: ImageFacts) -> tuple[int, ...]:
    """Bytes of each layer unpacked, base first, as the engine tells them; the whole for the first where it does not."""
    told = json.loads(image.configuration).get("history") or []
    sizes = engine.layer_sizes(reference)[::-1]
    if len(told) == len(sizes):
        kept = tuple(size for row, size in zip(told, sizes, strict=True) if not row.get("empty_layer"))
        if len(kept) == len(image.layers):
            return kept
    return (facts.size, *(0 for _ in image.layers[1:]))
