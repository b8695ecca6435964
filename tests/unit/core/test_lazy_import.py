"""A module that is put off is read when something of it is used, and not before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.core.lazy_import import import_when_used


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "import_when_used_in_a_test"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("import sys\nsys.read_in_a_test += 1\nVALUE = 7\n")
    (tmp_path / name / "part.py").write_text("OTHER = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "read_in_a_test", 0, raising=False)
    yield name
    for one in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[one]


def times_read() -> int:
    return int(getattr(sys, "read_in_a_test"))  # noqa: B009  (mypy knows no such attribute)


def test_it_is_read_once_and_when_it_is_used(package: str) -> None:
    import_when_used(package)
    held = __import__(package)
    assert times_read() == 0
    assert (held.VALUE, held.VALUE, __import__(package).VALUE) == (7, 7, 7)
    assert times_read() == 1
    with pytest.raises(AttributeError):
        held.NOTHING  # noqa: B018


def test_a_part_of_it_can_be_imported(package: str) -> None:
    import_when_used(package)
    assert __import__(f"{package}.part").part.OTHER == 8
    assert times_read() == 1


def test_what_is_there_already_stays(package: str) -> None:
    first = __import__(package)
    import_when_used(package)
    assert __import__(package) is first


def test_what_is_not_installed_is_missed_when_it_is_used() -> None:
    import_when_used("no_such_module_in_a_test")
    held = __import__("no_such_module_in_a_test")
    with pytest.raises(ModuleNotFoundError):
        held.anything  # noqa: B018
