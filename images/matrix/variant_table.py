"""How variants and excluded points are shown: as JSON for scripts and CI, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from images.matrix.recommended import Recommendation
from images.matrix.variants import Excluded, Variant


def variant_json(
    image: str, variant: Variant, state: str, built: str | None, recommended: Iterable[Recommendation] = ()
) -> dict[str, Any]:
    """A variant for scripts and CI; ``recommended`` are all recommendations, of which it shows its own."""
    return {
        "id": variant.id,
        "tags": [f"{image}:{variant.id}"],
        "stack": variant.stack,
        "cuda": variant.cuda,
        "archs": [str(arch) for arch in variant.archs],
        "attention": variant.attention,
        "engine": variant.backend,  # as scripts know it
        "pins": {p: {"version": pin.version, "from": pin.origin, "mark": pin.mark} for p, pin in variant.pins},
        "kernel": variant.kernel.package if variant.kernel else None,
        "min_driver": variant.min_driver,
        "notes": [note.id for note in variant.notes],
        "stand_ins": [one.id for one in variant.stand_ins],
        "unused": [one.id for one in variant.unused_packages],
        "recommended": [
            {"arch": one.arch.capability, "place": one.place, "why": one.why or None}
            for one in recommended
            if one.variant.id == variant.id
        ],
        "state": state,
        "image": built,
    }


def excluded_json(excluded: Excluded) -> dict[str, Any]:
    """An excluded point for scripts."""
    point = excluded.point
    first = excluded.rules[0]
    return {
        "id": excluded.id,
        "stack": point.stack,
        "engine": point.backend,
        "attention": point.attention,
        "archs": [str(arch) for arch in point.archs],
        "rule": first.id,
        "reason": first.reason,
        "source": first.source,
        "mark": first.mark,
        "nearest": excluded.nearest or None,
        "rules": [rule.id for rule in excluded.rules],
    }


def recommended_lines(recommended: Sequence[Recommendation]) -> list[str]:
    """Arch by arch: its images in their order, the oldest driver of each, and why."""
    out: list[str] = []
    for one in recommended:
        if one.place == 1:
            out.append(f"recommended for {one.arch}: the first that the driver runs")
        out.append(f"  {one.place}. {one.variant.id}, driver from {one.variant.min_driver}")
        out += [f"     why: {one.why}"] if one.why else []
    return out


def excluded_lines(found: Iterable[Excluded]) -> list[str]:
    """Rule by rule: its reason and source, then each point it excludes and the nearest variant."""
    out: list[str] = []
    by_rule: dict[tuple[str, str], list[Excluded]] = {}  # some say for each stack something else
    for one in found:
        by_rule.setdefault((one.rules[0].id, one.rules[0].reason), []).append(one)
    for members in by_rule.values():
        rule = members[0].rules[0]
        out.append(f"{rule.id}\n  why: {rule.reason}\n  source: [{rule.mark}] {rule.source}")
        for one in members:
            others = f" (also: {', '.join(r.id for r in one.rules[1:])})" if len(one.rules) > 1 else ""
            instead = f" -> {one.nearest}" if one.nearest else " -> nothing else can be"
            out.append(f"    {one.id}{instead}{others}")
    return out
