"""`invoke explain`: why an image is recommended, what it leaves out, and why a combination is no image."""

from __future__ import annotations

from dataclasses import dataclass

from images.commands.options import JSON, SelectorOptions, command, print_json
from images.context import Context
from images.core import print_out
from images.core.options import option
from images.matrix import (
    excluded_json,
    excluded_lines,
    judge_selection,
    left_out_lines,
    note_lines,
    recommended_for,
    recommended_lines,
)


@dataclass(frozen=True)
class ExplainOptions(SelectorOptions):
    """What `invoke explain` was asked."""

    json: bool = option(JSON, False)


@command("explain --card T4 --attention flash-attn")
def explain(context: Context, options: ExplainOptions) -> None:
    """What is recommended, why, and what to know of it; what is left out: rule, reason, source, the nearest one."""
    show_excluded(context, options)


def show_excluded(context: Context, options: ExplainOptions) -> None:
    """Print what is recommended for the archs, notes on the chosen images, what they leave out, what the selectors
    speak of and no image is built for, and what `plan` refuses of it. Raises UsageError, NoImageFits, NothingSelected.
    """
    wanted = options.selectors(context)
    judged = judge_selection(context.matrix, context.variants, wanted, context.locked)
    excluded = judged.left_out
    if judged.refusals and not excluded:
        raise judged.refusals[0]
    if options.json:
        print_json([excluded_json(one) for one in excluded])
        return
    recommended = recommended_for(context.matrix, context.variants, wanted)
    if recommended:
        print_out("\n".join(recommended_lines(recommended)))
    chosen = judged.chosen if wanted.archs or wanted.only or wanted.cuda else ()
    if lines := note_lines(chosen):
        print_out("\n".join(lines))
    if lines := left_out_lines(chosen):
        print_out("\n".join(lines))
    if not excluded:
        context.report.line("nothing is left out by these selectors")
        context.report.next_command("./inv plan", "the same selectors show what there is")
        return
    print_out("\n".join(excluded_lines(excluded)))
    for refusal in judged.refusals:
        context.report.line(f"{refusal.what}; {refusal.do}")
    context.report.line(f"{len(excluded)} combinations left out; '->' is the nearest one that can be")
