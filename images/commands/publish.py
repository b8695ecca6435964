"""`invoke publish`: build, prove and push images, and let tags and the catalogue name them; or move the tags back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from images.build import BuildSettings, Plan, build_images, make_plan
from images.catalogue import PublishedImage, SigningKeys
from images.commands.build import at_builder, check_cache
from images.commands.options import BUILDER, CACHE, JSON, WHEELS, SelectorOptions, command, print_json
from images.commands.warm import keep_published, signing_keys
from images.context import Context
from images.core import UTC, UsageError, default_layout, print_out
from images.core.options import option
from images.distribution import (
    Destination,
    Packed,
    Publisher,
    print_what_would_be_done,
    prover,
    publish_checks,
    roll_back,
)
from images.distribution import publish as publishing
from images.registry import Packing, Repository


@dataclass(frozen=True)
class PublishOptions(SelectorOptions):
    """What `invoke publish` was asked."""

    to: str = option("the repository, such as registry.example.com/team/qwen (or $CARDSTOCK_REPOSITORY)", "")
    key: str = option("sign with this private key of cosign's; its password is $COSIGN_PASSWORD", "")
    keyless: bool = option("sign by the identity of this CI job", False)
    zstd: bool = option("layers as zstd (engines of 2023 and later) instead of gzip", False)
    gpus: str = option("prove on cards (all), also what is published already", "")
    warm: Sequence[str] = option(
        "also publish what the images compile for this model on this machine's card, signed; repeat for more", ()
    )
    wheels: str = option(WHEELS, "")
    builder: str = option(BUILDER, "")
    cache: str = option(CACHE, "")
    rollback: bool = option("move the moving tags back to the image before", False)
    accept: Sequence[str] = option(
        "publish in spite of this open advisory, and keep its name in the image's record; repeat for more", ()
    )
    stale_advisories: bool = option("publish by an advisories.yaml that is older than 90 days", False)
    dry_run: bool = option("say what is published and what would be, touch nothing", False)
    json: bool = option(JSON, False)

    def keys(self, context: Context) -> SigningKeys | None:
        """How to sign; None (and a line that says so) where nothing is signed. Raises UsageError."""
        return signing_keys(context, self.key, self.keyless)


@command("publish --arch 7.5 --to registry.example.com/team/qwen --dry-run")
def publish(context: Context, options: PublishOptions) -> None:
    """Build, push by digest, prove, sign, and only then let tags and the catalogue name the images."""
    if options.rollback:
        move_tags_back(context, options)
    elif options.dry_run:
        chosen = options.select(context)
        destination = Destination(context, context.named_repository(options.to, "--to"))
        print_what_would_be_done(destination, make_plan(context, chosen, None))
    else:
        publish_images(context, options)


def publish_images(context: Context, options: PublishOptions) -> None:
    """Publish the chosen images, and print what is there now. Raises as images/distribution/publish.py does."""
    plan = make_plan(context, options.select(context), None)
    check_cache(options.builder, options.cache)
    repository = context.named_repository(options.to, "--to")
    if options.warm and not options.gpus and any(job.variant.archs for job in plan.jobs):
        raise UsageError("compiled code is made on a card", do="--gpus all, on a machine with one; or leave --warm out")
    publish_checks.refuse_unlocked(plan.jobs)
    publish_checks.clean_revision(context.checkout.root)
    publish_checks.refuse_stale_advisories(context, datetime.now(UTC).date(), accepted=options.stale_advisories)
    keys = options.keys(context)
    packing: Packing = "zstd" if options.zstd else "gzip"
    at = at_builder(context, options.builder, repository, options.cache, packing) if options.builder else None
    publisher = Publisher(
        Destination(context, repository, keys),
        packed=Packed(default_layout().home / "packed"),
        packing=packing,
        prove=prover(context.engine, context.report, options.gpus or None),
        accepted=tuple(options.accept),
    )

    def build(missing: Plan) -> None:
        wheels = context.repository(options.wheels) if options.wheels else None
        how = BuildSettings(gpus=options.gpus or None, wheels=wheels, at=at)
        for built in build_images(context, missing, how):
            publishing.remember(context.engine, publisher.packed, packing, built)

    done = publishing.publish(publisher, plan.on(context.engine), build, prove_again=bool(options.gpus))
    for model in options.warm:
        keep_published(context, repository, [one.image for one in done], model, options.gpus, keys)
    print_images(repository, [one.image for one in done], options)
    context.report.next_command(f"./inv pull --from {repository.name}", "on a machine with a card")


def move_tags_back(context: Context, options: PublishOptions) -> None:
    """Move the moving tags of the chosen variants back, and print what they name then. No engine is needed."""
    chosen = options.select(context)
    repository = context.named_repository(options.to, "--to")
    destination = Destination(context, repository, options.keys(context))
    print_images(repository, roll_back(destination, chosen), options)


def print_images(repository: Repository, images: Sequence[PublishedImage], options: PublishOptions) -> None:
    """References by digest, or all that the catalogue has of them as JSON."""
    if options.json:
        rows: list[dict[str, Any]] = [
            {"reference": f"{repository.name}@{image.digest}", **image.model_dump(mode="json")} for image in images
        ]
        print_json(rows)
        return
    for image in images:
        print_out(f"{repository.name}@{image.digest}")
