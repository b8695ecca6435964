"""Which image a card should have, and why: plan, explain, cards, fit, doctor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from invoke.tasks import task

from images.commands import options as typed
from images.core import Report
from images.matrix import Variant, make_variants
from images.matrix import selection as planning
from images.matrix import variant_table as listing
from images.render import all_locks, lock_states, why_unlocked


@task(iterable=typed.LISTS, help=typed.SELECT | typed.JSON)
def plan(c, arch, only, card, cuda="", attention="", all=False, json=False, debug=False):
    """What would be built, and in what state it is."""
    typed.run(lambda: show_plan(typed.Words(arch, cuda, attention, only, all, card), json), debug)


@task(iterable=typed.LISTS, help=typed.SELECT | typed.JSON)
def explain(c, arch, only, card, cuda="", attention="", all=False, json=False, debug=False):
    """Every combination left out: the rule, its reason and source, the nearest one that can be."""
    typed.run(lambda: show_excluded(typed.Words(arch, cuda, attention, only, all, card), json), debug)


@task(
    iterable=["card"],
    help=typed.JSON
    | {
        "card": "only this one; repeat for the cards of one machine",
        "driver": "its driver, such as 535.104",
        "from": "what this repository has for them, such as registry.example.com/team/qwen",
        "offline": "what a saved catalogue has for them (pull --save)",
        "verify-key": "with --from: a public key that the catalogue must be signed by",
        "verify-identity": "with --from: a regular expression on the CI workflow that must have signed it instead",
    },
)
def cards(c, card, driver="", from_="", offline="", verify_key="", verify_identity="", json=False, debug=False):
    """Which image each card should have, or why none; the cards of this machine; what is published for them."""
    where = {"source": from_, "offline": offline, "key": verify_key, "identity": verify_identity}
    typed.run(partial(show_cards, card, driver, json, **where), debug)


@task(
    iterable=["card"],
    help=typed.JSON
    | {
        "model": "3b, 7b, 32b or 72b with -fp16, -bf16, -awq or -gptq; or a model's folder",
        "card": "a card's name; without it the cards of this machine",
        "count": "cards of that name in each machine",
        "nodes": "machines",
        "driver": "their driver, such as 535.104",
        "variant": "this image instead of the card's own",
        "tp": "this tensor parallel size",
        "pp": "this pipeline parallel size",
    },
)
def fit(c, model, card, count=0, nodes=1, driver="", variant="", tp=0, pp=0, json=False, debug=False):
    """How a model is served on cards: settings with reasons, memory line by line; or why it cannot be."""
    rest = {"count": count, "nodes": nodes, "driver": driver, "variant": variant, "tp": tp, "pp": pp}
    typed.run(lambda: show_fit(model, card, json, **rest), debug)


@task(iterable=["registry"], help=typed.JSON | {"registry": "also see whether this registry (or repository) answers"})
def doctor(c, registry, json=False, debug=False):
    """This machine: cards, driver, engine, GPU runtime, disk, memory, network: what is wrong, what to do, what fits."""
    typed.run(lambda: look_at_machine(registry, json), debug)


def show_plan(words: typed.Words, json: bool) -> None:
    """`invoke plan`."""
    matrix, variants, wanted = typed.selected(words)
    chosen = planning.select(matrix, variants, wanted)
    states = lock_states(matrix, typed.CHECKOUT.locks)
    built = _built_states(matrix, chosen)
    if json:
        typed.print_json([listing.variant_json(matrix.image, v, states[v.lock], built.get(v.id)) for v in chosen])
        return
    report = Report()
    rows = [[v.id, v.backend, v.cuda or "-", v.min_driver or "-", states[v.lock], built.get(v.id, "?")] for v in chosen]
    report.table(rows, ["variant", "backend", "CUDA", "driver from", "stack", "image"])
    for lock_name in dict.fromkeys(v.lock for v in chosen if states[v.lock] != "locked"):
        reason = why_unlocked(matrix, *all_locks(matrix)[lock_name])
        report.line(f"unlocked: {lock_name} ({reason}): may be built here, is never published")
    for note in {note.id: note for v in chosen for note in v.notes}.values():
        report.line(f"note {note.id}: {note.text} [{note.mark}: {note.source}]")
    report.line(f"{len(chosen)} of {len(variants.valid)} variants; left out: {len(variants.excluded)} (./inv explain)")
    if len(chosen) == 1:
        report.next_command(f"./inv build --only '{chosen[0].id}'")


def show_excluded(words: typed.Words, json: bool) -> None:
    """`invoke explain`."""
    matrix, variants, wanted = typed.selected(words)
    found = planning.explain(matrix, variants, wanted)
    if json:
        typed.print_json([listing.excluded_json(one) for one in found])
        return
    report = Report()
    if not found:
        report.line("nothing is left out by these selectors")
        report.next_command("./inv plan", "the same selectors show what there is")
        return
    print("\n".join(listing.excluded_lines(found)))
    report.line(f"{len(found)} combinations left out; '->' is the nearest one that can be")


def show_cards(names: Sequence[str], driver: str, json: bool, **where: Any) -> None:
    """`invoke cards`; ``where`` are the words of images/commands/_pull.py that name a catalogue."""
    from images.commands._cards import Known, cards_command
    from images.proof.on_card import read_all

    matrix, report = typed.CHECKOUT.matrix(), Report()
    locked = typed.locked(matrix)
    known = Known(locked, read_all())
    if where.get("source") or where.get("offline"):
        from images.commands import _pull as pull_command

        found = pull_command.published(typed.CHECKOUT, pull_command.Words(**where), report)
        known = Known(locked, known.records, found, where.get("source", ""))
    cards_command(matrix, make_variants(matrix), names, driver, known, json, report)


def show_fit(model: str, cards: Sequence[str], json: bool, **rest: Any) -> None:
    """`invoke fit`; ``rest`` are the other fields of FitWords."""
    from images.run.fit import FitWords, fit_command

    words = FitWords(model, cards, **rest)
    matrix = typed.CHECKOUT.matrix()
    locked = typed.locked(matrix)
    fit_command(matrix, make_variants(matrix), words, locked, json, Report())


def look_at_machine(registries: Sequence[str], json: bool) -> None:
    """`invoke doctor`."""
    from images.commands._doctor import doctor as look

    matrix = typed.CHECKOUT.matrix()
    locked = typed.locked(matrix)
    look(typed.CHECKOUT.root, matrix, make_variants(matrix), locked, registries, json, Report())


def _built_states(matrix: Any, chosen: Iterable[Variant]) -> dict[str, str]:
    """Variant id -> what its image here is, if an engine answers; none is started for it."""
    from images.build import done_state
    from images.render import VARIANT

    engine = typed.running_engine()
    if engine is None:
        return {}
    by_tag = {tag: facts.labels for facts in engine.images(VARIANT) for tag in facts.tags}
    there = {variant.id: by_tag.get(f"{matrix.image}:{variant.id}") for variant in chosen}
    jobs = typed.jobs(matrix, (variant for variant in chosen if there[variant.id] is not None))
    return dict.fromkeys(there, "absent") | {job.variant.id: done_state(job, there[job.variant.id]) for job in jobs}
