"""The gate: what is recommended has no open advisory that is severe, and what is published says which it has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from images.advisories.judge import Assessment, Finding
from images.advisories.model import Advisories
from images.core import Unsafe, UsageError, closest
from images.matrix import Matrix, Variants, recommendations

# Days after which the file is old: publishing says so, and then refuses.
OLD, TOO_OLD = 30, 90


@dataclass(frozen=True)
class Place:
    """A place in the matrix that recommends a variant: its arch, and which entry of that arch's list."""

    arch: str
    index: int


def places_of(matrix: Matrix, variants: Variants) -> dict[str, tuple[Place, ...]]:
    """Id of each variant that the matrix recommends for a card -> where."""
    places: dict[str, list[Place]] = {}
    for one in recommendations(matrix, variants):
        places.setdefault(one.variant.id, []).append(Place(one.arch.capability, one.place - 1))
    return {name: tuple(found) for name, found in places.items()}


def refuse_recommended(
    matrix: Matrix, variants: Variants, known: Advisories, assessments: Mapping[str, Assessment]
) -> None:
    """Raise UsageError where a recommended variant has an open advisory that is high, critical or not rated.

    One that nobody could rate yet may be deferred for some weeks.
    """
    for identifier, (place, *_) in places_of(matrix, variants).items():
        severe = assessments[identifier].refused
        if severe:
            more = f" (and {len(severe) - 1} more: ./inv advisories --only '{identifier}')" if len(severe) > 1 else ""
            where = matrix.where("recommended", "archs", place.arch, place.index)
            raise UsageError(
                f"{matrix._path}: recommended.archs.{place.arch}.{place.index}: {identifier} has an open advisory: "
                f"{severe[0].name}{more}",
                cause=f"{severe[0].advisory.what}; {severe[0].why}",
                do=cure(known, severe[0]),
                where=f"{where}; {known.where_is(severe[0].advisory.id)}",
            )


def cure(known: Advisories, finding: Finding) -> str:
    """What closes an open advisory, in a sentence."""
    advisory = finding.advisory
    ways = [f"pin {advisory.package} {advisory.fixed} or newer"] if advisory.fixed else []
    if finding.missing:
        ways.append(_give(known, finding.missing))
    if finding.reach.answer == "unknown":
        ways.append(f"judge in {known.where_is(advisory.id)} whether serving reaches it, and why")
    return "; or ".join([*ways, "recommend another image"])


def _give(known: Advisories, names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"give the image {names[0]} ({known.protections[names[0]].what})"
    return f"give the image {', '.join(names[:-1])} and {names[-1]} ({known.where('protections')} says what they are)"


def refuse_open(known: Advisories, assessments: Iterable[Assessment], accepted: Sequence[str]) -> None:
    """Raise Unsafe where something to publish has a severe open advisory that nobody accepted by name.

    A name that is open in none of these is allowed: CI accepts for all images together. Raises UsageError for one that
    is no advisory of the file.
    """
    names = sorted(name for advisory in known.advisories for name in advisory.names)
    for name in accepted:
        if name not in names:
            raise UsageError(
                f"--accept {name}: {known._path} has no advisory of this name",
                do=f"nearest: {closest(name, names)}. All of them: ./inv advisories --all --json",
                where=known.where("advisories"),
            )
    for one in assessments:
        if refused := [finding for finding in one.severe_open if not finding.advisory.names & set(accepted)]:
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise Unsafe(
                f"{one.variant.id} has an open advisory: {refused[0].name}{more}: it is not published",
                cause=f"{refused[0].advisory.what}; {refused[0].why}",
                do=f"{cure(known, refused[0])}; to publish it all the same, and have its record say so: "
                + " ".join(f"--accept {finding.advisory.id}" for finding in refused),
                where=known.where_is(refused[0].advisory.id),
            )


def age_line(known: Advisories, today: date) -> str:
    """What is to be said of the file's age, "" while it is fresh."""
    days = (today - known.read).days
    if days <= OLD:
        return ""
    return f"{known._path} is of {known.read}, {days} days old: ./inv advisories --update --write asks what is new"


def refuse_stale(known: Advisories, today: date, *, accepted: bool) -> None:
    """Raise Unsafe where the file is older than 90 days, unless that was accepted."""
    days = (today - known.read).days
    if days > TOO_OLD and not accepted:
        raise Unsafe(
            f"{known._path} is of {known.read}, {days} days old: nothing is published by it",
            cause=f"what became known since then is not in it; the limit is {TOO_OLD} days",
            do="./inv advisories --update --write, judge what is new, commit it; or --stale-advisories",
            where=known.where("read"),
        )
