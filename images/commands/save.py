"""`invoke save`: built images in pieces, for a machine that reaches no registry."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from images.build import ImageState, make_plan
from images.commands.options import JSON, FormOptions, command, print_json
from images.context import Context
from images.core import CheckFailed, NothingSelected, human_bytes
from images.core.options import option
from images.distribution import SAVED_FILE, SUMS, Saved, ToSave, parse_size, read_have
from images.distribution import save as saving
from images.matrix import Variant
from images.registry import digest_of_file
from images.render import EVIDENCE, PROVEN


@dataclass(frozen=True)
class SaveOptions(FormOptions):
    """What `invoke save` was asked."""

    folder: str = option("the folder that the pieces go into", "", flag="dir", positional=True)
    split: str = option("bytes of a piece at most, such as 60MB, 60MiB or 4GB", "2GB")
    have: str = option(
        "leave out what this file lists: of ./inv load --list or docker image inspect there, or a saved.json",
        "",
    )
    json: bool = option(JSON, False)


@command("save --arch 7.5 /media/stick/images")
def save(context: Context, options: SaveOptions) -> None:
    """Built images in pieces, each with its digest, for a machine that reaches no registry; load reads them there."""
    save_images(context, options)


def save_images(context: Context, options: SaveOptions) -> None:
    """Write images that are built and proven into a folder.

    Raises UsageError, NothingSelected for what is not built, CheckFailed for what is not proven.
    """
    split = parse_size(options.split)
    have = read_have(Path(options.have).expanduser()) if options.have else None
    images = images_to_save(context, options.chosen(context))
    folder = Path(options.folder).expanduser()
    with context.report.step(f"save {', '.join(one.variant for one in images)}") as step:
        wish = saving.make_wish(context.engine, images, split, have)
        if left := len(wish.layers) - len(wish.sent):
            context.report.line(f"{left} of {len(wish.layers)} layers are left out: the other machine has them")
        written = saving.save(context.engine, wish, folder, context.report.line)
        step.note(f"{len(written.pieces)} pieces")
        step.size(written.size)
    report_saved(context, folder, written, as_json=options.json)


def images_to_save(context: Context, variants: tuple[Variant, ...]) -> list[ToSave]:
    """These variants' images. Raises NothingSelected for what is not built, CheckFailed for what is not proven."""
    plan = make_plan(context, variants, context.engine)
    out = []
    for variant in variants:
        reference, job = f"{context.matrix.image}:{variant.id}", plan.job(variant)
        facts = (plan.images or {}).get(reference)
        if facts is None:
            raise NothingSelected(f"{reference} is not built", do=f"./inv build {variant.selector}")
        if facts.labels.get(PROVEN) != "yes" or not facts.labels.get(EVIDENCE):
            raise CheckFailed(
                f"{reference} is built but not proven, so it is not saved",
                cause=f"its label {PROVEN} is {facts.labels.get(PROVEN)!r}",
                do=f"./inv build {variant.selector}",
            )
        if plan.state(variant) is ImageState.OUTDATED:
            context.report.line(f"{reference} was built of other inputs than this checkout has; it is saved as it is")
        tags = [tag for tag in facts.tags if tag in job.tags]
        archs = tuple(arch.capability for arch in variant.archs)
        out.append(ToSave(variant.id, reference, tuple(sorted(tags)), archs, facts.labels[EVIDENCE][:2000]))
    return out


def report_saved(context: Context, folder: Path, written: Saved, *, as_json: bool) -> None:
    """What was written, and what to type on the other machine, with `./inv` there and without."""
    if as_json:
        print_json({"folder": str(folder), "size": written.size, **json.loads(written.to_json())})
        return
    for image in written.images:
        context.report.line(f"{image.variant}: {image.evidence}")
    sent = [layer for layer in written.layers.values() if layer.sent]
    context.report.line(
        f"{len(written.pieces)} pieces of {human_bytes(written.split)} at most, {human_bytes(written.size)} in all; "
        f"{len(sent)} of {len(written.layers)} layers, {human_bytes(sum(one.unpacked for one in sent))} unpacked"
    )
    context.report.line(f"SHA-256 of {SAVED_FILE}: {digest_of_file(folder / SAVED_FILE).removeprefix('sha256:')}")
    there = shlex.quote(str(folder))
    context.report.line(f"bring all files of {folder} to the other machine; without ./inv there:")
    context.report.line(f"  cd {there} && sha256sum -c --quiet {SUMS} && cat piece-*.part | docker load")
    context.report.next_command(f"./inv load {there}", "on the other machine")
