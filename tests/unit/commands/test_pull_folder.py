"""Where a pull keeps what came: below the state folder, or nowhere where that cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from images.commands.engine import drop_leftovers
from images.commands.pull import pulled_folder
from images.docker.engine import Engine
from images.docker.facts import ImageFacts
from tests.helpers.contexts import context, silent


class FakeEngine:
    """Keeps what came of a pull that failed, or not."""

    def __init__(self, keeps: bool = False) -> None:
        self.keeps, self.cleaned = keeps, 0

    def keeps_what_came(self) -> bool:
        return self.keeps

    endpoint = "unix:///x"

    def cleanup(self) -> int:
        self.cleaned += 1
        return 2

    def images(self, label: str) -> tuple[ImageFacts, ...]:
        return (ImageFacts("sha256:0", (), (), {}, {}, "", (), (), 1, "", "amd64", ()),)

    def untag(self, reference: str, *, force: bool) -> bool:
        return True


def asked(engine: FakeEngine) -> tuple[Path | None, str]:
    report, err = silent()
    return pulled_folder(context(report, engine=cast(Engine, engine))), err.getvalue()


def test_it_lies_below_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "state"))
    assert asked(FakeEngine()) == (tmp_path / "state/pulled", "")
    assert asked(FakeEngine(keeps=True)) == (None, "")


def test_without_a_state_folder_a_pull_works_and_says_what_that_means(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "file/state"))
    folder, said = asked(FakeEngine())
    assert folder is None
    assert "cannot be written: a pull that breaks off begins anew (CARDSTOCK_HOME moves it)" in said


def test_prune_drops_what_pulls_loads_and_runs_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path))
    for name in ("pulled/sha256-0/layer", "work/push-1-x/layer"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x" * 5000)
    report, err = silent()
    engine: Any = FakeEngine()
    drop_leftovers(context(report, engine=engine))
    assert "dropped: 5.00 kB of pulls and 5.00 kB of runs that did not end" in err.getvalue()
    assert "2 containers and volumes" in err.getvalue()
    assert "dropped: layers of loads that did not end (1)" in err.getvalue()
    assert not list((tmp_path / "pulled").iterdir())
    assert not (tmp_path / "work/push-1-x").exists()
