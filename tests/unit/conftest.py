"""For unit tests: an environment that says nothing by chance."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no defect, and a failure seen once must be seen again.
settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")

SAYS_SOMETHING = ("CI", "DOCKER_CONTEXT", "DOCKER_HOST", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE")

# They run programs of images and of builders, which have Python 3.11 or newer; ./inv alone takes 3.10.
IN_IMAGES = (
    "kernels/test_compiling.py",
    "kernels/test_inside.py",
    "kernels/test_jit_cache.py",
    "rootfs/test_budget.py",
    "rootfs/test_guard_access.py",
    "rootfs/test_guard_content.py",
    "rootfs/test_guard_middleware.py",
    "rootfs/test_server.py",
    "rootfs/test_server_front.py",
    "rootfs/test_server_metrics.py",
    "rootfs/test_server_requests.py",
)
collect_ignore = [] if sys.version_info >= (3, 11) else list(IN_IMAGES)


def pytest_report_header() -> list[str]:
    """What is not run on this Python is told."""
    left = ", ".join(collect_ignore)
    return [f"not run on Python 3.10, as images have a newer one: {left}"] if left else []


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
