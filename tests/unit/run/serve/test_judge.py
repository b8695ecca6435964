"""A flag that fit knows better of is a warning with the number; one that is well is none."""

from __future__ import annotations

import pytest

from images.core.errors import UsageError
from images.run.fit.choose import fit
from images.run.serve.judge import check_count, judge_flags
from images.run.serve.make import read_flags
from tests.helpers.fits import ask


def _told(flag: str, model: str = "7b-awq", card: str = "RTX 3090", count: int = 1) -> str:
    return " | ".join(judge_flags(fit(ask(model, card, count)), read_flags([flag])))


@pytest.mark.parametrize(
    ("flag", "model", "card", "told"),
    [
        ("--max-model-len 131072", "7b-awq", "2080 Ti", "the cache holds {tokens} tokens"),
        ("--max_model_len=131072", "7b-awq", "2080 Ti", "the cache holds {tokens} tokens"),
        ("--max-model-len 128k", "7b-awq", "2080 Ti", "--max-model-len 128000: the cache holds"),
        ("--max-model-len 200000", "3b-awq", "H100", "the model knows 128000 positions"),
        ("--max-model-len 16000", "7b-awq", "2080 Ti", "V0 computes a prompt at once"),
        ("--quantization awq", "7b-awq", "RTX 3090", "awq with bfloat16: the plain awq kernel computes in float16"),
        ("--quantization gptq", "7b-awq", "RTX 3090", "the weights of 7b-awq are in awq"),
        ("--quantization awq", "7b", "RTX 3090", "have 16 bits each"),
        ("--quantization awq_marlin", "7b-awq", "2080 Ti", "Marlin does not run on 7.5"),
        ("--dtype bfloat16", "7b-awq", "2080 Ti", "the oldest card has 7.5"),
        ("--dtype bfloat16", "7b-awq", "T4", "computes in float16 only"),
        ("--max-num-batched-tokens 400000", "7b-awq", "RTX 3090", "a card lacks"),
        ("--limit-mm-per-prompt image=500", "7b-awq", "2080 Ti", "500 pictures in one request: by fit's sum"),
        ("--limit-mm-per-prompt '{\"image\": 500}'", "7b-awq", "2080 Ti", "500 pictures"),
        ("--gpu-memory-utilization 0.99", "7b-awq", "2080 Ti", "is the most"),
        ("--tensor-parallel-size 4", "7b-awq", "RTX 3090", "4 x 1 is 4 cards, and the container has 1"),
        ("--pipeline-parallel-size=2", "7b-awq", "RTX 3090", "is 2 cards, and the container has 1"),
    ],
)
def test_a_flag_that_will_fail(flag: str, model: str, card: str, told: str) -> None:
    tokens = fit(ask(model, card)).sum.tokens
    assert told.replace("{tokens}", str(tokens)) in _told(flag, model, card)


@pytest.mark.parametrize(
    "flag",
    [
        "--max-model-len 4096",
        "--max-model-len 4k",
        "--max-model-len auto",
        "--quantization awq_marlin",
        "--quantization awq --dtype half",
        "--dtype half",
        "--max-num-seqs 1",
        "--gpu-memory-utilization 0.5",
        "--gpu-memory-utilization x",
        "--limit-mm-per-prompt image=1",
        "--limit-mm-per-prompt [1]",
        "--enable-prefix-caching",
        "--tensor-parallel-size 1",
    ],
)
def test_a_flag_that_is_well(flag: str) -> None:
    assert _told(flag) == ""


def test_a_cache_of_half_the_width_holds_twice_the_tokens() -> None:
    tokens = fit(ask("7b-awq", "RTX 3090")).sum.tokens
    assert f"the cache holds {tokens} tokens" in _told(f"--max-model-len {tokens + 16}")
    assert "the cache holds" not in _told(f"--max-model-len {tokens + 16} --kv-cache-dtype fp8")


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_a_variable_shows_as_many_cards_as_are_split(name: str) -> None:
    for value in ("0,1", "1,0", "all", ""):
        check_count(2, {name: value}, "--env")
    for value in ("0", "0,1,2"):
        with pytest.raises(UsageError, match="of the 2 cards that are summed up") as refused:
            check_count(2, {name: value}, "--env")
        assert f"--gpus device={value}" in refused.value.do
