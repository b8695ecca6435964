"""`invoke catalogue`: what is published for cards, as a page to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from images.advisories import table as advisories_table
from images.catalogue import CATALOGUE, Catalogue, ImageAdvisories, read_catalogue
from images.commands.cards import todays_inputs
from images.commands.options import command
from images.commands.pull import CatalogueOptions
from images.context import REPOSITORY, Context
from images.core import UsageError, human_bytes, read_file, write_atomically
from images.core.options import option
from images.matrix import Variant
from images.proof.on_card.records import read_gpu_records
from images.run.catalogue_page import Known, Sources, page_text

PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class CataloguePageOptions(CatalogueOptions):
    """What `invoke catalogue` was asked; with ``offline`` the repository of ``source`` is named only."""

    html: str = option("the folder to write index.html into", "")


@command("catalogue --html build/page")
def catalogue(context: Context, options: CataloguePageOptions) -> None:
    """A page of every card and driver: image, size, evidence, what it serves, the line to type; one file, no server."""
    if not options.html:
        raise UsageError("where should the page be written?", do="name a folder: ./inv catalogue --html build/page")
    published = options.catalogue(context) or committed(context)
    file = Path(options.html).expanduser() / PAGE
    with context.report.step("work out the image of every card and driver") as step:
        text = page_text(sources_of(context, published, options.source or context.environment.get(REPOSITORY, "")))
        write_atomically(file, text)
        step.note(f"{file}, {human_bytes(len(text.encode()))}")
    if published is None:
        context.report.line("nothing is published: the page has what the matrix recommends, and says so")


def committed(context: Context) -> Catalogue | None:
    """The catalogue in the checkout, where a maintainer has put one. Raises Unsafe for a file that is none."""
    file = context.checkout.root / CATALOGUE
    return read_catalogue(read_file(file), CATALOGUE) if file.is_file() else None


def sources_of(context: Context, published: Catalogue | None, repository: str) -> Sources:
    """What the page is made of."""

    def advisories(variant: Variant) -> ImageAdvisories:
        every = context.assessments
        found = advisories_table.record(every.of(variant), every.known, every.coverage([variant]), ())
        return ImageAdvisories.model_validate(found, strict=False)

    records = read_gpu_records()
    known = Known(context.matrix, records, todays_inputs(context, records), advisories, repository)
    return Sources(context.variants, published, known, context.locked)
