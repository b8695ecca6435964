"""For every test: folders give markers, and a test without one cannot reach an engine or the network."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guard import Guard

FREE = ("engine", "gpu", "network")
HERE = Path(__file__).parent
guard = Guard()
guard.install()


# What several files share and what is dear to make: those files run in one process, one after the other.
SHARED = ("cpu_server",)
# Among several processes the longest of the files that stay whole begins first.
LONGEST = ("test_workflow_steps.py",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All of tests/engine is marked engine, all of tests/gpu gpu; a file of these stays whole among processes."""
    shared = {item.path: name for item in items for name in SHARED if name in getattr(item, "fixturenames", ())}
    for item in items:
        folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if folder in ("engine", "gpu"):
            item.add_marker(folder)
            if config.pluginmanager.hasplugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(shared.get(item.path, item.path.name)))
    if hasattr(config, "workerinput"):
        # Those with an engine last: what they share is taken down in a process's last test, and must be free to.
        items.sort(key=lambda item: (bool(item.get_closest_marker("xdist_group")), item.path.name not in LONGEST))


def say(config: pytest.Config, line: str) -> None:
    """Print a line that people are to see, also from one of several processes."""
    if hasattr(config, "workeroutput"):
        config.workeroutput.setdefault("said", []).append(line)
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{line}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process was told to `say` is said when it ends."""
    for line in getattr(node, "workeroutput", {}).get("said", []):
        say(node.config, line)


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
