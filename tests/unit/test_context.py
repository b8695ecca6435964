"""The context of a command: what is known is not read, and stays known in every copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from images.core.errors import UsageError
from tests.helpers.contexts import context
from tests.helpers.matrices import matrix


def test_what_is_known_is_not_read_and_goes_into_every_copy(tmp_path: Path) -> None:
    empty = context(root=tmp_path)
    with pytest.raises(UsageError):
        _ = empty.matrix
    known = empty.having(matrix=matrix()).having(lock_states={"cpu-vllm": "locked"})
    assert known.matrix is matrix()
    assert replace(known, environment={}).locked == {"cpu-vllm": True}
    assert known.having(lock_states={}).locked == {}
