"""The catalogue of a repository: every image published there, what it is, and on what evidence. Pure.

One JSON document, kept as an artifact beside the images (tag `catalogue`) and fit to be served as a plain file. What is
read is checked to the last field: it comes from a registry, and decides what runs on somebody's machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from images.core import NothingSelected, Unsafe, refuse_newer
from images.matrix import KNOWN_ARCHS, Attention, Backend, CudaText, Name
from images.proof.smoke import LevelName, ProofRecord
from images.registry import Packing
from images.render import BACKEND, INPUT, VARIANT

KIND = "application/vnd.cardstock.catalogue.v1"
TAG = "catalogue"
FILE = "catalogue.json"
SCHEMA = 1

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# Ids, tags and package names reach command lines and terminals: no other characters than these.
Tag = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Time = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]
PlainText = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,500}$")]
ArchText = Annotated[str, StringConstraints(pattern=rf"^({'|'.join(KNOWN_ARCHS).replace('.', '[.]')})$")]
DriverText = Annotated[str, StringConstraints(pattern=r"^\d{3}(\.\d{1,3}){0,2}$")]
VersionText = Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.+!-]{0,63}$")]
Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
# A level that failed keeps an image from being published, so no catalogue holds one.
ProofStatus = Literal["passed", "not run"]


class CataloguePart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Proof(CataloguePart):
    """One level of proof of an image: passed, or not run and why; the card and driver that it ran on, if any."""

    level: LevelName
    status: ProofStatus
    reason: PlainText = ""
    card: PlainText | None = None
    driver: DriverText | None = None
    at: Time


AdvisoryId = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,12}-[A-Za-z0-9-]{4,40}$")]


class ImageAdvisories(CataloguePart):
    """What was known of an image's holes when it was published; ``read`` is the day of the list.

    ``severe`` are those of the open ones that are high, critical or not rated; ``accepted`` are names of open ones that
    it was published with all the same. The counts are packages: asked of a service, read by hand, not looked up.
    """

    read: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d$")]
    known: Annotated[int, Field(ge=0)]
    not_reached: tuple[AdvisoryId, ...] = ()
    closed: tuple[AdvisoryId, ...] = ()
    open: tuple[AdvisoryId, ...] = ()
    severe: tuple[AdvisoryId, ...] = ()
    accepted: tuple[AdvisoryId, ...] = ()
    looked_up: Annotated[int, Field(ge=0)]
    read_by_hand: Annotated[int, Field(ge=0)]
    not_looked_up: Annotated[int, Field(ge=0)]

    def summary(self) -> str:
        """The open ones in a line."""
        if not self.open:
            return f"no open advisory by the list of {self.read}"
        rest = len(self.open) - len(self.severe)
        parts = [", ".join(self.severe)] if self.severe else []
        parts += [f"{rest} of lower severity"] if rest else []
        return f"open advisories by the list of {self.read}: {' and '.join(parts)}"


class PublishedImage(CataloguePart):
    """A published image.

    ``digest`` is its manifest's, ``config`` its configuration's (what engines call its id), ``tag`` the one that never
    moves. ``audited`` are the archs that its libraries were found to cover. ``compressed`` is what a first pull takes,
    ``unpacked`` what it takes on disk, in bytes. ``layers`` are keys of the catalogue's table. ``advisories`` is None
    of images that were published before there was such a list.
    """

    variant: Tag
    digest: Digest
    config: Digest
    tag: Tag
    input: Hash
    stack: Name
    engine: Backend
    attention: Attention
    cuda: CudaText | None
    archs: tuple[ArchText, ...]
    audited: tuple[ArchText, ...]
    min_driver: DriverText | None
    pins: dict[Tag, VersionText]
    packing: Packing
    layers: Annotated[tuple[Digest, ...], Field(min_length=1)]
    compressed: Bytes
    unpacked: Bytes
    evidence: Annotated[tuple[Proof, ...], Field(min_length=1)]
    revision: PlainText
    created: Time
    published: Time
    advisories: ImageAdvisories | None = None

    def summary(self) -> str:
        """Its evidence in a line: "audit: passed; … server: passed (RTX 2080 Ti, driver 535.104.05)"."""
        return "; ".join(_phrase(proof) for proof in self.evidence)


class Catalogue(CataloguePart):
    """All images of a repository, the sizes of their layers, and what each moving tag has named, the newest last."""

    schema_: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)] = SCHEMA
    updated: Time
    images: tuple[PublishedImage, ...] = ()
    layers: dict[Digest, Bytes] = {}
    moving: dict[Tag, Annotated[tuple[Digest, ...], Field(min_length=1)]] = {}

    @model_validator(mode="after")
    def _is_whole(self) -> Catalogue:
        digests, tags = [image.digest for image in self.images], [image.tag for image in self.images]
        for what, seen in (("digest", digests), ("tag", tags)):
            if len(set(seen)) != len(seen):
                twice = next(one for one, count in Counter(seen).items() if count > 1)
                raise ValueError(f"two images have the {what} {twice}")
        for image in self.images:
            _check_image(image, self.layers)
        by_digest = self.by_digest
        for tag, named in self.moving.items():
            if stranger := next((digest for digest in named if digest not in by_digest), None):
                raise ValueError(f"the tag {tag} names {stranger}, which is no image here")
        variants = {image.variant for image in self.images}
        for variant in variants & self.moving.keys():
            if any(by_digest[digest].variant != variant for digest in self.moving[variant]):
                raise ValueError(f"the tag {variant} names an image of another variant")
        return self

    @cached_property
    def by_digest(self) -> Mapping[str, PublishedImage]:
        """Every image by its digest."""
        return {image.digest: image for image in self.images}

    @cached_property
    def current(self) -> Mapping[str, PublishedImage]:
        """The image that each variant's tag names now, by variant."""
        now = (self.by_digest[named[-1]] for tag, named in self.moving.items())
        return {image.variant: image for image in now if self.moving.get(image.variant, ("",))[-1] == image.digest}

    def to_json(self) -> str:
        """As `read_catalogue` reads it."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"


def _check_image(image: PublishedImage, layers: Mapping[str, int]) -> None:
    if missing := next((digest for digest in image.layers if digest not in layers), None):
        raise ValueError(f"{image.variant}: no size of its layer {missing}")
    if image.compressed != sum(layers[digest] for digest in image.layers):
        raise ValueError(f"{image.variant}: its size is not that of its layers")
    if image.tag != immutable_tag(image.variant, image.input):
        raise ValueError(f"{image.variant}: its tag {image.tag} is not made of its variant and inputs")
    if not set(image.archs) <= set(image.audited):
        raise ValueError(f"{image.variant}: it is for {' '.join(image.archs)}, audited is {' '.join(image.audited)}")
    if not any(proof.status == "passed" for proof in image.evidence):
        raise ValueError(f"{image.variant}: nothing is proven of it")


def _phrase(proof: Proof) -> str:
    if proof.status == "not run":
        return f"{proof.level}: not run: {proof.reason}"
    where = ", ".join(part for part in (proof.card, proof.driver and f"driver {proof.driver}") if part)
    if not where and proof.level in ("canary", "server"):
        where = "cpu"  # these run a model, and without a card they run it there
    return f"{proof.level}: passed" + (f" ({where})" if where else "")


def immutable_tag(variant: str, input_hash: str) -> str:
    """The tag that never moves: the variant and the hash of all that it was made of."""
    return f"{variant}-{input_hash[:12]}"


def read_catalogue(text: str | bytes, where: str) -> Catalogue:
    """Read and check a catalogue. Raises Unsafe for text that is no catalogue, UsageError for a newer schema.

    The schema is read first: a newer one may have fields that this one does not know.
    """
    refuse_newer(text, "the catalogue", SCHEMA, where)
    try:
        catalogue = Catalogue.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Unsafe(
            "the catalogue cannot be trusted: it is not what a catalogue is",
            cause=f"{place + ': ' if place else ''}{first['msg']} ({error.error_count()} mistakes)",
            do="do not pull from there; tell whoever publishes it",
            where=where,
        ) from error
    return catalogue


def proofs_of(record: ProofRecord) -> tuple[Proof, ...]:
    """The evidence of a smoke record; a level that touched no card names none."""
    out = []
    for level in record.levels:
        on_card = level.status == "passed" and level.facts.get("device") not in (None, "cpu")
        out.append(
            Proof.model_validate(
                {
                    "level": level.name,
                    "status": level.status,
                    "reason": "".join(c for c in " ".join(level.reason.split()) if c.isprintable())[:200],
                    "card": record.card if on_card else None,
                    "driver": record.driver if on_card else None,
                    "at": record.created,
                }
            )
        )
    return tuple(out)


def with_image(
    before: Catalogue, image: PublishedImage, layers: Mapping[str, int], moving: Iterable[str], now: str
) -> Catalogue:
    """The catalogue with one more image, which the ``moving`` tags name from now on.

    An image that is there already gets new evidence only. Raises Unsafe where another image has its immutable tag; see
    `image_of_tag`.
    """
    other = image_of_tag(before, image.tag)
    if other is not None and other.digest != image.digest:
        raise Unsafe(
            f"the tag {image.tag} is taken by another image of the same inputs",
            cause=f"the catalogue has {other.digest}, this one is {image.digest}",
            do="take the one that is published: ./inv publish says that it is up to date",
        )
    history = dict(before.moving)
    for tag in moving:
        past = tuple(digest for digest in history.get(tag, ()) if digest != image.digest)
        history[tag] = (*past, image.digest)
    rest = [other for other in before.images if other.digest != image.digest]
    images = sorted([*rest, image], key=lambda one: (one.variant, one.published, one.digest))
    sizes = dict(sorted({**before.layers, **layers}.items()))
    return _catalogue(images=tuple(images), layers=sizes, moving=dict(sorted(history.items())), updated=now)


def image_of_tag(catalogue: Catalogue, tag: str) -> PublishedImage | None:
    """The image that has this tag, the one that never moves: what was published of these inputs, whoever built it."""
    return next((image for image in catalogue.images if image.tag == tag), None)


def tags_of(catalogue: Catalogue, variant: str, tag: str = "") -> dict[str, str]:
    """Tag -> digest, as the catalogue has them: those that move to a variant's images, the ones that never move of the
    images that they name, and ``tag`` if an image has it."""
    moving = {name: named[-1] for name, named in catalogue.moving.items()}
    mine = {name: digest for name, digest in moving.items() if catalogue.by_digest[digest].variant == variant}
    found = image_of_tag(catalogue, tag)
    digests = {*mine.values(), *([found.digest] if found else [])}
    return {**{catalogue.by_digest[digest].tag: digest for digest in sorted(digests)}, **mine}


def without_image(before: Catalogue, digest: str, now: str) -> Catalogue:
    """The catalogue without an image, such as one that the registry has no more; tags that named it alone go too."""
    moving = {tag: tuple(one for one in named if one != digest) for tag, named in before.moving.items()}
    images = tuple(image for image in before.images if image.digest != digest)
    kept = {tag: named for tag, named in moving.items() if named}
    return _catalogue(images=images, layers=before.layers, moving=kept, updated=now)


def with_evidence(before: Catalogue, digest: str, evidence: tuple[Proof, ...], now: str) -> Catalogue:
    """The catalogue with newer evidence for one image; no tag moves."""
    images = tuple(
        image.model_copy(update={"evidence": evidence}) if image.digest == digest else image for image in before.images
    )
    return _catalogue(images=images, layers=before.layers, moving=before.moving, updated=now)


def without_newest(before: Catalogue, variant: str, now: str) -> tuple[Catalogue, dict[str, PublishedImage]]:
    """The catalogue with the moving tags of a variant's newest image moved back by one, and the image that each names.

    Raises NothingSelected where there is nothing to go back to.
    """
    image = before.current.get(variant)
    if image is None or len(before.moving[variant]) < 2:
        raise NothingSelected(
            f"{variant} cannot be rolled back: no image of it was published before the one that its tag names",
            do="invoke plan --all shows the ids" if image is None else "publish a mended one instead",
        )
    moves: dict[str, PublishedImage] = {}
    history = dict(before.moving)
    for tag, named in before.moving.items():
        if named[-1] == image.digest and len(named) > 1:
            history[tag] = named[:-1]
            moves[tag] = before.by_digest[named[-2]]
    return _catalogue(images=before.images, layers=before.layers, moving=history, updated=now), moves


def _catalogue(**fields: Any) -> Catalogue:
    return Catalogue.model_validate({"schema": SCHEMA, **fields})


def check_labels(image: PublishedImage, labels: Mapping[str, str], where: str) -> None:
    """Compare an image's own labels with its entry. Raises Unsafe for the first that differs."""
    wanted = {
        VARIANT: image.variant,
        INPUT: image.input,
        "dev.cardstock.stack": image.stack,
        BACKEND: image.engine,
        "dev.cardstock.attention": image.attention,
        "dev.cardstock.archs": " ".join(image.archs),
        "dev.cardstock.audited-archs": " ".join(image.audited),
        "dev.cardstock.min-driver": image.min_driver or "none",
        "dev.cardstock.locked": "yes",
    }
    for name, value in wanted.items():
        if labels.get(name, "") != value:
            raise Unsafe(
                f"the image of {image.variant} says other things of itself than the catalogue",
                cause=f"its label {name} is {labels.get(name, '')!r}, the catalogue has {value!r}",
                do="do not use it; tell whoever publishes it",
                where=where,
            )


def shared_bytes(catalogue: Catalogue, image: PublishedImage, have: Iterable[PublishedImage]) -> int:
    """Bytes of ``image`` that a machine which has the images ``have`` does not pull again."""
    there = {digest for other in have for digest in other.layers}
    return sum(catalogue.layers[digest] for digest in set(image.layers) & there)
