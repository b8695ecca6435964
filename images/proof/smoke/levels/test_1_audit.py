"""Level 1, audit: code for every card, and everything that a library or program needs; nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from images.device_code.audit import Audit
from images.docker import connect
from images.proof.audit import ImageTables, Unmet, audit_image, gate, judge_closure, judge_stand_ins
from images.proof.audit import loaded_libraries as served
from images.proof.smoke import Expectation
from images.proof.smoke.levels.conftest import ROOT

_TOLD = 20  # complaints; the first cause is among them


@dataclass(frozen=True)
class Read:
    """What one pass over the image's files has found."""

    audit: Audit
    tables: ImageTables


@pytest.fixture(scope="module")
def read(pytestconfig: pytest.Config) -> Read:
    """The image, streamed once."""
    tables = ImageTables()
    return Read(audit_image(connect(start=False), pytestconfig.getoption("--image"), tables), tables)


def test_covers(read: Read, expectation: Expectation, facts: dict[str, Any]) -> None:
    """Every library with device code, streamed out of the image, against the driver's rule; without cards, none."""
    audit = read.audit
    if not expectation.archs:
        _fail("no card is used, and there is device code", gate.device_code_left(audit))
        return
    loaded = served.read_list(ROOT, expectation.loaded_libraries)
    result = gate.judge_audit(audit, expectation.archs, loaded, expectation.gaps, expectation.optional)
    facts["libraries with device code"] = len(audit.libraries)
    facts["audited archs"] = list(result.archs)
    facts["served list"] = expectation.loaded_libraries if loaded is not None else "not recorded: every library counts"
    facts["known gaps"] = list(result.known)
    facts["not loaded by the server"] = list(result.not_loaded)
    if not audit.libraries:
        pytest.fail("no library holds device code: this is no image for a card", pytrace=False)
    if result.failures:
        pytest.fail("no code for a card of this image: " + "; ".join(result.failures), pytrace=False)


def test_closed(read: Read, expectation: Expectation, facts: dict[str, Any]) -> None:
    """Every library that a file needs is there, and every symbol is defined by one of them."""
    found = judge_closure(read.tables, [Unmet(*row) for row in expectation.unmet])
    facts["files linked"], facts["symbols"] = found.files, found.symbols
    facts["known to be unmet"] = list(found.known)
    if not found.files:
        pytest.fail("no library and no program is in the image", pytrace=False)
    _fail("something that the image's files need is missing", found.complaints)


def test_stand_ins(read: Read, expectation: Expectation, facts: dict[str, Any]) -> None:
    """Each stand-in is listed, meant by the matrix, and in nobody's way."""
    facts["stand-ins"] = sorted(read.tables.stand_ins)
    complaints = judge_stand_ins(read.tables, expectation.stand_ins, expectation.gone)
    _fail("the image's stand-ins are not what they should be", complaints)


def _fail(what: str, complaints: tuple[str, ...]) -> None:
    if complaints:
        more = f"; and {len(complaints) - _TOLD} more" if len(complaints) > _TOLD else ""
        pytest.fail(f"{what}: {'; '.join(complaints[:_TOLD])}{more}", pytrace=False)
