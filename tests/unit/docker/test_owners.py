"""Whose a container is: a leftover is known by its process, and one of another machine is not judged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.docker.owners import OWNER_LABEL, RUN_LABEL, is_dead, is_left, run_labels, this_process
from tests.helpers.processes import ended_process

DAY = 86400.0


def test_this_process_lives_and_one_that_ended_does_not() -> None:
    mine = this_process()
    assert mine and not is_dead(mine)
    place, _, rest = mine.partition(" ")
    began = rest.partition(" ")[2]
    assert is_dead(f"{place} {ended_process()} {began}")
    assert is_dead(f"{place} {os.getpid()} 1"), "its id is used again"


@pytest.mark.parametrize("owner", ["", "other-boot/pid:[1] 1 1", "x", "a b c d", "\n"])
def test_another_machine_is_not_judged(owner: str) -> None:
    assert not is_dead(owner)


def test_without_proc_nothing_is_judged(tmp_path: Path) -> None:
    assert this_process(tmp_path) == ""
    assert not is_dead(this_process(), tmp_path)


def test_what_is_left() -> None:
    place = this_process().partition(" ")[0]
    dead, alive = {OWNER_LABEL: f"{place} {ended_process()} 5"}, run_labels("x")
    assert alive[RUN_LABEL] == "x"
    created = "1970-01-02T00:00:00.123456789Z"
    for idle in (True, False):
        assert is_left(dead, created, DAY, idle=idle)
        assert not is_left(alive, created, DAY + 10, idle=idle)
        assert not is_left({}, "no time", 10 * DAY, idle=idle)
    assert not is_left(alive, created, 9 * DAY, idle=True), "its process lives"
    assert is_left({}, created, 2 * DAY + 10, idle=True)
    assert not is_left({}, created, 2 * DAY + 10, idle=False)
