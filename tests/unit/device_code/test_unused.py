"""Files that nobody runs go, with their rows in RECORD, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from images.device_code.unused import OF_NVIDIA, UNUSED, WITHOUT_A_CARD, drop, main
from tests.helpers.nonempty import nonempty

TORCH = ["torch/lib/libtorch_cuda.so", "torch/include/a/b.h", "torch/lib/libx.a", "torch/__init__.py"]
# What torch loads as it starts, or a card later.
NEEDED = [
    "nvidia/cu13/lib/libcublas.so.13",
    "nvidia/cu13/lib/libcusolver.so.12",
    "nvidia/cu13/lib/libcupti.so.13",
    "nvidia/cu13/lib/libcudart_static.a",
    "nvidia/cudnn/lib/libcudnn.so.9",
    "nvidia/cudnn/lib/libcudnn_graph.so.9",
    "nvidia/cusolver/lib/libcusolver.so.11",
    "nvidia/nccl/lib/libnccl.so.2",
    "nvidia/nvshmem/lib/libnvshmem_host.so.3",
]
WITH_A_CARD = [
    "nvidia/cu13/lib/libnvrtc-builtins.so.13.0",
    "nvidia/cudnn/lib/libcudnn_cnn.so.9",
    "nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9",
    "nvidia/cudnn/lib/libcudnn_engines_runtime_compiled.so.9",
    "nvidia/cudnn/lib/libcudnn_heuristic.so.9",
    "nvidia/cudnn/lib/libcudnn_ops.so.9",
]
NEVER = [
    "nvidia/cu13/lib/libcusolverMg.so.12",
    "nvidia/cuda_cupti/lib/libnvperf_host.so",
    "nvidia/cudnn/lib/libcudnn_adv.so.9",
    "nvidia/cufft/lib/libcufftw.so.11",
    "nvidia/cusolver/lib/libcusolverMg.so.11",
]


def lay_out(site: Path, files: Sequence[str], wheel: str) -> None:
    """Files of eight bytes and the RECORD of the wheel that brought them."""
    for name in files:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(bytes(8))
    record = site / f"{wheel}.dist-info/RECORD"
    record.parent.mkdir()
    record.write_text("\n".join([*(f"{name},sha256=x,8" for name in files), f"{record.parent.name}/RECORD,,", ""]))


def left(site: Path) -> list[str]:
    return sorted(str(path.relative_to(site)) for path in site.rglob("*") if path.is_file() and path.name != "RECORD")


def test_what_goes_is_gone_from_record_too_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    lay_out(tmp_path, TORCH, "torch-2.6.0")
    assert drop(tmp_path, list(UNUSED)) == 16
    assert not (tmp_path / "torch/include").exists()
    record = (tmp_path / "torch-2.6.0.dist-info/RECORD").read_text()
    assert "torch/include" not in record
    assert "libx.a" not in record
    assert "torch/lib/libtorch_cuda.so,sha256=x,8\n" in record


@pytest.mark.parametrize(("what", "stays"), [("nvidia", sorted([*NEEDED, *WITH_A_CARD])), ("no-card", sorted(NEEDED))])
def test_of_nvidias_what_is_loaded_stays_whole(
    tmp_path: Path, what: str, stays: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path, [*NEEDED, *WITH_A_CARD, *NEVER], "nvidia_all-1.0")
    assert main([what, str(tmp_path)]) == 0
    assert left(tmp_path) == stays
    rows = (tmp_path / "nvidia_all-1.0.dist-info/RECORD").read_text().splitlines()
    assert sorted(row.partition(",")[0] for row in rows[:-1]) == stays
    assert "MB that nobody runs" in capsys.readouterr().out


def test_nvidias_compiler_goes_and_tritons_assembler_stays(tmp_path: Path) -> None:
    ours = ["triton/backends/nvidia/bin/ptxas", "triton/backends/nvidia/lib/libdevice.10.bc"]
    lay_out(tmp_path, [*ours, "nvidia/cu13/bin/nvcc", "nvidia/cu13/nvvm/bin/cicc"], "nvidia_cuda_nvcc-13.2.86")
    drop(tmp_path, list(UNUSED))
    assert left(tmp_path) == sorted(ours)


def test_more_globs_can_be_named(tmp_path: Path) -> None:
    lay_out(tmp_path, TORCH, "torch-2.6.0")
    assert main(["drop", str(tmp_path), "torch/__init__.*"]) == 0
    assert left(tmp_path) == ["torch/lib/libtorch_cuda.so"]


def test_words_it_does_not_know_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shred", "/"]) == 2
    assert "drop SITE" in capsys.readouterr().err


def test_every_pattern_has_its_reason() -> None:
    for patterns in (UNUSED, OF_NVIDIA, WITHOUT_A_CARD):
        assert all(len(reason) > 8 for reason in nonempty(patterns.values()))
