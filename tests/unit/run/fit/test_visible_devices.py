"""CUDA_VISIBLE_DEVICES with UUIDs: which image's vLLM reads them."""

from __future__ import annotations

import pytest

from images.core.errors import UsageError
from images.run.fit.visible_devices import READS_UUIDS, check_visible, shell_note, unread_uuids
from tests.helpers.matrices import variants
from tests.helpers.nonempty import nonempty
from tests.unit.rootfs.test_preflight import card_state, nvml

UUID = "GPU-5fb2e1b4-7f1e-4a3c-8a0e-2f4c1c6a0a01"
MIG = "MIG-377e0049-554c-540b-93c6-d0976f8426cb"


def test_preflight_and_fit_say_the_same_of_every_image() -> None:
    assert card_state.READS_UUIDS == READS_UUIDS
    card = (nvml.Seen(0, "a card", UUID, (7, 5)),)
    for variant in nonempty(variants().valid.values()):
        for value in ("0", "0,1", "-1", "", UUID, MIG, "GPU-5fb2e1b4", f"0,{UUID}", "MIG-GPU-5fb2e1b4/1/0"):
            environment = {"CUDA_VISIBLE_DEVICES": value}
            inside = card_state.unread_words(variant.id, card, environment) if variant.archs else None
            assert (inside is not None) == bool(unread_uuids(variant, value)), (variant.id, value)


@pytest.mark.parametrize(
    ("version", "value", "ends"),
    [
        ("0.7.3", UUID, True),
        ("0.8.5.post1", MIG, True),
        ("0.11.0", UUID, True),
        ("0.19.1", UUID, True),
        ("0.33.0", UUID, False),
        ("0.33.0", MIG, False),
        ("0.33.0", "GPU-5fb2e1b4", True),
        ("0.19.1", "0,1", False),
        ("transformers", UUID, False),
    ],
)
def test_which_server_ends_on_what(version: str, value: str, ends: bool) -> None:
    name = version if version == "transformers" else f"vllm{version}"
    variant = next(one for one in variants().valid.values() if name in one.id and one.archs)
    if not ends:
        check_visible(variant, {"CUDA_VISIBLE_DEVICES": value})
        return
    with pytest.raises(UsageError, match="does not start with CUDA_VISIBLE_DEVICES") as caught:
        check_visible(variant, {"CUDA_VISIBLE_DEVICES": value})
    assert f"--gpus device={value}" in caught.value.do


def test_the_shells_own_variable_is_told_not_to_reach_the_container() -> None:
    variant = next(one for one in variants().valid.values() if "vllm0.19.1" in one.id)
    assert shell_note(variant, {}) == ""
    assert "--gpus device=0,2" in shell_note(variant, {"CUDA_VISIBLE_DEVICES": "0,2"})
    assert "would end its vLLM" in shell_note(variant, {"CUDA_VISIBLE_DEVICES": UUID})
