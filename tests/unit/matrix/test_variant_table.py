"""What cannot be, told rule by rule for people, and one by one for scripts."""

from __future__ import annotations

import json

from images.matrix.variant_table import excluded_json, excluded_lines
from tests.helpers.matrices import variants
from tests.helpers.nonempty import nonempty


def test_every_excluded_point_is_told_below_its_rule_with_the_nearest_that_can_be() -> None:
    excluded = variants().excluded
    lines = excluded_lines(excluded)
    points = [line.split() for line in lines if line.startswith("    ")]
    assert sorted(words[0] for words in points) == sorted(one.id for one in excluded)
    assert {words[0]: words[2] for words in points if words[2] != "nothing"} == {
        one.id: one.nearest for one in excluded if one.nearest
    }
    rules = [line for line in lines if not line.startswith("    ")]
    told = [tuple(line.split("\n")[:2]) for line in rules]
    first = [one.rules[0] for one in excluded]
    assert told == list(dict.fromkeys((rule.id, f"  why: {rule.reason}") for rule in first))
    for line in nonempty(rules):
        assert "\n  why: " in line and "\n  source: [" in line


def test_a_point_that_several_rules_exclude_names_the_others() -> None:
    one = nonempty(one for one in variants().excluded if len(one.rules) > 1)[0]
    (_, line) = excluded_lines([one])
    assert line.endswith(f"(also: {', '.join(rule.id for rule in one.rules[1:])})")


def test_scripts_get_the_same() -> None:
    for one in nonempty(variants().excluded):
        told = json.loads(json.dumps(excluded_json(one)))
        assert (told["id"], told["rule"], told["reason"]) == (one.id, one.rules[0].id, one.rules[0].reason)
        assert told["nearest"] == (one.nearest or None)
