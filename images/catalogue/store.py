"""A repository of published images: its catalogue, its tags, what hangs on an image. Reading it, and writing it safely.

A tag is written last, after all that it stands for: who reads at any moment sees the old state or the new one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from images.catalogue.model import FILE, KIND, TAG, Catalogue, PublishedImage, check_labels, read_catalogue, tags_of
from images.core import UTC, RegistryFailure, Unsafe, work_folder
from images.registry import INDEX, ArtifactPart, Cosign, Identity, Manifest, Repository, artifact, read_blob, read_image

JSON = "application/json"
# Of publishers that write at the same time, one succeeds in each round.
# Seconds between a write and the check that nobody has overwritten it.
_ROUNDS = 20
_SETTLE = 2.0
_CHANCE = random.SystemRandom()
Say = Callable[[str], None]


@dataclass(frozen=True)
class SigningKeys:
    """How to sign and verify: cosign, a private key (None: this CI job's identity), and who must have signed."""

    cosign: Cosign
    private: Path | None = None
    signer: Path | Identity | None = None


class ImageGone(RegistryFailure):
    """The registry has no image under a digest that the catalogue names."""


def utc_now() -> str:
    """This moment, as catalogues write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def empty_catalogue() -> Catalogue:
    """The catalogue of a repository that has none yet."""
    return Catalogue.model_validate({"schema": 1, "updated": utc_now()})


def fetch_catalogue(repository: Repository, keys: SigningKeys | None = None) -> tuple[Catalogue | None, str]:
    """The catalogue and its digest; None and "" where the repository has none.

    With a signer, its signature is verified before anything in it is read. Raises Unsafe, RegistryFailure.
    """
    stored = artifact.look(repository, TAG, KIND)
    if stored is None:
        return None, ""
    where = f"{repository.name}:{TAG}"
    if keys is not None and keys.signer is not None:
        keys.cosign.verify(repository.name, stored.digest, keys.signer)
    if FILE not in stored.files:
        raise Unsafe("the catalogue cannot be trusted", cause=f"it holds no {FILE}", where=where)
    return read_catalogue(read_blob(repository, stored.files[FILE]), where), stored.digest


def change_catalogue(
    repository: Repository, change: Callable[[Catalogue], Catalogue], keys: SigningKeys | None = None
) -> Catalogue:
    """Read the catalogue, change it, write and sign it, and move its tag last; the catalogue that is there then.

    Registries cannot compare and swap. So it is read again after a while, and where another publisher has overwritten
    the change, it is made again on theirs: ``change`` must leave a catalogue that has it as it is.
    """
    for _ in range(_ROUNDS):
        before, read = fetch_catalogue(repository)
        after = change(before or empty_catalogue())
        if before is not None and before.model_copy(update={"updated": after.updated}) == after:
            return before
        with work_folder("catalogue") as folder:
            file = folder / FILE
            file.write_text(after.to_json(), encoding="utf-8")
            digest = artifact.push(repository, None, KIND, [ArtifactPart(file, JSON)], {})
        if keys is not None:
            keys.cosign.sign(repository.name, digest, keys.private)
        current = repository.manifest(TAG)
        if (current.digest if current else "") == read:
            with suppress(Unsafe):  # another was faster by a hair: the next round sees it
                set_tag(repository, TAG, digest)
        repository.pause(_SETTLE * _CHANCE.uniform(0.5, 1.5))
    raise RegistryFailure(
        f"{repository.name}: the catalogue changes faster than it can be written",
        do="see who else publishes there, then run the same again",
    )


def set_tag(repository: Repository, tag: str, digest: str) -> None:
    """Point a tag at a manifest of the repository and read it back. Raises Unsafe where the tag names another one."""
    manifest = _manifest(repository, digest)
    repository.put_manifest(manifest.raw, tag, manifest.media_type)
    named = repository.read_back(tag)
    if named is None or named.digest != digest:
        raise Unsafe(
            f"{repository.name}:{tag} is not what was just written",
            cause=f"wrote {digest}, it names {named.digest if named else 'nothing'}",
            do="see who else writes this tag, then run the same again",
        )


def _manifest(repository: Repository, digest: str) -> Manifest:
    manifest = repository.read_back(digest)
    if manifest is None:
        raise RegistryFailure(
            f"{repository.name}: the registry has no {digest} any more",
            cause="it was there a moment ago: a clean-up removes what no tag names",
            do="run the same again",
        )
    return manifest


def repair_tags(repository: Repository, variant: str, tag: str = "", say: Say = lambda _: None) -> tuple[str, ...]:
    """Point the tags of a variant, and ``tag``, at what the catalogue says, where they name something else.

    Those that were pointed are given back.

    The catalogue is what several publishers agree on, one entry after the other; so tags follow it, and where it
    changes meanwhile they are looked at again. Raises Unsafe for an image that is not what its entry says,
    RegistryFailure where tags and catalogue do not come to rest.
    """
    pointed: list[str] = []
    for _ in range(_ROUNDS):
        catalogue, _ = fetch_catalogue(repository)
        wanted = tags_of(catalogue, variant, tag) if catalogue else {}
        wrong = {tag: digest for tag, digest in wanted.items() if _named(repository, tag) != digest}
        if catalogue is None or not wrong:
            return tuple(dict.fromkeys(pointed))
        for digest in dict.fromkeys(wrong.values()):
            check_content(repository, catalogue.by_digest[digest])
        for name, digest in wrong.items():
            with suppress(Unsafe):  # somebody else points it at this moment: the next round sees what it names
                set_tag(repository, name, digest)
            say(f"{name} -> {digest}")
            pointed.append(name)
    raise RegistryFailure(
        f"{repository.name}: the tags of {variant} change faster than they can be written",
        do="see who else publishes there, then run the same again",
    )


def _named(repository: Repository, tag: str) -> str:
    found = repository.manifest(tag)
    return found.digest if found else ""


def check_image(repository: Repository, image: PublishedImage) -> None:
    """`check_content`, and its immutable tag must name nothing else."""
    check_content(repository, image)
    named = repository.manifest(image.tag)
    if named is not None and named.digest != image.digest:
        raise Unsafe(
            f"the tag {image.tag} was pointed at something else, and it never moves",
            cause=f"the catalogue has {image.digest}, the tag names {named.digest}",
            do="do not use it; tell whoever publishes it: ./inv publish points it at what the catalogue has",
            where=f"{repository.name}:{image.tag}",
        )


def check_content(repository: Repository, image: PublishedImage) -> None:
    """Compare what the registry has under an image's digest with the image's entry in the catalogue.

    Its configuration and layers must be those, and its labels must say the same. Raises Unsafe for the first that does
    not, ImageGone where the image is not there.
    """
    where = f"{repository.name}@{image.digest}"
    stored = read_image(repository, image.digest)
    if stored is None:
        raise ImageGone(
            f"{image.variant} is in the catalogue, but the registry does not have it",
            cause=f"it knows no {image.digest}",
            do="tell whoever publishes it (./inv publish publishes it again); take another image meanwhile",
            where=repository.name,
        )
    if stored.config != image.config or tuple(layer.digest for layer in stored.layers) != image.layers:
        raise Unsafe(
            f"the image of {image.variant} is not made of what the catalogue says",
            cause="its configuration or its layers are others",
            do="do not use it; tell whoever publishes it",
            where=where,
        )
    check_labels(image, stored.labels, where)


def attach_file(repository: Repository, digest: str, kind: str, part: ArtifactPart) -> str:
    """Hang a file on an image, as a referrer of it; the digest of its manifest. The same file again changes nothing.

    Registries without the referrers API (OCI 1.1) get the list of an image's referrers as the specification wants it:
    an index under the tag "sha256-…".
    """
    subject = _manifest(repository, digest)
    descriptor = {"mediaType": subject.media_type, "digest": digest, "size": len(subject.raw)}
    attached = artifact.push(repository, None, kind, [part], {}, subject=descriptor)
    manifest = _manifest(repository, attached)
    tag = digest.replace(":", "-")
    listed: list[dict[str, Any]] = []
    if (index := repository.manifest(tag)) is not None and index.media_type == INDEX:
        there = index.content.get("manifests")
        listed = [one for one in there if isinstance(one, dict)] if isinstance(there, list) else []
    if all(one.get("digest") != attached for one in listed):
        listed = [one for one in listed if one.get("artifactType") != kind]
        listed.append(
            {"mediaType": manifest.media_type, "digest": attached, "size": len(manifest.raw), "artifactType": kind}
        )
        content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        repository.put_manifest(json.dumps(content, indent=1).encode(), tag, INDEX)
    return attached
