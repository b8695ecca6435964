"""What the program `which` is built with: variants and their order, what rules forbid, sentences, names of cards. Pure.

Each table is asked of the code that `invoke pull` asks, so that a change of the matrix, of a rule or of a sentence
reaches the program when it is built anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from images.cards import (
    NVML_FAULTS,
    NVML_WSL,
    OLDEST_ARCH,
    SMALLEST_WEIGHTS,
    Card,
    all_cards,
    choose_images,
    why_no_image,
)
from images.catalogue import FILE, KIND, SCHEMA, TAG, Catalogue
from images.core import CardstockError
from images.docker import docker_words
from images.matrix import (
    KNOWN_ARCHS,
    LAST_FOR_VOLTA,
    NOT_LISTED,
    Arch,
    Judge,
    Matrix,
    Variants,
    driver_branches,
    parse_arch,
    ranking,
)
from images.run.serve import spec_without_model

FORM = 1
# What stands in a sentence for what only the program knows.
_NAME, _ARCH, _NUMBER, _MEMORY, _REFERENCE = "{name}", "{arch}", "{number}", "{memory}", "{reference}"
_UNKNOWN = Arch(99, 9)  # no card has it, and no rule speaks of it


def program_tables(matrix: Matrix, variants: Variants) -> dict[str, Any]:
    """All of it as JSON has it: what `images/which/program/tables.go` reads."""
    archs = sorted({*map(parse_arch, KNOWN_ARCHS), *(card.arch for card in all_cards())})
    ids = {identifier: at for at, identifier in enumerate(variants.valid)}
    return {
        "form": FORM,
        "catalogue": {
            "kind": KIND,
            "tag": TAG,
            "file": FILE,
            "form": SCHEMA,
            "schema": Catalogue.model_json_schema(by_alias=True),
        },
        "archs": list(matrix.archs),
        "variants": [
            {"id": one.id, "backend": one.backend, "archs": list(map(str, one.archs)), "min_driver": one.min_driver}
            for one in variants.valid.values()
        ],
        "order": {text: _order(matrix, variants, parse_arch(text), ids) for text in matrix.archs},
        "forbidden": _forbidden(matrix, variants, archs, ids),
        "refused": _refused(matrix, variants, archs),
        "never": _never(),
        "branches": {str(arch): driver_branches(arch)[0] for arch in archs if driver_branches(arch)[0]},
        "last_for_volta": LAST_FOR_VOLTA,
        "run": _run_words(),
        "nvml": {str(code): {"what": fault.what, "do": fault.do} for code, fault in NVML_FAULTS.items()},
        "nvml_wsl": {"what": NVML_WSL.what, "do": NVML_WSL.do},
        "names": _names(all_cards()),
    }


def _order(matrix: Matrix, variants: Variants, lowest: Arch, ids: Mapping[str, int]) -> list[list[int]]:
    """The variants that carry an arch, the best first where it is the oldest: number, and place in its list."""
    rank_of = ranking(matrix, lowest)
    carrying = sorted((one for one in variants.valid.values() if lowest in one.archs), key=rank_of)
    places = (rank_of(one)[0] for one in carrying)
    return [[ids[one.id], -1 if place == NOT_LISTED else place] for one, place in zip(carrying, places, strict=True)]


def _forbidden(
    matrix: Matrix, variants: Variants, archs: Iterable[Arch], ids: Mapping[str, int]
) -> dict[str, list[int]]:
    """For each arch that has no images of its own, the variants that a rule forbids on its cards.

    A rule speaks of any of the archs (`PartialRule.matches`), so that what is forbidden on several is what is on one.
    """
    judge = variants.judge or Judge(matrix)
    out = {}
    for arch in archs:
        if str(arch) in matrix.archs:
            continue
        against = (
            ids[one.id]
            for one in variants.valid.values()
            if one.archs and judge.rules_against(one.stack, one.backend, one.attention, (arch,))
        )
        if found := list(against):
            out[str(arch)] = found
    return out


def _refused(matrix: Matrix, variants: Variants, archs: Iterable[Arch]) -> dict[str, dict[str, Any]]:
    """The error for a card of each arch that no variant serves, whatever the driver; "" for an arch nobody knows."""
    out = {}
    for arch in (*archs, _UNKNOWN):
        card = Card(_NAME, arch, 0, "")
        if why_no_image(card) is None and (refusals := choose_images(matrix, variants, [card]).refusals):
            error = error_json(refusals[0].why)
            known = arch != _UNKNOWN
            for_all = ((str(_UNKNOWN), _ARCH), (f"sm{_UNKNOWN.number}", f"sm{_NUMBER}"))
            out[str(arch) if known else ""] = error if known else _with(error, for_all)
    return out


def error_json(error: CardstockError) -> dict[str, Any]:
    """An error as the program has it."""
    return {"exit": error.exit_code, "what": error.what, "cause": error.cause, "do": error.do, "where": error.where}


def _with(error: dict[str, Any], replacing: Iterable[tuple[str, str]]) -> dict[str, Any]:
    for text, instead in replacing:
        error = {key: value.replace(text, instead) if isinstance(value, str) else value for key, value in error.items()}
    return error


def _never() -> dict[str, Any]:
    """Why there can be no image for a card with any stack, and the figures that decide it (`why_no_image`)."""
    memory = 1.0
    old = why_no_image(Card(_NAME, Arch(3, 0), 0, ""))
    arm = why_no_image(Card(_NAME, _UNKNOWN, 0, "", host="arm64"))
    small = why_no_image(Card(_NAME, _UNKNOWN, memory, ""))
    sentences = {"old": (old, "3.0", _ARCH), "arm": (arm, "", ""), "small": (small, f"{memory:g} GB", f"{_MEMORY} GB")}
    out: dict[str, Any] = {"oldest": str(OLDEST_ARCH), "smallest": SMALLEST_WEIGHTS}
    out["jetson"] = [
        text for text in KNOWN_ARCHS if why_no_image(Card(_NAME, parse_arch(text), 0, "", host="arm64")) is None
    ]
    for key, (error, text, instead) in sentences.items():
        if error is None:
            raise ValueError(f"no sentence for a card that is {key}: why_no_image has changed")
        out[key] = {**error_json(error), "where": "", "what": error.what.replace(text, instead) if text else error.what}
    return out


def _run_words() -> dict[str, list[str]]:
    """`docker run` of an image, as `pull` prints it: the words before those that give it cards, and those after."""
    words = docker_words(spec_without_model(_REFERENCE, cards=True), foreground=True)
    at = words.index("--gpus")
    return {"before": words[:at], "after": words[at + 2 :]}


def _names(cards: Sequence[Card]) -> list[list[Any]]:
    """What cards are called, and their archs: for where the driver tells a name and nothing tells the rest.

    A name's beginning ("h100") stands for its cards where all that begin so are of one arch.
    """
    full = {_plain(name): card for card in cards for name in (card.name, *card.aliases)}
    out: dict[str, tuple[str, float]] = {name: (str(card.arch), card.memory) for name, card in full.items()}
    beginnings: dict[str, set[str]] = {}
    for name, card in full.items():
        words = name.split()
        for count in range(1, len(words)):
            beginnings.setdefault(" ".join(words[:count]), set()).add(str(card.arch))
    for name, archs in beginnings.items():
        if len(archs) == 1 and any(letter.isdigit() for letter in name):
            out.setdefault(name, (next(iter(archs)), 0))
    return [[name, arch, memory] for name, (arch, memory) in sorted(out.items())]


def _plain(name: str) -> str:
    words = name.lower().replace("-", " ").split()
    return " ".join(word for word in words if word not in ("nvidia", "geforce", "tesla", "quadro"))
