"""On a machine with a card and an engine: the image for this card proves itself (./inv test --gpu does the same)."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.cards import read_machine
from images.docker import connect
from images.matrix import Selectors, parse_arch, select
from images.proof.on_card import proof
from images.render import INPUT
from tests.helpers.matrices import ROOT, matrix, variants


@pytest.mark.timeout(7200)
def test_the_image_for_this_card_proves_itself(tmp_path: Path) -> None:
    machine = read_machine()
    proof.card_of(machine)  # raises where there is no card: this test is for machines that have one
    arch = parse_arch(machine.cards[0].arch.capability)
    variant = select(matrix(), variants(), Selectors(archs=((arch,),), driver=machine.known_driver))[0]
    engine = connect(start=False)
    reference = f"{matrix().image}:{variant.id}"
    facts = engine.inspect(reference)
    assert facts is not None, f"build it first: ./inv build --only '{variant.id}'"
    subject = proof.Subject.of(reference, facts, engine)
    _, record = proof.prove(subject, ROOT, tmp_path, engine.cli_env(), print)
    assert record.ok and record.variant == variant.id
    assert (record.place, record.image_id, record.input_hash) == ("image", facts.id, facts.labels[INPUT])
    assert record.engine and record.given
    assert any(step.verdict == "passed" for step in record.steps)
