"""`invoke smoke`: prove images that are built, or any image by its name."""

from __future__ import annotations

import json
from dataclasses import dataclass

from images.build import RECORDS
from images.commands.options import JSON, SelectorOptions, command, print_json
from images.context import Context
from images.core import CheckFailed, NothingSelected, UsageError, write_atomically
from images.core.options import option
from images.matrix import Variant
from images.render import VARIANT


@dataclass(frozen=True)
class SmokeOptions(SelectorOptions):
    """What `invoke smoke` was asked."""

    image: str = option("this image instead of the selected ones", "")
    model: str = option("also ask a real checkpoint", "")
    gpus: str = option("all", "")
    json: bool = option(JSON, False)


@command("smoke --arch 7.5 --gpus all")
def smoke(context: Context, options: SmokeOptions) -> None:
    """Prove images: stack, canary, server."""
    prove_images(context, options)


def prove_images(context: Context, options: SmokeOptions) -> None:
    """Prove each image and keep its record. Raises CheckFailed where a level failed."""
    from images.proof.smoke import expect, prove_image

    records = []
    context.engine.cleanup()  # what killed runs left
    for reference, variant in images_to_prove(context, options):
        with context.report.step(f"smoke {variant.id}") as step:
            record = prove_image(
                reference,
                expect(variant),
                engine_env=context.engine.client_env(),
                model=options.model or None,
                gpus=options.gpus or None,
                report=context.report,
            )
            step.note(record.evidence())
        write_atomically(context.checkout.root / RECORDS / f"{variant.id}.json", record.to_json())
        records.append(record)
    if options.json:
        print_json([json.loads(record.to_json()) for record in records])
    if bad := [record.variant_id for record in records if not record.ok]:
        raise CheckFailed(f"smoke failed: {', '.join(bad)}", where=RECORDS)


def images_to_prove(context: Context, options: SmokeOptions) -> list[tuple[str, Variant]]:
    """References and their variants. Raises NothingSelected for what is not here, UsageError for a foreign image."""
    if not options.image:
        chosen = options.select(context)
        return [(built_image(context, variant), variant) for variant in chosen]
    facts = context.engine.inspect(options.image)
    if facts is None:
        raise NothingSelected(f"the engine has no image {options.image}", do="docker pull it, or ./inv build it")
    variant = context.variants.named(facts.labels.get(VARIANT, ""))
    if variant is None:
        raise UsageError(f"{options.image} carries no label {VARIANT} of this matrix", do="select a variant instead")
    return [(options.image, variant)]


def built_image(context: Context, variant: Variant) -> str:
    """The name of a variant's image, which is on the engine. Raises NothingSelected where it is not built."""
    reference = f"{context.matrix.image}:{variant.id}"
    if context.engine.inspect(reference) is None:
        raise NothingSelected(f"{reference} is not built", do=f"./inv build --only '{variant.id}'")
    return reference
