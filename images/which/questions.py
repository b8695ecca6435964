"""Questions about cards and drivers, as `invoke pull` answers them and as the program `which` does: the same, or not.

A question is a line of JSON, as images/which/program/cases.go reads it: cards with a driver, or a machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from images.cards import (
    Card,
    LocalCard,
    LocalMachine,
    LostCard,
    MigInstance,
    NvmlFault,
    all_cards,
    asked_cards,
    why_no_image,
)
from images.catalogue import (
    CardQuery,
    Catalogue,
    answer_json,
    answer_lines,
    match_images,
    reference_of,
    require_match,
    uuids_of,
)
from images.core import CardstockError, CheckFailed, process
from images.docker import docker_words, spec_by_way
from images.matrix import Arch, Matrix, Variants, parse_driver
from images.run.serve import spec_without_model
from images.which.tables import error_json

Question = dict[str, Any]
Answer = dict[str, Any]
_SECONDS = 300.0


class Difference(NamedTuple):
    """A question that the two answer differently, and both answers."""

    question: Question
    by_pull: Answer
    by_program: Answer


def card_json(card: Card) -> dict[str, Any]:
    """A card of a question."""
    return {"name": card.name, "arch": str(card.arch), "memory": card.memory, "source": card.source, "host": card.host}


def usual_questions(variants: Variants) -> Iterator[Question]:
    """One card of each kind that is chosen for alike, with each driver that some image needs, and one just before."""
    kinds: dict[tuple[Any, ...], Card] = {}
    for card in all_cards():
        never = why_no_image(card)
        kinds.setdefault((card.arch, card.host, never.cause if never else ""), card)
    needed = {one.min_driver for one in variants.valid.values() if one.min_driver}
    branches = {driver.partition(".")[0] for driver in needed}
    drivers = sorted({*needed, *branches, *(f"{int(branch) - 1}.999.99" for branch in branches), "999"})
    for card in kinds.values():
        yield {"cards": [card_json(card)], "driver": ""}
        for driver in drivers:
            yield {"cards": [card_json(card)], "driver": driver}
    first = [card for card in kinds.values() if why_no_image(card) is None]
    for one, other in pairwise(first):
        for driver in drivers:
            yield {"cards": [card_json(one), card_json(other)], "driver": driver}


def by_pull(
    question: Mapping[str, Any], catalogue: Catalogue, repository: str, matrix: Matrix, variants: Variants
) -> Answer:
    """What `invoke pull` answers, in the program's form."""
    try:
        query = _query(question)
        resolved = match_images(catalogue, matrix, variants, query.cards, query.driver)
        require_match(resolved)
    except CardstockError as error:
        return {"error": error_json(error)}
    runs = []
    for one in resolved.matches:
        spec = spec_without_model(reference_of(repository, one.image), cards=True, uuids=uuids_of(one, query, resolved))
        runs.append(docker_words(spec_by_way(spec, question.get("way", "")), foreground=True))
    return {
        "answer": answer_json(repository, catalogue, query, resolved, runs),
        "lines": answer_lines(repository, catalogue, resolved),
    }


def _query(question: Mapping[str, Any]) -> CardQuery:
    if told := question.get("machine"):
        return CardQuery.of(asked_cards((), "", purpose="to find an image for", do="", machine=_machine(told)))
    cards = tuple(Card(**{**card, "arch": _arch(card["arch"])}) for card in question["cards"])
    return CardQuery(cards, parse_driver(question["driver"]) if question["driver"] else None)


def _arch(text: str) -> Arch:
    """A capability, also one that no card has."""
    major, _, minor = text.partition(".")
    return Arch(int(major), int(minor))


def _machine(told: Mapping[str, Any]) -> LocalMachine:
    cards = tuple(
        LocalCard(
            card["name"],
            card["uuid"],
            _arch(card["arch"]),
            card["memory"],
            card.get("mig", False),
            tuple(MigInstance(**part) for part in card.get("slices", ())),
            card["index"],
        )
        for card in told["cards"]
    )
    lost = tuple(LostCard(one["index"], one["address"], NvmlFault(15, one["what"])) for one in told.get("lost", ()))
    return LocalMachine(told["driver"], cards=cards, host=told.get("host", ""), lost=lost)


def by_program(
    program: Path, questions: Sequence[Question], catalogue: Catalogue, repository: str, folder: Path
) -> list[Answer]:
    """What the program answers; files for it are written into ``folder``. Raises CheckFailed where it does not."""
    saved, asked = folder / "catalogue.json", folder / "questions.jsonl"
    saved.write_text(catalogue.to_json(), encoding="utf-8")
    asked.write_text("".join(f"{json.dumps(one)}\n" for one in questions), encoding="utf-8")
    words = [str(program), "--from", repository, "--catalogue", str(saved), "--cases", str(asked)]
    try:
        out = process.run(words, timeout=_SECONDS).out
    except process.ProcessFailed as error:
        raise CheckFailed("the program which does not answer", cause=error.tail, where=str(program)) from error
    answers: list[Answer] = [json.loads(line) for line in out.splitlines()]
    if len(answers) != len(questions):
        raise CheckFailed(f"the program which answers {len(answers)} of {len(questions)} questions", where=str(program))
    # What it says of MIG and of lost cards, pull tells in its report.
    return [{key: value for key, value in answer.items() if key != "notes"} for answer in answers]


def differences(
    program: Path,
    questions: Sequence[Question],
    catalogue: Catalogue,
    repository: str,
    matrix: Matrix,
    variants: Variants,
    folder: Path,
) -> list[Difference]:
    """The questions that the two answer differently. Raises CheckFailed where the program does not answer."""
    theirs = by_program(program, questions, catalogue, repository, folder)
    ours = (by_pull(one, catalogue, repository, matrix, variants) for one in questions)
    compared = zip(questions, ours, theirs, strict=True)
    return [Difference(one, mine, other) for one, mine, other in compared if mine != other]
