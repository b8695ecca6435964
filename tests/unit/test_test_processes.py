"""`invoke test` in several processes: how many, and which tests stay together and come first."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import tests.conftest as conftest
from images import commands, process

ENGINE = Path(conftest.__file__).parent / "engine"
UNIT = ENGINE.parent / "unit"


@pytest.mark.parametrize(("cores", "told"), [(1, None), (None, None), (2, "2"), (64, "4")])
def test_as_many_as_there_are_processors_and_four_at_most(
    cores: int | None, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "cpu_count", lambda: cores)

    def stream(argv: list[str], *_: object, **__: object) -> int:
        ran.append(argv)
        return 0

    monkeypatch.setattr(process, "stream", stream)
    commands.test(engine=False, unit=True)
    (argv,) = ran
    assert (argv[argv.index("-n") + 1] if "-n" in argv else None) == told
    assert argv[3] == "tests/unit"


class Item:
    """A collected test: its file, its fixtures, the group that it is put into."""

    def __init__(self, path: Path, *fixtures: str) -> None:
        self.path, self.fixturenames = path, fixtures
        self.marks: dict[str, Any] = {}

    def add_marker(self, mark: Any) -> None:
        self.marks[mark if isinstance(mark, str) else mark.name] = mark if isinstance(mark, str) else mark.args[0]

    def get_closest_marker(self, name: str) -> Any:
        return self.marks.get(name)


def collected(*items: Item, worker: bool = True) -> list[Item]:
    config = SimpleNamespace(pluginmanager=SimpleNamespace(hasplugin=lambda _: True))
    if worker:
        config.workerinput = {}
    found = list(items)
    conftest.pytest_collection_modifyitems(cast("pytest.Config", config), cast("list[pytest.Item]", found))
    return found


def test_a_file_of_engine_tests_stays_whole_and_comes_after_those_without_an_engine() -> None:
    unit, build = Item(UNIT / "test_x.py"), Item(ENGINE / "test_build.py")
    longest = Item(ENGINE / conftest.LONGEST[0])
    assert collected(build, unit, longest) == [unit, longest, build]
    assert (build.marks["xdist_group"], "xdist_group" in unit.marks) == ("test_build.py", False)
    assert collected(build, unit, longest, worker=False) == [build, unit, longest]


def test_files_that_share_a_server_run_in_one_process() -> None:
    alone, asks = Item(ENGINE / "test_a.py"), Item(ENGINE / "test_a.py", "cpu_server")
    other = Item(ENGINE / "test_b.py", "cpu_server")
    collected(alone, asks, other)
    assert {item.marks["xdist_group"] for item in (alone, asks, other)} == {"cpu_server"}


def test_the_longest_file_is_there() -> None:
    assert all((ENGINE / name).is_file() for name in conftest.LONGEST)
