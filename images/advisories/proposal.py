"""What a look-up would change in advisories.yaml, and the file with it. Pure: text in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from images.advisories.found import Found
from images.advisories.judge import version_in_range
from images.advisories.model import Advisories, Advisory, Ecosystem
from images.advisories.packages import Carried
from images.advisories.reader import parse_advisories
from images.core import UsageError

_EMPTY = re.compile(r"^advisories: *\[\] *$", re.MULTILINE)
_READ = re.compile(r"^read: *\S+", re.MULTILINE)


@dataclass(frozen=True)
class Wider:
    """An entry whose range does not have a version in which a service sees the hole."""

    advisory: Advisory
    version: str
    found: Found


@dataclass(frozen=True)
class Proposal:
    """Holes that the file does not have, and entries whose range is too narrow."""

    new: tuple[Found, ...]
    wider: tuple[Wider, ...]

    def rows(self) -> list[list[str]]:
        """A row each, for people."""
        rows = [["new", one.id, one.package, one.affected, one.severity, one.what] for one in self.new]
        for one in self.wider:
            change = f"{one.advisory.affected} -> {one.found.affected}"
            rows.append(["wider", one.advisory.id, one.found.package, change, one.advisory.severity, one.advisory.what])
        return rows


PROPOSAL_HEADER = ["change", "advisory", "package", "versions", "severity", "what"]


def propose(known: Advisories, found: Iterable[Found], carried: Iterable[Carried]) -> Proposal:
    """The difference between what services know of what is carried, and the file."""
    everything = list(carried)
    new: list[Found] = []
    wider: list[Wider] = []
    for one in found:
        have = next((advisory for advisory in known.advisories if advisory.names & one.names), None)
        if have is None:
            new.append(one)
        elif missed := _missed(have, one, everything):
            wider.append(Wider(have, missed, one))
    return Proposal(tuple(sorted(new, key=lambda one: (one.ecosystem, one.package, one.id))), tuple(wider))


def _missed(have: Advisory, found: Found, carried: Iterable[Carried]) -> str:
    """A version that is carried, in the service's range and not in the file's; "" where there is none."""
    versions = {one.of(found.ecosystem).get(found.package, "") for one in carried} - {""}
    for version in sorted(versions):
        inside = version_in_range(found.ecosystem, version, found.affected)
        if inside and not version_in_range(have.ecosystem, version, have.affected):
            return version
    return ""


def with_proposal(text: str, proposal: Proposal, today: date) -> str:
    """The file with the new entries at its end, the ranges as the services have them, and today's date.

    New ones are written without `reaches`: they are open until somebody has judged them. Comments stay. Raises
    UsageError where the file is not of the form that this can be done to.
    """
    if len(_READ.findall(text)) != 1:
        raise UsageError(
            "advisories.yaml has not one line `read: DATE`", do="put it at the beginning of a line of its own"
        )
    out = _READ.sub(f"read: {today}", text)
    for one in proposal.wider:
        out = _with_range(out, one)
    if proposal.new:
        out = _EMPTY.sub("advisories:", out)
    if not out.endswith("\n"):
        out += "\n"
    out += "".join(_entry(one, today) for one in proposal.new)
    parse_advisories(out)  # what is written can be read
    return out


def _with_range(text: str, one: Wider) -> str:
    entry = re.compile(
        rf"^(  - id: {re.escape(one.advisory.id)}\n(?:    .*\n)*?    affected: ).*$(\n    fixed: ).*$", re.MULTILINE
    )
    fixed = json.dumps(one.found.fixed)
    changed, count = entry.subn(lambda m: f"{m[1]}{json.dumps(one.found.affected)}{m[2]}{fixed}", text)
    if count != 1:
        raise UsageError(
            f"advisories.yaml: {one.advisory.id}: its range cannot be changed by a program",
            do=f"write affected: {json.dumps(one.found.affected)} and fixed: {fixed} by hand",
        )
    return changed


def _entry(one: Found, today: date) -> str:
    lines = [f"  - id: {one.id}"]
    lines += [f"    aliases: [{', '.join(one.aliases)}]"] if one.aliases else []
    lines += [f"    package: {one.package}"]
    lines += [f"    ecosystem: {one.ecosystem}"] if one.ecosystem != "pypi" else []
    lines += [
        f"    affected: {_quoted(one.affected)}",
        f"    fixed: {_quoted(one.fixed)}",
        f"    severity: {one.severity}",
    ]
    lines += [f"    score: {one.score:.1f}"] if one.score is not None else []
    lines += [
        f"    what: {_quoted(one.what)}",
        "    mark: D",
        f"    source: {_quoted(one.source)}",
        f"    read: {today}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str | None) -> str:
    # JSON's strings are YAML's too, once nothing but ASCII is in them.
    return json.dumps(text)


def packages_to_ask(known: Advisories, carried: Iterable[Carried], ecosystem: Ecosystem) -> dict[str, set[str]]:
    """Name -> versions of all packages of some images; a package that is another's code is asked about as that one."""
    out: dict[str, set[str]] = {}
    for one in carried:
        for name, version in one.of(ecosystem).items():
            out.setdefault(known.same_code.get(name, name), set()).add(version.partition("+")[0])
    return out
