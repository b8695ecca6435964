"""`invoke doctor`: gather, judge, print."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from images.core import CheckFailed, Report
from images.matrix import Matrix, Variants
from images.run.doctor import CheckState, advise, check_facts, doctor_json, gather_facts, healthy

STYLES: Mapping[CheckState, str] = {"ok": "green", "warning": "yellow", "wrong": "red"}
HUB = "registry-1.docker.io"  # what an image name without a host means


def registry_hosts(matrix: Matrix, repositories: Sequence[str]) -> list[str]:
    """The hosts that base images come from, and those of the named repositories (or hosts), each once."""
    heads = [name.partition("/")[0] for name in (*(base.image for base in matrix.bases.values()), *repositories)]
    return list(dict.fromkeys(_host(head) for head in heads))


def _host(head: str) -> str:
    """A name's first part, where it is a host: "debian:bookworm" and "library" are the default registry's."""
    name, _, port = head.partition(":")
    return head if "." in name or name == "localhost" or port.isdigit() else HUB


def doctor(
    root: Path,
    matrix: Matrix,
    variants: Variants,
    locked: Mapping[str, bool],
    repositories: Sequence[str],
    json: bool,
    report: Report,
) -> None:
    """Look at this machine and say how it is. Raises CheckFailed where something is wrong.

    The first of ``repositories`` that is no bare host, or $CARDSTOCK_REPOSITORY, is what would be pulled from.
    """
    named = [*repositories, *filter(None, [os.environ.get("CARDSTOCK_REPOSITORY")])]
    facts = gather_facts(root, registry_hosts(matrix, named))
    found = check_facts(facts, matrix)
    advice = advise(facts, matrix, variants, locked, next((name for name in named if "/" in name), ""))
    if json:
        print(json_module.dumps(doctor_json(found, advice), indent=1))
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            report.line(f"{one.state:8}{one.name:{width}}  {one.what}", STYLES[one.state])
            if one.do and one.state != "ok":
                report.line(f"{'':8}{'':{width}}  do: {one.do}")
        if not healthy(found):
            report.line("once what is wrong above is mended:")
        for line in advice.lines:
            report.line(line)
        report.next_command(advice.command)
    if not healthy(found):
        wrong = [one.name for one in found if one.state == "wrong"]
        raise CheckFailed(f"wrong: {', '.join(wrong)}", do="what the lines above say" if not json else "")
