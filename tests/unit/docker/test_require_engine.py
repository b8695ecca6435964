"""That an engine is there, or could be, is seen before anything takes long; none is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from images.core.errors import EngineUnreachable
from images.core.home import Layout
from images.docker import connection
from images.docker.embedded import daemon, packages
from tests.helpers.contexts import context


def refuse(*_: object) -> Any:
    raise EngineUnreachable("this host carries none")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """No engine where engines are, none of Cardstock's own, and a host that can carry none."""
    monkeypatch.setattr(connection, "_connect_usual", lambda layout: None)
    monkeypatch.setattr(daemon, "engine_version", lambda socket: None)
    monkeypatch.setattr(packages, "can_carry", refuse)
    return Layout(tmp_path)


def test_a_host_that_carries_none_is_told(layout: Layout) -> None:
    with pytest.raises(EngineUnreachable, match="this host carries none"):
        connection.require_engine(layout)


@pytest.mark.parametrize(
    ("place", "name", "answer"),
    [
        (connection, "_connect_usual", lambda layout: SimpleNamespace(close=lambda: None)),
        (daemon, "engine_version", lambda socket: "26.1"),
        (packages, "can_carry", lambda layout: "a mirror"),
    ],
)
def test_one_that_answers_or_could_is_enough(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, answer: Callable[..., Any]
) -> None:
    monkeypatch.setattr(place, name, answer)
    assert connection.require_engine(layout) is None  # type: ignore[func-returns-value]


def test_the_engine_that_is_named_must_answer(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{layout.home}/none.sock")
    with pytest.raises(EngineUnreachable, match="DOCKER_HOST does not answer"):
        connection.require_engine(layout)


def test_a_context_with_an_engine_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "require_engine", refuse)
    assert context().require_engine() is None  # type: ignore[func-returns-value]
