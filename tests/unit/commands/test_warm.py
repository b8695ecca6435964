"""Compiled code asked for by flags: where `serve` may have it from, what `pull` fetches, what `publish` makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from images.commands import pull as pulling
from images.commands import serve as serving
from images.commands.publish import PublishOptions, publish_images
from images.commands.pull import PullOptions
from images.commands.warm import WarmOptions
from images.core.errors import UsageError
from images.run.serve import Place, ServeOptions
from tests.helpers.contexts import context, silent
from tests.helpers.nonempty import nonempty


@pytest.fixture(autouse=True)
def no_cosign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.commands.pull.find_cosign", lambda say: "cosign")


def place(environment: dict[str, str] | None = None, **asked: Any) -> Place:
    report, _ = silent()
    return serving.place_of_compiled(context(report, environment=environment or {}), ServeOptions(**asked))


def test_nothing_is_named_unless_one_says_so() -> None:
    assert place() == Place()
    assert place({"CARDSTOCK_REPOSITORY": "registry.example.com/q"}) == Place()


def test_a_repository_that_is_named() -> None:
    found = place(source="registry.example.com/q")
    assert found.repository is not None and found.repository.name == "registry.example.com/q"
    assert (found.keys, found.unsigned) == (None, False)


def test_the_repository_of_the_environment_with_a_word_on_signatures(tmp_path: Path) -> None:
    environment = {"CARDSTOCK_REPOSITORY": "registry.example.com/q"}
    ways: tuple[dict[str, Any], ...] = (
        {"key": str(tmp_path / "k")},
        {"identity": "^https:"},
        {"unsigned_artifact": True},
    )
    for asked in nonempty(ways):
        found = place(environment, **asked)
        assert found.repository is not None and found.repository.name == "registry.example.com/q"
        assert (found.keys is None) == ("unsigned_artifact" in asked)


def test_both_signers_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        place(source="registry.example.com/q", key="a", identity="b")


def test_a_file_that_is_named() -> None:
    assert place(artifact="one.tar") == Place(file="one.tar")


def test_it_is_warmed_as_it_is_served() -> None:
    asked = WarmOptions(model="3b-awq", only="x", gpus="all", flags=("--a b",), env=("A=1",), tp=2, video=1).served()
    assert asked == ServeOptions(
        model="3b-awq", variant="x", gpus="all", flags=("--a b",), env=("A=1",), tp=2, video=1, wait=asked.wait
    )


def test_publishing_compiled_code_of_a_card_needs_the_card() -> None:
    report, _ = silent()
    options = PublishOptions(
        only=("cu124-vllm0.8.5.post1-xformers-sm75",), to="registry.example.com/q", warm=("3b-awq",)
    )
    with pytest.raises(UsageError, match="compiled code is made on a card"):
        publish_images(context(report), options)


@pytest.mark.parametrize(
    ("asked", "brought"),
    [({}, True), ({"no_artifact": True}, False), ({"dry_run": True}, False), ({"cards": ("L4",)}, False)],
)
def test_a_pull_for_this_machine_brings_compiled_code(
    asked: dict[str, Any], brought: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Place] = []
    match = type("M", (), {"matches": (), "refused": ()})
    monkeypatch.setattr(pulling, "card_query", lambda *_: None)
    monkeypatch.setattr("images.distribution.pull.read", lambda *_: None)
    monkeypatch.setattr(pulling, "find_images", lambda *_: match)
    monkeypatch.setattr(pulling, "report_answer", lambda *_: None)
    monkeypatch.setattr(pulling, "pull_verified", lambda *_: None)
    monkeypatch.setattr(pulling, "print_commands", lambda *_: None)
    monkeypatch.setattr(pulling, "bring_compiled", lambda *given: told.append(given[-1]))
    report, _ = silent()
    pulling.pull_images(context(report, environment={}), PullOptions(source="registry.example.com/q", **asked))
    assert bool(told) == brought
    assert all(one.repository is not None and not one.unsigned for one in told)
