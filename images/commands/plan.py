"""`invoke plan`: what would be built, and in what state it is."""

from __future__ import annotations

from dataclasses import dataclass

from images.build import Plan, make_plan
from images.commands.options import JSON, SelectorOptions, command, print_json
from images.context import Context
from images.core.options import option
from images.matrix import recommendations, variant_json
from images.render import all_locks, why_unlocked


@dataclass(frozen=True)
class PlanOptions(SelectorOptions):
    """What `invoke plan` was asked."""

    json: bool = option(JSON, False)


@command("plan --card 'RTX 2080 Ti'")
def plan(context: Context, options: PlanOptions) -> None:
    """What would be built, and in what state it is."""
    show_plan(context, options)


def show_plan(context: Context, options: PlanOptions) -> None:
    """Print the plan; no engine is started for it. Raises as `SelectorOptions.select` does."""
    made = make_plan(context, options.select(context), context.running_engine())
    states = context.lock_states
    if options.json:
        image = context.matrix.image
        listed = recommendations(context.matrix, context.variants)
        print_json([variant_json(image, v, states[v.lock], known_state(made, v.id), listed) for v in made.variants])
        return
    rows = [
        [v.id, v.backend, v.cuda or "-", v.min_driver or "-", states[v.lock], str(made.state(v))] for v in made.variants
    ]
    context.report.table(rows, ["variant", "backend", "CUDA", "driver from", "stack", "image"])
    print_remarks(context, made)
    if len(made.variants) == 1:
        context.report.next_command(f"./inv build --only '{made.variants[0].id}'")


def known_state(made: Plan, identifier: str) -> str | None:
    """The state of a variant's image, None where no engine could be asked."""
    if made.images is None:
        return None
    return next(str(made.state(variant)) for variant in made.variants if variant.id == identifier)


def print_remarks(context: Context, made: Plan) -> None:
    """What is to be known of the plan: why an image, stacks without a lock, notes, how many are left out."""
    chosen = {variant.id for variant in made.variants}
    for one in recommendations(context.matrix, context.variants):
        if one.why and one.variant.id in chosen:
            context.report.line(f"why {one.variant.id}: {one.why}")
    for lock_name in dict.fromkeys(variant.lock for variant in made.unlocked):
        reason = why_unlocked(context.matrix, *all_locks(context.matrix)[lock_name])
        context.report.line(f"unlocked: {lock_name} ({reason}): may be built here, is never published")
    for note in {note.id: note for variant in made.variants for note in variant.notes}.values():
        context.report.line(f"note {note.id}: {note.text} [{note.mark}: {note.source}]")
    variants = context.variants
    context.report.line(
        f"{len(made.variants)} of {len(variants.valid)} variants; left out: {len(variants.excluded)} (./inv explain)"
    )
