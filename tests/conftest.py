"""For every test: folders give markers, and a test without one cannot reach an engine or the network."""

from __future__ import annotations

import re
import signal
import threading
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
# Among several processes the longest of the files with an engine begins first.
LONGEST = ("test_workflow_steps.py",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All of tests/engine is marked engine, all of tests/gpu gpu."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
        if folder in ("engine", "gpu"):
            item.add_marker(folder)
    if hasattr(config, "workerinput"):
        # Those with an engine last: what they share is taken down in a process's last test, and must be free to.
        items.sort(key=lambda item: (bool(item.get_closest_marker("engine")), item.path.name not in LONGEST))


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Take Ctrl-C as at a terminal, and so do programs that tests start; in the background of a shell it is ignored."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart() -> None:
    """Let coverage trace the main thread alone.

    A thread that it traces says so to the guard, and Python 3.11 fails a thread that starts while the guard listens:
    "Cannot install a trace function while another trace function is being installed".
    """
    threading.settrace(None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays in one process, and so do files that share something.

    Not by xdist's own groups: it writes them into the names of tests, where pytest 9.2 no longer reads them (xdist
    3.8.0), and files fell apart without a word.
    """
    from xdist.scheduler import LoadFileScheduling

    class Whole(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            text = (config.rootpath / file).read_text(encoding="utf-8")
            return next((name for name in SHARED if re.search(rf"\b{name}\b", text)), file)

    return Whole(config, log)


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
