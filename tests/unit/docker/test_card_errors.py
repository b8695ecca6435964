"""What engines say when they cannot give a card."""

from __future__ import annotations

import pytest

from images.docker.card_errors import no_card_given

CLI = "OCI runtime create failed: runc create failed: nvidia-container-cli: "


@pytest.mark.parametrize(
    ("said", "do"),
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "container toolkit"),
        ("unknown or invalid runtime name: nvidia", "container toolkit"),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-9", "nvidia-ctk cdi generate"),
        (f"{CLI}mount error: failed to add device rules: bpf_prog_query(BPF_CGROUP_DEVICE) failed: x", "no-cgroups"),
        (f"{CLI}initialization error: nvml error: driver/library version mismatch", "restart"),
        (f"{CLI}initialization error: nvml error: driver not loaded", "modprobe"),
        (f"{CLI}initialization error: load library failed: libnvidia-ml.so.1: cannot open", "nvidia-smi"),
        (f"{CLI}device error: GPU-5fb2: unknown device", "nvidia-smi -L"),
        (f"{CLI}detection error: nvml error: GPU is lost", "--gpus device="),
        (f"{CLI}requirement error: unsatisfied condition: cuda>=12.8, please update your driver", "too old"),
        (
            "failed to fulfil mount request: open /usr/lib/libnvidia-ml.so.550.1: no such file or directory",
            "older than",
        ),
    ],
)
def test_each_says_what_to_do(said: str, do: str) -> None:
    assert do in no_card_given(said) and "./inv doctor" in no_card_given(said)


@pytest.mark.parametrize("said", ["port is already allocated", "no such file or directory: /data/model", ""])
def test_what_is_not_about_cards_is_left_alone(said: str) -> None:
    assert no_card_given(said) == ""
