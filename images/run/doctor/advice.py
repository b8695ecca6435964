"""How the doctor ends: the image that fits this machine's cards, or what a machine without one can do. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images.cards import ImageChoice, choose_images
from images.catalogue import choice_json, choice_lines
from images.matrix import Matrix, Variants
from images.run.doctor.facts import Facts, Unknown
from images.run.doctor.finding import Finding

_WITHOUT = (
    "without a card this machine can build and audit every image, and prove it on the CPU up to the canary",
    "the cpu image runs here, slowly; for a card elsewhere: ./inv build --card 'RTX 2080 Ti'",
)


@dataclass(frozen=True)
class Advice:
    """What fits, or what can be done all the same, and the command to type. ``choice`` is None without a card."""

    lines: tuple[str, ...]
    command: str
    choice: ImageChoice | None = None


_PULLED = (
    "REPO is where images are published, such as registry.example.com/team/qwen; CARDSTOCK_REPOSITORY names it too"
)


def advise(
    facts: Facts,
    matrix: Matrix,
    variants: Variants,
    locked: Mapping[str, bool],
    repository: str = "",
    *,
    builds: bool = True,
) -> Advice:
    """The image of this machine's cards and driver; where no card gets one, what helps instead.

    ``repository`` is where published images may be pulled from; "" where none is named: then they are built, and
    without ``builds`` pulled from one that is to be named.
    """
    if not builds:
        return _to_pull(facts, matrix, variants, locked, repository)
    machine = facts.cards
    if isinstance(machine, Unknown) or not machine.cards:
        return Advice(_WITHOUT, "./inv build --only 'cpu*'")
    choice = choose_images(matrix, variants, machine.as_cards(), machine.known_driver, locked)
    lines = tuple(choice_lines(choice))
    if not choice.picks:
        return Advice((*lines, *_WITHOUT), "./inv build --only 'cpu*'", choice)
    if repository:
        return Advice(lines, f"./inv pull --from {shlex.quote(repository)}", choice)
    chosen = " ".join(f"--only '{pick.variant.id}'" for pick in choice.picks)
    return Advice(lines, f"./inv build {chosen} --gpus all", choice)


def _to_pull(facts: Facts, matrix: Matrix, variants: Variants, locked: Mapping[str, bool], repository: str) -> Advice:
    """As `advise`, for who builds nothing."""
    machine = facts.cards
    pull = f"./inv pull --from {shlex.quote(repository) if repository else 'REPO'}"
    named = () if repository else (_PULLED,)
    cpu = next(name for name, variant in variants.valid.items() if not variant.archs)
    without = (f"the image for the CPU, {cpu}, runs here, slowly", *named)
    if isinstance(machine, Unknown) or not machine.cards:
        return Advice(without, f"{pull} --name {cpu}")
    choice = choose_images(matrix, variants, machine.as_cards(), machine.known_driver, locked)
    lines = tuple(choice_lines(choice))
    if not choice.picks:
        return Advice((*lines, *without), f"{pull} --name {cpu}", choice)
    return Advice((*lines, *named), pull, choice)


def doctor_json(findings: Sequence[Finding], advice: Advice) -> dict[str, Any]:
    """Findings and advice for scripts; ``ok`` is whether the exit code is 0."""
    return {
        "schema": 1,
        "ok": healthy(findings),
        "checks": [{"name": one.name, "state": one.state, "what": one.what, "do": one.do} for one in findings],
        "fits": choice_json(advice.choice) if advice.choice else None,
        "advice": list(advice.lines),
        "command": advice.command,
    }


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether no finding is "wrong"; warnings do not count."""
    return all(one.state != "wrong" for one in findings)
