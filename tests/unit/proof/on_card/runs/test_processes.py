"""Processes of this machine."""

from __future__ import annotations

import os

from images.proof.on_card.runs.processes import process_tree


def test_a_process_and_all_below_it() -> None:
    assert process_tree(os.getpid())[0] == os.getpid()
    assert os.getpid() in process_tree(os.getppid())[1:]
    assert process_tree(2**22 + 1) == [2**22 + 1]  # beyond the greatest number that Linux gives
