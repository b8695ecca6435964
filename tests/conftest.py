"""For every test: folders give markers, and a test without one cannot reach an engine or the network."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.guard import Guard

FREE = ("engine", "gpu", "network")
HERE = Path(__file__).parent
guard = Guard()
guard.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of tests/engine is marked engine, all of tests/gpu gpu."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if folder in ("engine", "gpu"):
            item.add_marker(folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the whole life of a test, its fixtures included."""
    guard.refusals.clear()
    with guard.watching(not any(item.get_closest_marker(name) for name in FREE)):
        return (yield)


@pytest.fixture(autouse=True)
def no_refusal_in_a_thread() -> Iterator[None]:
    """A refusal raised in a thread, where pytest cannot see it, fails the test here."""
    yield
    if guard.refusals:
        pytest.fail("\n".join(guard.refusals), pytrace=False)
