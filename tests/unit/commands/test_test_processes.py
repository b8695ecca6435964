"""`invoke test` in several processes: how many, and which tests stay together and come first."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import tests.conftest as conftest
from images.commands import test as command
from images.core import process
from images.core.errors import UsageError
from tests.helpers.contexts import context
from tests.helpers.nonempty import nonempty

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
    command.run_tests(context(), command.TestOptions(unit=True))
    (argv,) = ran
    assert (argv[argv.index("-n") + 1] if "-n" in argv else None) == told
    assert argv[3] == "tests/unit"


def test_without_an_engine_it_wants_the_card_and_a_repository() -> None:
    here = context(environment={})
    with pytest.raises(UsageError, match="belongs to --gpu"):
        command.prove_without_engine(here, command.TestOptions(without_engine=True))
    with pytest.raises(UsageError, match="no repository is named"):
        command.prove_without_engine(here, command.TestOptions(gpu=True, without_engine=True))


@pytest.mark.parametrize(("kind", "measured"), [("unit", True), ("engine", False), ("", False)])
def test_coverage_is_measured_over_the_unit_tests_and_the_slowest_are_always_told(
    kind: str, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def stream(argv: list[str], *_: object, **__: object) -> int:
        ran.append(argv)
        return 0

    monkeypatch.setattr(process, "stream", stream)
    command.run_tests(context(), command.TestOptions(engine=kind == "engine", unit=kind == "unit"))
    (argv,) = ran
    assert ("--cov" in argv, "--durations=10" in argv) == (measured, True)


def test_the_crash_campaign_runs_alone_and_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def stream(argv: list[str], *_: object, **__: object) -> int:
        ran.append(argv)
        return 0

    monkeypatch.setattr(process, "stream", stream)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    command.run_tests(context(), command.TestOptions(crash=True))
    assert ran[0][3:] == ["tests/crash", "--durations=10", "--verbose"]
    assert "tests/crash" not in command.folders_of(command.TestOptions())


def test_threads_are_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "_trace_hook", lambda *_: None)
    conftest.pytest_sessionstart()
    assert threading.gettrace() is None


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


def test_those_with_an_engine_come_last_and_the_longest_first_of_them() -> None:
    unit, build = Item(UNIT / "test_x.py"), Item(ENGINE / "test_build.py")
    longest = Item(ENGINE / conftest.LONGEST[0])
    assert collected(build, unit, longest) == [unit, longest, build]
    assert ("engine" in build.marks, "engine" in unit.marks) == (True, False)
    assert collected(build, unit, longest, worker=False) == [build, unit, longest]


def test_a_file_stays_in_one_process_and_files_that_share_a_server_too(tmp_path: Path) -> None:
    test = "import os, pathlib, pytest\n\n"
    test += "@pytest.mark.parametrize('n', range(4))\ndef test_it(n):\n"
    test += "    with pathlib.Path(__file__).with_suffix('.pid').open('a') as out:\n"
    test += "        out.write(f'{os.getpid()} ')\n"
    for name in ("alone", "other", "asks", "asks_too"):
        uses = "# cpu_server\n" if "asks" in name else ""
        (tmp_path / f"test_{name}.py").write_text(uses + test)
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "2"]
    argv += ["--dist", "loadfile", "--no-loadscope-reorder", f"--rootdir={tmp_path}", str(tmp_path)]
    process.run(argv, cwd=Path(conftest.__file__).parent.parent, timeout=120)
    pids = {path.stem.removeprefix("test_"): set(path.read_text().split()) for path in tmp_path.glob("*.pid")}
    assert [len(found) for found in pids.values()] == [1, 1, 1, 1]
    assert pids["asks"] == pids["asks_too"]
    assert len(set.union(*pids.values())) == 2


def test_the_longest_file_is_there() -> None:
    assert all((ENGINE / name).is_file() for name in nonempty(conftest.LONGEST))
