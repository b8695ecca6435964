"""YAML that is read by other programs than ours."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from images.core.yaml_text import to_yaml


@pytest.mark.parametrize("text", ["1e3", "-1E+3", "+1.5e-2", ".5", "0o17", "y", "N", "no", "on", "0x1F", "1:30", "~"])
def test_what_go_would_take_for_a_number_or_a_truth_is_quoted(text: str) -> None:
    assert to_yaml({"a": text}) == f"a: '{text}'\n"


@pytest.mark.parametrize("text", ["yes-man", "1e3x", "e3", "0o8", "ny", "word"])
def test_other_texts_stay_bare(text: str) -> None:
    assert to_yaml({"a": text}) == f"a: {text}\n"


@given(
    st.recursive(
        st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)),
        lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.text(max_size=5), below, max_size=3)),
        max_leaves=8,
    )
)
def test_values_come_back(value: object) -> None:
    assert yaml.safe_load(to_yaml(value)) == value
