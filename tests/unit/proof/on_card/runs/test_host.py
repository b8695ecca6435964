"""A host with cards: what Docker and nvidia-smi are asked there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from images.core import process
from images.proof.on_card.runs.host import labels_of, nvidia_smi, own_checkout
from tests.helpers.matrices import ROOT


@pytest.mark.parametrize(
    ("out", "labels"), [('{"dev.cardstock.variant": "x"}', {"dev.cardstock.variant": "x"}), ("null", {})]
)
def test_an_images_labels(monkeypatch: pytest.MonkeyPatch, out: str, labels: dict[str, str]) -> None:
    monkeypatch.setattr(process, "run", lambda argv, **_: process.Finished(tuple(argv), 0, out, ""))
    assert labels_of("image") == labels


def test_what_nvidia_smi_prints_is_told_and_nothing_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", lambda argv, **_: process.Finished(tuple(argv), 0, "1, 2\n", ""))
    assert nvidia_smi("--query-gpu=name") == "1, 2\n"

    def no_driver(argv: Sequence[str], **_: Any) -> process.Finished:
        raise process.ProcessFailed(["nvidia-smi"], 9, "no driver")

    monkeypatch.setattr(process, "run", no_driver)
    assert nvidia_smi("--query-gpu=name") == ""


def test_the_checkout_is_this_one() -> None:
    assert own_checkout() == ROOT
