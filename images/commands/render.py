"""`invoke render`: the committed files that are made of matrix.yaml and of kept records."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import command
from images.context import Context
from images.core import CheckFailed
from images.core.options import option
from images.matrix import left_out_page
from images.render import DOCUMENTS, differences, document
from images.render import render as render_files


@dataclass(frozen=True)
class RenderOptions:
    """How `invoke render` is to work."""

    check: bool = option("write nothing, fail on a difference", False)


@command("render --check")
def render(context: Context, options: RenderOptions) -> None:
    """Dockerfiles, docker-bake.json and the schema, from matrix.yaml; tables, plots and help in the documents."""
    write_generated(context, options)


def write_generated(context: Context, options: RenderOptions) -> None:
    """Write what changed, or with ``check`` raise CheckFailed where something would.

    With ``check`` also raises UsageError where an image that matrix.yaml recommends has a severe open advisory. That is
    asked here, and not where matrix.yaml is read: it takes every lock and advisories.yaml, and a hole that
    became known must stop what is merged and published, not `./inv serve` on somebody's machine.
    """
    checkout, report = context.checkout, context.report
    files = render_files(context.matrix, context.variants, checkout.templates(), context.locked)
    pages = rendered_pages(context)
    if options.check:
        wrong = [*differences(files, checkout.generated()), *differences(pages, checkout.texts(pages))]
        if wrong:
            raise CheckFailed(
                f"{len(wrong)} generated file(s) are not what matrix.yaml, the templates and the records say",
                cause="; ".join(wrong[:10]),
                do="./inv render, and commit what it writes",
            )
        report.line(f"{len(files) + len(pages)} generated files are as they should be")
        context.assessments.check_recommended()
        report.line(f"{len(context.assessments.recommended)} recommended images: no open advisory that is severe")
        return
    touched = [*checkout.write_generated(files), *checkout.write_pages(pages)]
    report.line(f"{len(files) + len(pages)} generated files, {len(touched)} changed")
    report.next_command("./inv lint", "hadolint on every Dockerfile")


def rendered_pages(context: Context) -> dict[str, str]:
    """The documents with generated parts: path -> text."""
    from bench import pages as bench_pages  # these are slow to import, and all other commands do without
    from images.advisories import SCHEMA_FILE, json_schema, table
    from images.build import input_hashes
    from images.catalogue import INPUTS_FILE, inputs_json, with_images_table
    from images.commands.commands_page import grouped_commands, with_commands_help
    from images.commands.serve import example_base
    from images.proof.audit import with_cards_table
    from images.proof.on_card.records import read_gpu_records

    root = context.checkout.root
    pages = with_cards_table(root, context.matrix, context.checkout.texts(DOCUMENTS))
    pages = document.LEFT_OUT.fill_in(pages, left_out_page(context.variants))
    pages = document.ADVISORIES.fill_in(pages, table.page_text(context.assessments))
    pages[SCHEMA_FILE] = json_schema()
    pages |= example_base(context)
    pages = with_commands_help(grouped_commands(), bench_pages(context.checkout, pages))
    today = input_hashes(context, (record.variant for record in read_gpu_records()))
    pages[INPUTS_FILE] = inputs_json(today)
    return with_images_table(root, context.matrix, context.variants, pages, today)
