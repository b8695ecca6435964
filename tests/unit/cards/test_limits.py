"""The table of what a kernel may use: every capability of the house, each within what the guide says of its SM."""

from __future__ import annotations

import pytest

from images.cards import LIMITS, limits_of
from images.device_code.capability import KNOWN
from tests.helpers.nonempty import nonempty


def test_every_capability_that_is_known_has_limits() -> None:
    assert tuple(LIMITS) == KNOWN


# cudaDevAttrMaxSharedMemoryPerBlockOptin as cards of these capabilities answer (T4, A100, RTX 3090, RTX 4090, H100).
@pytest.mark.parametrize(
    ("capability", "bytes_a_block"),
    [("7.5", 65536), ("8.0", 166912), ("8.6", 101376), ("8.9", 101376), ("9.0", 232448)],
)
def test_shared_memory_is_what_cards_answer(capability: str, bytes_a_block: int) -> None:
    assert limits_of(capability).shared_a_block == bytes_a_block


def test_a_block_has_no_more_than_its_multiprocessor() -> None:
    for capability, limits in nonempty(LIMITS.items()):
        assert 48 * 1024 <= limits.shared_a_block <= limits.shared_an_sm, capability
        reserved = 1024 if tuple(map(int, capability.split("."))) >= (8, 0) else None
        assert reserved is None or limits.shared_an_sm - limits.shared_a_block == reserved, capability


def test_tensor_cores_came_with_volta() -> None:
    for capability, limits in nonempty(LIMITS.items()):
        assert bool(limits.tensor_cores) == (int(capability.split(".")[0]) >= 7), capability


def test_a_capability_that_is_none_is_an_error() -> None:
    with pytest.raises(KeyError):
        limits_of("7.6")
