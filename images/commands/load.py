"""`invoke load`: images that `invoke save` has written, into the engine of this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from images.commands.options import JSON, command, print_json
from images.context import Context
from images.core import UsageError, human_bytes, print_out
from images.core.options import option
from images.distribution import SAVED_FILE, read_saved
from images.distribution import load as loading
from images.registry import digest_of_file


@dataclass(frozen=True)
class LoadOptions:
    """What `invoke load` was asked."""

    folder: str = option("the folder with the pieces; ./inv load DIR is short for it", "", flag="dir")
    list: bool = option("print the layers that this engine has, as JSON for save --have, and load nothing", False)
    json: bool = option(JSON, False)


@command("load /media/stick/images")
def load(context: Context, options: LoadOptions) -> None:
    """Images that save has written in pieces, into this machine's engine; every digest is checked first."""
    if options.list:
        print_layers(context)
    else:
        load_images(context, options)


def print_layers(context: Context) -> None:
    """Print what `./inv save --have` leaves out for this machine."""
    found = loading.list_layers(context.engine)
    print_out(found.to_json())
    layers = {diff for chain in found.chains for diff in chain}
    why = "" if layers else " that can be left out: none of Cardstock's images, or an engine that wants all layers"
    context.report.line(f"{len(layers)} layers{why}")
    context.report.next_command("./inv save --have FILE DIR", "on the machine that has the images")


def load_images(context: Context, options: LoadOptions) -> None:
    """Load a folder. Raises UsageError, CheckFailed for missing pieces, Unsafe for damaged ones."""
    if not options.folder:
        raise UsageError("load was told no folder", do="./inv load DIR; ./inv load --list prints what is here already")
    folder = Path(options.folder).expanduser()
    index = read_saved(folder)
    report = context.report
    report.line(f"SHA-256 of {SAVED_FILE}: {digest_of_file(folder / SAVED_FILE).removeprefix('sha256:')}")
    with report.step(f"load {', '.join(image.variant for image in index.images)}") as step:
        loaded = loading.load(context.engine, folder, index, context.matrix.image, report.line)
        step.size(index.size)
    if options.json:
        print_json([{**json.loads(one.image.model_dump_json()), "layers_given": one.given} for one in loaded])
        return
    report_loaded(context, loaded)


def report_loaded(context: Context, loaded: Sequence[loading.Loaded]) -> None:
    """What the engine has now, and what to type next."""
    for one in loaded:
        size = context.engine.inspect(one.image.id)
        unpacked = f", {human_bytes(size.size)} unpacked" if size else ""
        context.report.line(f"{' '.join(one.image.tags)}: {one.image.id[:19]}{unpacked}; {one.image.evidence}")
    if context.engine.embedded:
        context.report.line(f"export DOCKER_HOST={context.engine.endpoint} first: the image is on the embedded engine")
    first = loaded[0].image
    cards = " --gpus all" if first.archs else ""
    context.report.next_command(f"./inv smoke --image {first.tags[0]}{cards}", "prove it here")
    context.report.next_command(f"./inv serve --image {first.tags[0]} --model FOLDER", "a folder with a model's files")
