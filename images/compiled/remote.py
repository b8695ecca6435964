"""Compiled code in a registry: an artifact a key, its tag made of the key, signed as images are, its subject the image.

By digest first: files, manifest and signature are there before the tag is. What comes from there is verified before
anything of it is read, and then held against its key, its record and the bounds of an archive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from images.catalogue import SigningKeys, fetch_catalogue, set_tag
from images.compiled.key import CompiledKey, tag_start
from images.compiled.record import ARCHIVE, FILE, MOST, CompiledRecord, parse_record
from images.compiled.store import CompiledStore, Kept, Origin, signer_text
from images.core import CardstockError, Unsafe
from images.registry import Artifact, ArtifactPart, Repository, artifact, read_blob

KIND = "application/vnd.cardstock.compiled.v1"
_RECORD = "application/vnd.cardstock.compiled.v1+json"
_ARCHIVE = "application/gzip"
MOST_ARCHIVE = 4 << 30  # bytes of an archive
_LOOKED_AT = 16  # artifacts of an image whose records are read to say what differs
_OF_AN_IMAGE = 256  # artifacts of an image that a pull looks at
Say = Callable[[str], None]


class NotTrusted(Unsafe):
    """There is compiled code, and nobody said whose signature it must have."""


def push(
    repository: Repository, kept: Kept, keys: SigningKeys | None, say: Say = lambda _: None, image: str = ""
) -> str:
    """Write compiled code to a repository, sign it, and point its tag at it last; the digest of its manifest.

    What the tag has named before is replaced. ``image`` is the digest of the image's manifest there, "" where it is to
    be looked for in the catalogue. Raises RegistryFailure, Unsafe.
    """
    record, key = kept.record, kept.record.key
    subject = _subject(repository, image or _published(repository, record.id))
    if subject is None:
        say(f"{repository.name} has no image {record.id[:19]}: the compiled code is kept there by its tag alone")
    notes = {
        "dev.cardstock.compiled.key": key.digest,
        "dev.cardstock.variant": record.variant,
        "org.opencontainers.image.title": f"compiled code of {record.variant} for {key.card or key.capability}",
    }
    parts = [ArtifactPart(kept.record_file, _RECORD), ArtifactPart(kept.archive, _ARCHIVE)]
    digest = artifact.push(repository, None, KIND, parts, notes, subject)
    if keys is not None:
        keys.cosign.sign(repository.name, digest, keys.private)
    set_tag(repository, key.tag, digest)
    return digest


def _published(repository: Repository, identifier: str) -> str:
    """The manifest's digest of the image that an engine knows by this id; "" where the catalogue has none."""
    catalogue, _ = fetch_catalogue(repository)
    images = catalogue.images if catalogue else ()
    return next((image.digest for image in images if identifier in (image.config, image.digest)), "")


def _subject(repository: Repository, digest: str) -> dict[str, Any] | None:
    """The descriptor of an image's manifest; None where the repository has none."""
    manifest = repository.manifest(digest) if digest else None
    if manifest is None:
        return None
    return {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.raw)}


def fetch(
    repository: Repository, key: CompiledKey, store: CompiledStore, keys: SigningKeys | None, *, unsigned: bool = False
) -> Kept | None:
    """The compiled code of a key, verified and taken into the store; None where the repository has none.

    ``unsigned``: the user has said that what nobody has signed may be used. Raises NotTrusted without it and without a
    signer, Unsafe for what is not signed by that signer, for other bytes than its digest, another key's record, or an
    archive that is none; RegistryFailure where it cannot be had. Nothing is stored then.
    """
    there = artifact.look(repository, key.tag, KIND)
    return None if there is None else _taken(repository, there, key, store, keys, unsigned=unsigned)


def fetch_all(
    repository: Repository,
    image: str,
    store: CompiledStore,
    keys: SigningKeys | None,
    wanted: Callable[[CompiledKey], bool],
    say: Say,
    *,
    unsigned: bool = False,
) -> list[Kept]:
    """All compiled code of an image (its `image_hash`) whose key is ``wanted``, verified, in the store.

    What is refused is said, and the rest goes on. Raises RegistryFailure where the registry does not answer.
    """
    out = []
    for tag in list(_tags(repository, image))[:_OF_AN_IMAGE]:
        try:
            there = artifact.look(repository, tag, KIND)
            if there is None:
                continue
            verify(repository, there, keys, unsigned=unsigned)
            key = _record(repository, there).key
            if key.image != image or key.tag != tag:
                raise _refused(repository, tag, f"its record is of another key, {key.tag}")
            if not wanted(key):
                continue
            out.append(store.get(key) or _taken(repository, there, key, store, keys, unsigned=unsigned))
        except NotTrusted:
            raise
        except Unsafe as error:
            say(f"{error.what}: {error.cause}; it is not used")
    return out


def nearest(repository: Repository, key: CompiledKey) -> list[str]:
    """Where an image has compiled code of other keys alone: what the nearest of them says otherwise, for people.

    Nothing of it is used, so nothing is verified. Empty where there is none, or none that can be read.
    """
    found = []
    try:
        for tag in list(_tags(repository, key.image))[:_LOOKED_AT]:
            there = artifact.look(repository, tag, KIND)
            if there is not None and FILE in there.files:
                found.append(key.differences(_record(repository, there).key))
    except CardstockError:
        pass
    return min((one for one in found if one), key=len, default=[])


def verify(repository: Repository, there: Artifact, keys: SigningKeys | None, *, unsigned: bool) -> Origin:
    """Whose it is. Raises Unsafe where it is not signed as it must be, NotTrusted where nobody said by whom."""
    source = f"{repository.name}@{there.digest}"
    if keys is not None and keys.signer is not None:
        keys.cosign.verify(repository.name, there.digest, keys.signer)
        return Origin(source, signer_text(keys.signer))
    if not unsigned:
        raise NotTrusted(
            f"{repository.name} has compiled code for this, and it is not used",
            cause="it is code, and no signer was named that must have signed it",
            do="--verify-key FILE, or --verify-identity PATTERN; --unsigned-artifact uses what nobody has signed",
        )
    return Origin(source)


def _taken(
    repository: Repository,
    there: Artifact,
    key: CompiledKey,
    store: CompiledStore,
    keys: SigningKeys | None,
    *,
    unsigned: bool,
) -> Kept:
    origin = verify(repository, there, keys, unsigned=unsigned)
    if set(there.files) != {FILE, ARCHIVE}:
        raise _refused(repository, key.tag, f"it holds {', '.join(sorted(there.files))}")
    for name, most in ((FILE, MOST), (ARCHIVE, MOST_ARCHIVE)):
        if there.files[name].size > most:
            raise _refused(repository, key.tag, f"{name} has {there.files[name].size} bytes, more than {most}")
    with store.work() as folder:
        artifact.fetch(repository, there, folder)
        return store.put(key, folder, origin)


def _record(repository: Repository, there: Artifact) -> CompiledRecord:
    if FILE not in there.files:
        raise _refused(repository, there.digest, f"it holds no {FILE}")
    return parse_record(read_blob(repository, there.files[FILE], MOST), f"{repository.name}@{there.digest}")


def _tags(repository: Repository, image: str) -> Iterator[str]:
    return (tag for tag in repository.tags() if tag.startswith(tag_start(image)))


def _refused(repository: Repository, tag: str, cause: str) -> Unsafe:
    return Unsafe(
        f"the compiled code in {repository.name} is refused: it is not what its tag says",
        cause=cause,
        do="see who wrote that tag; ./inv serve --no-artifact does not look for it",
        where=f"{repository.name}:{tag}",
    )
