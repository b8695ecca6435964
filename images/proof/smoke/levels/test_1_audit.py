"""Level 1, audit: the libraries that the server loads hold code for every card of the image; nothing is run."""

from __future__ import annotations

from typing import Any

import pytest

from images.docker import connect
from images.proof.audit import audit_image, gate
from images.proof.audit import loaded_libraries as served
from images.proof.smoke import Expectation
from images.proof.smoke.levels.conftest import ROOT


def test_covers(expectation: Expectation, pytestconfig: pytest.Config, facts: dict[str, Any]) -> None:
    """Every library with device code, streamed out of the image, against the driver's rule."""
    if not expectation.archs:
        pytest.skip("no device code is in use on a CPU")
    audit = audit_image(connect(start=False), pytestconfig.getoption("--image"))
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
