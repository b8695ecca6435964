"""What files of an image want and do without: which rows hold for which stack, and what a row must say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images.core.errors import UsageError
from images.proof.smoke.expectation import Expectation, expect
from tests.helpers.matrices import edited, matrix, variants
from tests.helpers.nonempty import nonempty

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
CUFILE = 'id: cufile-rdma, when: {cuda: ">=12.0"}'


def rows(name: str) -> set[str]:
    return {row.id for row in variants().valid[name].unmet}


def test_rows_are_of_their_stacks() -> None:
    cpu = next(one for one in variants().valid if one.startswith("cpu-vllm"))
    assert {"intel-openmp-offload", "cufile-rdma-cpu"} <= rows(cpu)
    assert "nvshmem-plugins" not in rows(cpu)
    assert {"torio-ffmpeg", "cupy-cutensor", "perl-modules"} <= rows(SM75)
    assert "intel-openmp-offload" not in rows(SM75)
    whole = variants().valid[SM75].as_whole()
    assert whole.unmet == variants().valid[SM75].unmet


def test_no_row_excuses_everything_of_a_file_or_a_file_of_torch_itself() -> None:
    for row in nonempty(matrix().unmet):
        assert "*" not in row.wants
        assert not row.library.startswith(("*", "torch/", "vllm/"))


def test_a_row_of_one_card_and_two_of_one_id_are_refused() -> None:
    with pytest.raises(UsageError, match="the layer is shared by all cards"):
        edited((CUFILE, 'id: cufile-rdma, when: {arch: "==7.5"}'))
    with pytest.raises(UsageError, match="two unmet needs of one id"):
        edited((CUFILE, 'id: cupy-cutensor, when: {cuda: ">=12.0"}'))
    with pytest.raises(UsageError, match="wants"):
        edited((f'{CUFILE}, library: "nvidia/*/lib/libcufile_rdma.so.1", wants: [', f"{CUFILE}, library: x, wanted: ["))


def test_the_proof_is_told() -> None:
    promised = expect(variants().valid[SM75])
    file, wants, reason = next(row for row in promised.unmet if row[0].startswith("torio/"))
    assert (file, wants[0]) == ("torio/lib/*_ffmpeg*.so", "libav*.so.*")
    assert "FFmpeg" in reason
    assert Expectation.from_json(promised.to_json()) == promised
    assert Expectation.from_json(replace(promised, unmet=()).to_json()).unmet == ()
