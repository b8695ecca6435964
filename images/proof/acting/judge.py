"""Verdicts on what an acted server chose, said and refused. Pure, standard library only.

An outcome is what worker.py writes; an expectation what expected.py does. Each function gives the step's
facts, and raises Failed, or NotRun where the server came to no end that could be judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from images.proof.acting.cards import ActedCard
from images.proof.on_card.runs import Failed, NotRun

Outcome = Mapping[str, Any]
Facts = dict[str, Any]
# Modules without whose change nothing was acted (acted/sitecustomize.py, CHANGES).
NEEDED = ("torch.cuda", "triton.backends.nvidia.driver")
NO_CAPABILITY = "Minimum capability"
PREFLIGHT = "has no code for"
# vLLM's words where bfloat16 is asked of a card that has it not.
NO_BFLOAT16 = r"[Bb]float16"


def facts_of(outcome: Outcome) -> Facts:
    """What every step tells of a server; of an answer only whether and what was said."""
    kept = ("how", "seconds", "error", "stages", "chose", "kernels", "changed", "unfinished")
    return {key: outcome[key] for key in kept if outcome.get(key)}


def judge_choices(outcome: Outcome, card: ActedCard, expected: Mapping[str, Any]) -> Facts:
    """The server decided as the matrix says, and for this card; it was really acted."""
    facts = facts_of(outcome) | {"as": expected["variant"]}
    chose = outcome["chose"]
    if outcome["how"] == "ended":
        raise Failed(f"it ended: {_why(outcome)}", facts)
    if outcome["how"] == "late" and not chose["attention"]:
        raise NotRun(f"{outcome['error']}, before it told of its attention", facts)
    wrong = [f"{name} was not acted" for name in NEEDED if name not in outcome["changed"]]
    if expected["attention"] and chose["attention"] != expected["attention"]:
        wrong.append(f"its attention is {chose['attention'] or 'not told'}, and {expected['attention']} was expected")
    if expected["dtype"] and chose["dtype"] != expected["dtype"]:
        wrong.append(f"its numbers are {chose['dtype'] or 'not told'}, and {expected['dtype']} was expected")
    if foreign := sorted(set(outcome["kernels"]) - {f"sm_{card.number}"}):
        wrong.append(f"kernels were compiled for {', '.join(foreign)}, and sm_{card.number} is acted")
    left_out = chose["preflight"].startswith("preflight: left out")  # as it is where the front could not be made
    if not left_out and f"{card.name} ({card.capability})" not in chose["preflight"]:
        wrong.append(f"preflight did not see the card: {chose['preflight'] or 'it said nothing'}")
    if wrong:
        raise Failed("; ".join(wrong), facts)
    return facts


def judge_answers(outcome: Outcome) -> Facts:
    """The answers are right."""
    facts = facts_of(outcome)
    if outcome["how"] == "ended":
        raise Failed(f"it ended: {_why(outcome)}", facts)
    if outcome["how"] == "late":
        raise NotRun(f"{outcome['error']}", facts)
    facts |= {"answers": outcome.get("answers", {})}
    if outcome.get("unfinished"):
        raise NotRun("healthy, and no answer within its time", facts)
    if outcome.get("wrong"):
        raise Failed(str(outcome["wrong"]), facts)
    if not outcome.get("answers"):
        raise Failed("nothing was answered", facts)
    return facts


def judge_refusal(outcome: Outcome, pattern: str, what: str) -> Facts:
    """The server ended before it was healthy, and a line of its log says ``pattern`` (a regular expression)."""
    facts = facts_of(outcome)
    lines = [*outcome["chose"]["refusals"], outcome["chose"]["preflight"], *outcome["tail"]]
    said = next((line for line in lines if re.search(pattern, line)), "")
    facts["said"] = said
    if outcome["how"] == "healthy":
        raise Failed(f"{what} was not refused: the server got healthy", facts)
    if outcome["how"] == "late":
        raise NotRun(f"{what}: {outcome['error']}", facts)
    if not said:
        raise Failed(f"{what}: the server ended, and does not say why: {_why(outcome)}", facts)
    return facts


def judge_forced(outcome: Outcome, forced: str, card: ActedCard) -> Facts:
    """An attention was forced that the card's capability has not: the server refuses it, or takes another."""
    facts = facts_of(outcome)
    chosen = outcome["chose"]["attention"]
    if outcome["how"] == "ended" or (chosen and chosen != forced):
        reasons = [*outcome["chose"]["refusals"], *outcome["tail"]]
        facts["said"] = next(
            (line for line in reasons if re.search(r"capability|Cannot use|Turing|not valid", line)), ""
        )
        if facts["said"] or chosen:
            return facts
        raise Failed(f"{forced} on {card.capability}: it ended, and does not say why: {_why(outcome)}", facts)
    if outcome["how"] == "late" and not chosen:
        raise NotRun(f"{outcome['error']}, before it told of its attention", facts)
    raise Failed(f"{forced} was taken on {card.capability}, where it has no code", facts)


def judge_seen(told: Mapping[str, Any], card: ActedCard, *, front: bool) -> Facts:
    """Everything that can be asked for the card tells the acted one, and its memory is not to be exceeded."""
    wanted: dict[str, dict[str, Any]] = {
        "torch": {"capability": card.capability, "name": card.name, "sms": card.sms, "memory": card.memory},
        "pynvml": {"capability": card.capability, "name": card.name, "memory": card.memory},
        "vLLM's pynvml": {"capability": card.capability, "name": card.name, "memory": card.memory},
        "Triton": {"target": card.number, "shared memory": card.limits.block_optin, "sms": card.sms, "right": True},
    }
    if front:
        wanted["preflight"] = {"capability": card.capability, "name": card.name}
    wrong = []
    for who, values in wanted.items():
        seen = told.get(who, {})
        if "error" in seen:
            # NVIDIA's module is not in every image: vLLM has a copy of its own.
            absent = who == "pynvml" and seen["error"].startswith("ModuleNotFoundError")
            wrong += [] if absent else [f"{who}: {seen['error']}"]
            continue
        wrong += [
            f"{who}: {key} is {seen.get(key)}, not {value}" for key, value in values.items() if seen.get(key) != value
        ]
    foreign = sorted(set(told.get("Triton", {}).get("kernels", {})) - {f"sm_{card.number}"})
    wrong += [f"Triton: kernels for {', '.join(foreign)}"] if foreign else []
    wrong += [] if told.get("memory refused") else ["torch gave more memory than the card has"]
    if wrong:
        raise Failed("; ".join(wrong), dict(told))
    return dict(told)


def _why(outcome: Outcome) -> str:
    """The lines that tell of a refusal, else the end of the log."""
    refusals = outcome["chose"]["refusals"]
    return "; ".join(refusals) if refusals else " | ".join(outcome["tail"][-6:])[-900:]
