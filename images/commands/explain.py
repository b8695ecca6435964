"""`invoke explain`: why an image is recommended, and why a combination is left out."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import JSON, SelectorOptions, command, print_json
from images.context import Context
from images.core.options import option
from images.matrix import excluded_json, excluded_lines, recommended_for, recommended_lines
from images.matrix import explain as explain_excluded


@dataclass(frozen=True)
class ExplainOptions(SelectorOptions):
    """What `invoke explain` was asked."""

    json: bool = option(JSON, False)


@command
def explain(context: Context, options: ExplainOptions) -> None:
    """What is recommended and why; every combination left out: the rule, its reason and source, the nearest one."""
    show_excluded(context, options)


def show_excluded(context: Context, options: ExplainOptions) -> None:
    """Print what is recommended for the archs, and what the selectors speak of and no image is built for.

    Raises UsageError, NoImageFits.
    """
    wanted = options.selectors(context)
    excluded = explain_excluded(context.matrix, context.variants, wanted)
    if options.json:
        print_json([excluded_json(one) for one in excluded])
        return
    recommended = recommended_for(context.matrix, context.variants, wanted)
    if recommended:
        print("\n".join(recommended_lines(recommended)))
    if not excluded:
        context.report.line("nothing is left out by these selectors")
        context.report.next_command("./inv plan", "the same selectors show what there is")
        return
    print("\n".join(excluded_lines(excluded)))
    context.report.line(f"{len(excluded)} combinations left out; '->' is the nearest one that can be")
