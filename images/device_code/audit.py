"""Which cards a set of libraries really runs on: read from the libraries, told as rows and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from images.device_code.fatbin import FatbinError, Library, UnknownForm
from images.device_code.model import BARE
from images.device_code.names import shown
from images.device_code.verdict import (
    JIT,
    LOWER,
    NONE,
    PARTLY,
    UNKNOWN,
    Capability,
    Verdict,
    covers,
    judge,
    labels,
    parse_capability,
)

__all__ = ["Audit", "Audited", "audit", "covers", "judge", "parse_capability"]

DAMAGED = "damaged"


@dataclass(frozen=True)
class Audited:
    """One file with device code; or, with ``problem``, one whose headers contradict themselves."""

    name: str
    library: Library
    problem: str = ""

    @property
    def bare(self) -> bool:
        """Whether it is nothing but device code (a cubin, PTX): the program that loads it chooses among such files."""
        return self.library.form in BARE

    @property
    def archs(self) -> dict[str, int]:
        """Each architecture, such as "7.5", "9.0a" or "PTX 8.0", and the number of its entries."""
        return labels(tuple(entry for container in self.library.loadable for entry in container.entries))

    def verdict(self, card: Capability) -> Verdict:
        """What ``card`` runs of it. A damaged library covers nothing."""
        return Verdict(card, DAMAGED, 0) if self.problem else judge(self.library, card)


@dataclass(frozen=True)
class Audit:
    """What was found in ``target``: libraries with device code by name, and how many other files were looked at."""

    target: str
    libraries: tuple[Audited, ...] = ()
    others: int = 0
    _verdicts: dict[tuple[str, Capability], Verdict] = field(default_factory=dict, compare=False, repr=False)

    def verdicts(self, card: Capability) -> dict[str, Verdict]:
        """Name -> what ``card`` runs of it."""
        return {one.name: self.verdict(one, card) for one in self.libraries}

    def verdict(self, one: Audited, card: Capability) -> Verdict:
        """What ``card`` runs of one of the libraries."""
        if (one.name, card) not in self._verdicts:
            self._verdicts[one.name, card] = one.verdict(card)
        return self._verdicts[one.name, card]

    def failing(self, cards: Iterable[Capability]) -> dict[str, tuple[Verdict, ...]]:
        """Name -> the verdicts of the cards that it does not cover; empty if every card can run everything."""
        bad: dict[str, tuple[Verdict, ...]] = {}
        for card in cards:
            for name, verdict in self.verdicts(card).items():
                if not verdict.covers:
                    bad[name] = (*bad.get(name, ()), verdict)
        return bad


def audit(target: str, found: Iterable[tuple[str, Library | FatbinError]]) -> Audit:
    """Sort what was read: (name, what is in it or why it cannot be read)."""
    libraries, others = [], 0
    for name, what in found:
        if isinstance(what, UnknownForm):
            libraries.append(Audited(name, Library(True, 0, unread=str(what))))
        elif isinstance(what, FatbinError):
            libraries.append(Audited(name, Library(True, 0), str(what)))
        elif what.holds_code:
            libraries.append(Audited(name, what))
        else:
            others += 1
    return Audit(target, tuple(sorted(libraries, key=lambda one: one.name)), others)


def name_of(card: Capability) -> str:
    """ "7.5"."""
    return f"{card[0]}.{card[1]}"


def cell(verdict: Verdict) -> str:
    """A verdict in a few words: "native", "ptx, driver 550 (CUDA 12.4)", "partly: 18 of 56 lack it"."""
    ptx = "ptx, linked at load" if verdict.linked else "ptx"
    if verdict.kind == PARTLY:
        jit = f"; {ptx}, {verdict.driver}" if verdict.driver else ""
        return f"partly: {len(verdict.lacking)} of {verdict.containers} lack it{jit}"
    if verdict.kind == JIT:
        return f"{ptx}, {verdict.driver}" if verdict.driver else ptx
    return verdict.kind


_ALIKE = 4  # so many files of one folder that say the same are one row


def table(found: Audit, cards: Sequence[Capability]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a library, what it holds, and a column a card.

    Bare files of one folder and one kind that hold the same are one row, where there are many.
    """
    rows: list[list[str]] = []
    alike: dict[tuple[str, ...], list[Audited]] = {}
    for one in found.libraries:
        row = _row(found, one, cards)
        place = (one.name.rpartition("/")[0], one.name.rpartition(".")[2]) if one.bare else (one.name,)
        alike.setdefault((*place, *row[1:]), []).append(one)
    for same in alike.values():
        if len(same) < _ALIKE:
            rows += [_row(found, one, cards) for one in same]
            continue
        folder, name = same[0].name.rpartition("/")[::2]
        pattern = f"{folder}/*.{name.rpartition('.')[2]}".lstrip("/")
        rows.append([f"{shown(pattern)} ({len(same)} files)", *_row(found, same[0], cards)[1:]])
    return ["library", "containers", "holds", *map(name_of, cards)], rows


def _row(found: Audit, one: Audited, cards: Sequence[Capability]) -> list[str]:
    verdicts = [cell(found.verdict(one, card)) for card in cards]
    holds = one.problem or " ".join(arch.replace("PTX ", "PTX:") for arch in one.archs)
    holds = "; ".join(text for text in (holds, one.library.unread) if text)
    return [shown(one.name), str(len(one.library.loadable)), shown(holds), *verdicts]


def gaps_table(found: Audit, cards: Sequence[Capability]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: for each library that does not cover a card, what the containers hold that lack it."""
    rows = []
    bare = {one.name for one in found.libraries if one.bare}  # a row of the table says all of it
    for name, verdicts in found.failing(cards).items():
        for verdict in verdicts if name not in bare else ():
            for held, count in sorted(verdict.lacking_hold().items(), key=lambda item: (-item[1], item[0])):
                rows.append([shown(name), name_of(verdict.capability), str(count), held])
    return ["library", "card", "containers", "hold only"], rows


def to_json(found: Audit, cards: Sequence[Capability]) -> dict[str, object]:
    """For machines: all of `table` and `gaps_table`, and the file offset of every container that lacks a card."""
    libraries = []
    for one in found.libraries:
        verdicts = {name_of(card): _verdict_json(found.verdict(one, card)) for card in cards}
        row: dict[str, object] = {
            "name": one.name,
            "bytes": one.library.size,
            "containers": len(one.library.loadable),
            "entries": sum(one.archs.values()),
            "archs": one.archs,
            "verdicts": verdicts,
        }
        if one.problem:
            row["problem"] = one.problem
        if one.library.unread:
            row["unread"] = one.library.unread
        libraries.append(row)
    summary = {name_of(card): summarise(found, card) for card in cards}
    return {"target": found.target, "cards": summary, "libraries": libraries, "without_device_code": found.others}


def summarise(found: Audit, card: Capability) -> str:
    """The worst verdict of all libraries, for one card."""
    order = (DAMAGED, NONE, PARTLY, UNKNOWN, JIT, LOWER, "native")
    kinds = {verdict.kind for verdict in found.verdicts(card).values()}
    if NONE in kinds and kinds != {NONE}:
        return PARTLY if DAMAGED not in kinds else DAMAGED
    return next((kind for kind in order if kind in kinds), "no device code")


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    told: dict[str, object] = {"verdict": verdict.kind}
    if verdict.ptx:
        told |= {"ptx": f"{verdict.ptx[0]}.{verdict.ptx[1]}", "needs": verdict.driver}
    if verdict.linked:
        told["linked"] = "at load"
    if verdict.lacking:
        told["lacking"] = [container.offset for container in verdict.lacking]
        told["lacking_hold"] = verdict.lacking_hold()
    return told
