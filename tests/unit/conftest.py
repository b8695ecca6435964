"""For unit tests: an environment that says nothing by chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no defect, and a failure seen once must be seen again.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")

SAYS_SOMETHING = ("CI", "DOCKER_CONTEXT", "DOCKER_HOST", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE")


@pytest.fixture(scope="session")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of these tests: locks and work folders of runs beside them are no matter of theirs."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, state_folder: Path) -> None:
    """The same result on a laptop, in CI and beside a running engine."""
    monkeypatch.setenv("CARDSTOCK_HOME", str(state_folder))
    for name in SAYS_SOMETHING:
        monkeypatch.delenv(name, raising=False)
