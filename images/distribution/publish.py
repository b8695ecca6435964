"""Publishing: push by digest, prove what was pushed, sign it, and only then let the catalogue and tags name it.

Whatever breaks on the way, no tag names anything unproven. The catalogue comes first and tags follow it, so that of two
machines that publish the same inputs one wins, and the other ends as "up to date". Run again, it goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from images.advisories import table as advisories_table
from images.build import RECORDS, BuiltImage, Job, Plan, say_commit, unpacked_sizes
from images.catalogue import (
    Catalogue,
    ImageGone,
    PublishedImage,
    SigningKeys,
    attach_file,
    change_catalogue,
    check_content,
    fetch_catalogue,
    image_of_tag,
    immutable_tag,
    proofs_of,
    repair_tags,
    utc_now,
    with_evidence,
    with_image,
    without_image,
)
from images.context import Context
from images.core import CardstockError, CheckFailed, RegistryFailure, Report, hold_all, work_folder, write_atomically
from images.distribution import disk_space as publish_disk
from images.distribution import provenance, sbom
from images.distribution import publish_checks as checks
from images.distribution import push as pushing
from images.distribution.push import Packed, Pushed
from images.distribution.rollback import Destination, published_images, save_catalogue
from images.docker import Engine, ImageFacts
from images.matrix import Matrix, Selectors, Variant, Variants, for_older_drivers, join_sm, select
from images.proof.audit import audit_image
from images.proof.smoke import ProofRecord, expect, prove_image
from images.registry import ArtifactPart, Packing, Repository

Prove = Callable[[str, Job], ProofRecord]


@dataclass(frozen=True)
class Publisher:
    """All that publishing needs: where to, how to pack, and ``prove``, which proves an image of the engine by name."""

    destination: Destination
    packed: Packed
    packing: Packing
    prove: Prove
    # Ids of open advisories that images are published with all the same.
    accepted: tuple[str, ...] = ()

    @property
    def context(self) -> Context:
        """The checkout, its matrix, the engine, the report."""
        return self.destination.context

    @property
    def engine(self) -> Engine:
        """The engine that has the images."""
        return self.context.engine

    @property
    def report(self) -> Report:
        """Who is told."""
        return self.context.report

    @property
    def repository(self) -> Repository:
        """Where to."""
        return self.destination.repository

    @property
    def keys(self) -> SigningKeys | None:
        """How images are signed; None: they are not."""
        return self.destination.keys


@dataclass(frozen=True)
class Published:
    """What became of a job ("published", "up to date", "proven again"), and the image that its immutable tag names."""

    job: Job
    outcome: Literal["published", "up to date", "proven again"]
    image: PublishedImage


def prover(engine: Engine, report: Report, gpus: str | None = None, model: str | None = None) -> Prove:
    """Prove with all smoke levels, on cards if asked to."""

    def run(reference: str, job: Job) -> ProofRecord:
        return prove_image(
            reference, expect(job.variant), engine_env=engine.cli_env(), gpus=gpus, model=model, report=report
        )

    return run


def moving_tags(matrix: Matrix, variants: Variants, variant: Variant) -> tuple[str, ...]:
    """The tags that move to a variant's newest image: its id, and that of the arch that it is recommended for.

    The first of the arch's list has "sm86"; those for older drivers have the name of their stack as well: "sm86-cu124".
    """
    if len(variant.archs) != 1:
        return (variant.id,)
    wanted, arch = Selectors(archs=(variant.archs,)), join_sm(variant.archs)
    first = select(matrix, variants, wanted)[0]
    if first.id == variant.id:
        return (variant.id, arch)
    below = for_older_drivers(matrix, variants, wanted, first)
    return (variant.id, *(f"{arch}-{one.stack}" for one in below if one.id == variant.id))


def publish(
    publisher: Publisher, plan: Plan, build: Callable[[Plan], object], *, prove_again: bool = False
) -> list[Published]:
    """Publish the images of a plan, one after the other; ``build`` makes those that are not published yet.

    ``prove_again``: images that are published already are pulled, proven here, and get this evidence (on a card, say).

    Raises Unsafe for what is never published, before anything is built; CheckFailed for an image that fails a level;
    RegistryFailure where the registry stays broken. What was finished before stays published.
    """
    jobs = plan.jobs
    checks.refuse_unlocked(jobs)
    revision = checks.clean_revision(publisher.context.checkout.root)
    there = _there(publisher, jobs)
    missing = [job for job in jobs if job.variant.id not in there]
    with hold_all("publish", [_lock(publisher, job) for job in missing], publisher.report.line) as waited:
        if waited:  # who held them may have published them
            there = _there(publisher, jobs)
        if ids := {job.variant.id for job in missing if job.variant.id not in there}:
            publisher.engine.cleanup()
            checks.refuse_advisories(publisher.context, plan.only(ids).jobs, publisher.accepted)
            build(plan.only(ids))
        return [_published(publisher, job, there.get(job.variant.id), revision, prove_again) for job in jobs]


def remember(engine: Engine, packed: Packed, packing: Packing, built: BuiltImage) -> None:
    """Take note of what a builder has pushed already: its layers are neither saved, packed nor sent again."""
    image, reference = built.pushed, built.job.tags[0]
    facts = engine.inspect(reference) if image else None
    if image is not None and facts is not None:
        pushing.remember(packed, packing, image, unpacked_sizes(engine, reference, image, facts))


def _lock(publisher: Publisher, job: Job) -> tuple[str, str]:
    """The name of the lock of what is published, and what it is called."""
    return f"{publisher.repository.name}-{job.variant.id}", f"the publishing of {job.variant.id}"


def _there(publisher: Publisher, jobs: Sequence[Job]) -> dict[str, PublishedImage]:
    """Variant id -> what is published of the job's inputs, checked. What the registry has no more counts as not there.

    Raises Unsafe for an image that is not what its entry says.
    """
    found = published_images(publisher.repository, jobs)
    for identifier, image in list(found.items()):
        try:
            check_content(publisher.repository, image)
        except ImageGone as error:
            publisher.report.line(f"{error.what}: it is published again")
            del found[identifier]
    return found


def _published(
    publisher: Publisher, job: Job, image: PublishedImage | None, revision: str, prove_again: bool
) -> Published:
    """What becomes of one job, of which ``image`` is published already, if any."""
    outcome: Literal["published", "up to date", "proven again"] = "up to date"
    if image is None:
        with publisher.report.step(f"publish {job.variant.id}") as step:
            image, mine = _publish_one(publisher, job, revision)
            step.size(image.compressed)
        outcome = "published" if mine else "up to date"
    elif prove_again:
        image, outcome = _prove_again(publisher, job, image), "proven again"
    if outcome == "up to date":
        publisher.report.line(f"up to date: {publisher.repository.name}:{image.tag} ({image.summary()})")
        _finish(publisher, image)
    return Published(job, outcome, image)


def _prove_again(publisher: Publisher, job: Job, image: PublishedImage) -> PublishedImage:
    """New evidence for a published image, from its digest; a failure changes nothing but is told."""
    reference = f"{publisher.repository.name}@{image.digest}"
    with publisher.report.step(f"prove {reference}") as step:
        publisher.engine.pull(reference, publisher.report.line)
        record = publisher.prove(reference, job)
        step.note(record.evidence())
    if not record.ok:
        raise CheckFailed(
            f"{image.tag} is published, and fails here: {record.evidence()}",
            cause="; ".join(f"{level.name}: {level.reason}" for level in record.levels if level.status == "failed"),
            do=f"./inv publish --rollback --only '{job.variant.id}' --to {publisher.repository.name}",
        )
    found = proofs_of(record)
    after = change_catalogue(
        publisher.repository, lambda before: with_evidence(before, image.digest, found, utc_now()), publisher.keys
    )
    _finish(publisher, image)
    return after.by_digest[image.digest]


def _publish_one(publisher: Publisher, job: Job, revision: str) -> tuple[PublishedImage, bool]:
    """Publish a job's image; what is published of its inputs then, and whether it is this one.

    Another machine may have been faster with an image of the same inputs: then that one is.
    """
    facts = _built(publisher, job, revision)
    if theirs := _there(publisher, [job]):
        return theirs[job.variant.id], False
    with publisher.report.step("push by digest") as step:
        pushed = pushing.push(
            facts,
            partial(_save, publisher, facts),
            publisher.repository,
            publisher.packing,
            publisher.packed,
            publisher.report.line,
        )
        step.note(pushed.digest)
    reference = f"{publisher.repository.name}@{pushed.digest}"
    _take(publisher, reference, pushed)
    record = _proven(publisher, job, reference)
    known = _known_advisories(publisher, job)
    with publisher.report.step("bill of materials, provenance, signature"):
        _say_what_it_is(publisher, job, facts, pushed, revision, known)
    image = make_image(job, facts, pushed, record, revision, publisher.packing, known)
    names = moving_tags(publisher.context.matrix, publisher.context.variants, job.variant)
    listed = _list(publisher, image, pushed, names)
    publisher.engine.drop_name(reference, publisher.report.line)  # it would keep the image on the engine for good
    if listed.digest != image.digest:
        return listed, False
    _finish(publisher, listed)
    publisher.report.line(f"{', '.join((image.tag, *names))} -> {image.digest}")
    return listed, True


def _built(publisher: Publisher, job: Job, revision: str) -> ImageFacts:
    """The engine's image of a job, which names the commit that has its inputs."""
    facts = publisher.engine.inspect(job.tags[0])
    if facts is not None:
        checks.refuse_foreign(job, facts)
        if say_commit(publisher.context.checkout, job, publisher.engine, revision):
            publisher.report.line(
                f"{job.tags[0]}: built before its inputs were committed; it names {revision[:12]} now"
            )
            facts = publisher.engine.inspect(job.tags[0])
    if facts is None:
        raise CardstockError(f"the engine has no image {job.tags[0]}", do=f"./inv build --only '{job.variant.id}'")
    return facts


def _save(publisher: Publisher, facts: ImageFacts) -> AbstractContextManager[Iterable[bytes]]:
    publish_disk.check(publisher.engine, facts)
    return publisher.engine.save(facts.id)


def _take(publisher: Publisher, reference: str, pushed: Pushed) -> None:
    """Have the engine take the image by the registry's digest: what is proven next is what the registry gives."""
    publisher.engine.pull(reference)
    facts = publisher.engine.inspect(reference)
    if facts is None or facts.id != pushed.config:
        raise RegistryFailure(
            f"{reference} does not come back as the image that was pushed",
            cause=f"it is {facts.id if facts else 'not there'}, pushed was {pushed.config}",
        )


def _proven(publisher: Publisher, job: Job, reference: str) -> ProofRecord:
    """Audit and smoke levels on the pushed digest, and a look at NVIDIA's libraries."""
    if job.variant.cuda is not None:
        with publisher.report.step("NVIDIA's libraries are whole"):
            checks.refuse_cut_nvidia(publisher.context.matrix, job, audit_image(publisher.engine, reference))
    with publisher.report.step(f"prove {reference}") as step:
        record = publisher.prove(reference, job)
        step.note(record.evidence())
    write_atomically(publisher.context.checkout.root / RECORDS / f"{job.variant.id}.json", record.to_json())
    checks.refuse_unproven(job, record)
    return record


def _say_what_it_is(
    publisher: Publisher, job: Job, facts: ImageFacts, pushed: Pushed, revision: str, known: Mapping[str, Any]
) -> None:
    """Hang the bill of materials and the provenance on the image; sign both, and it, if anything is signed.

    ``known`` is what `_known_advisories` says of it.
    """
    repository, digest = publisher.repository, pushed.digest
    packages = sbom.read(publisher.engine, f"{repository.name}@{digest}")
    created = facts.labels["org.opencontainers.image.created"]
    builder = provenance.builder_of(os.environ)
    with work_folder("attached") as folder:
        bill, origin, whole = (folder / name for name in (sbom.FILE, "predicate.json", provenance.FILE))
        judged = publisher.context.assessments.of(job.variant)
        bill.write_text(sbom.make(job.variant.id, digest, packages, created, judged), encoding="utf-8")
        predicate = provenance.predicate(job.variant.id, job.input_hash, revision, created, builder, known)
        origin.write_text(predicate, encoding="utf-8")
        whole.write_text(provenance.statement(repository.name, digest, predicate), encoding="utf-8")
        attach_file(repository, digest, sbom.KIND, ArtifactPart(bill, sbom.KIND))
        attach_file(repository, digest, provenance.STATEMENT, ArtifactPart(whole, provenance.STATEMENT))
        if publisher.keys is not None:
            cosign, key = publisher.keys.cosign, publisher.keys.private
            cosign.attest(repository.name, digest, "cyclonedx", bill, key)
            cosign.attest(repository.name, digest, "slsaprovenance1", origin, key)
            cosign.sign(repository.name, digest, key)


def _known_advisories(publisher: Publisher, job: Job) -> Mapping[str, Any]:
    """What is known of an image's holes today, and which of the open ones were accepted."""
    assessments = publisher.context.assessments
    judged = assessments.of(job.variant)
    return advisories_table.record(judged, assessments.known, assessments.coverage([job.variant]), publisher.accepted)


def make_image(
    job: Job,
    facts: ImageFacts,
    pushed: Pushed,
    record: ProofRecord,
    revision: str,
    packing: Packing,
    advisories: Mapping[str, Any] | None = None,
) -> PublishedImage:
    """The catalogue's entry of an image: what it says of itself by its labels, what was pushed, what was proven,
    what was known of its holes."""
    labels = facts.labels
    pins = dict(pair.split("==", 1) for pair in labels["dev.cardstock.pins"].split())
    return PublishedImage.model_validate_json(
        json.dumps(
            {
                "variant": job.variant.id,
                "digest": pushed.digest,
                "config": pushed.config,
                "tag": immutable_tag(job.variant.id, job.input_hash),
                "input": job.input_hash,
                "stack": job.variant.stack,
                "engine": job.variant.backend,
                "attention": job.variant.attention,
                "cuda": job.variant.cuda,
                "archs": [str(arch) for arch in job.variant.archs],
                "audited": list(record.audited),
                "min_driver": job.variant.min_driver,
                "pins": pins,
                "packing": packing,
                "layers": [layer.digest for layer in pushed.layers],
                "compressed": sum(layer.size for layer in pushed.layers),
                "unpacked": sum(layer.unpacked for layer in pushed.layers),
                "evidence": [proof.model_dump() for proof in proofs_of(record)],
                "revision": revision,
                "created": labels["org.opencontainers.image.created"],
                "published": utc_now(),
                "advisories": advisories,
            }
        )
    )


def _list(publisher: Publisher, image: PublishedImage, pushed: Pushed, moving: Sequence[str]) -> PublishedImage:
    """Let the catalogue have the image, unless it has one of the same inputs; the one that it has then.

    No tag is pointed before: of several publishers the catalogue takes one, and tags follow it.
    """
    repository, sizes = publisher.repository, pushing.sizes(pushed.layers)
    gone: set[str] = set()
    check_content(repository, image)  # what is listed is what the registry has

    def change(before: Catalogue) -> Catalogue:
        other = image_of_tag(before, image.tag)
        if other is not None and other.digest in gone:
            before, other = without_image(before, other.digest, utc_now()), None
        if other is not None and other.digest != image.digest:
            return before
        return with_image(before, image, sizes, moving, utc_now())

    for _ in range(2):
        after = change_catalogue(repository, change, publisher.keys)
        listed = image_of_tag(after, image.tag) or image
        try:
            check_content(repository, listed)
        except ImageGone:
            if listed.digest == image.digest:
                raise
            gone.add(listed.digest)
            continue
        if listed.digest != image.digest:
            publisher.report.line(f"another image of the same inputs is published since: {listed.digest}")
        return listed
    raise RegistryFailure(
        f"{repository.name}: the catalogue names images of {image.variant} that the registry does not have",
        do="see who cleans up there, then run the same again",
    )


def _finish(publisher: Publisher, image: PublishedImage) -> None:
    """The last steps, also of a run that was killed before them: tags as the catalogue has them, no working name left
    on the engine, the catalogue as a file."""
    repository = publisher.repository
    repair_tags(repository, image.variant, image.tag, publisher.report.line)
    publisher.engine.drop_name(f"{repository.name}@{image.digest}", publisher.report.line)
    catalogue, _ = fetch_catalogue(repository)
    if catalogue is not None:
        save_catalogue(publisher.destination, catalogue)
