"""Stages of a start by the lines of its log, as versions of vLLM write them; answers held against answers."""

from __future__ import annotations

import pytest

from bench.start_stages import (
    CONTAINER,
    PROFILE,
    compare_answers,
    compiled_code,
    plan_told,
    ratio,
    stage_ends,
    stage_seconds,
    timed_lines,
)

# As vLLM 0.33.0 writes them, shortened.
NEWEST = [
    (0.4, "preflight: cu130-vllm0.33.0-flash-attn-sm90 fits NVIDIA H200 (9.0)"),
    (9.0, "(APIServer pid=1) INFO 11-28 07:11:55 [startup.py:96] non-default args: {'host': '127.0.0.1'}"),
    (11.0, "(EngineCore pid=61) INFO 11-28 07:11:57 [core.py:140] Initializing a V1 LLM engine (v0.33.0) with config"),
    (12.5, "INFO 11-28 07:11:58 [gpu_model_runner.py:4979] Starting to load model /models..."),
    (15.0, "INFO 11-28 07:12:01 [model_runner.py:429] Model loading took 3.3 GiB memory and 1.5 seconds"),
    (16.0, "INFO 11-28 07:12:02 [decorators.py:327] Directly load AOT compilation from path /cache/vllm/model"),
    (20.0, "INFO 11-28 07:12:06 [monitor.py:60] torch.compile took 4.1 s in total"),
    (20.5, "INFO 11-28 07:12:06 [startup_plan.py:154] Applying persisted startup plan (fingerprint 0123): kv=1"),
    (21.0, "INFO 11-28 07:12:07 [gpu_worker.py:678] Initial free memory 138 GiB, reserved 64.1 GiB memory for KV Cache "
           "as specified by kv_cache_memory_bytes config and skipped memory profiling."),
    (24.0, "INFO 11-28 07:12:10 [model_runner.py:1164] Graph capturing finished in 3 secs, took 0.20 GiB"),
    (25.0, "INFO 11-28 07:12:11 [core.py:413] init engine (profile, create kv cache, warmup model) took 10.00 s"),
    (26.0, "INFO:     Application startup complete."),
]  # fmt: skip


def test_stages_of_the_newest_vllm() -> None:
    ends = stage_ends(NEWEST)
    assert list(stage_seconds(ends).values()) == [0.4, 8.6, 2.0, 1.5, 2.5, 5.0, 1.0, 3.0, 1.0, 1.0]
    assert list(stage_seconds(ends))[:2] == [CONTAINER, "server's imports"] and ends[PROFILE] == 21.0
    assert sum(stage_seconds(ends).values()) == pytest.approx(26.0)
    assert compiled_code(NEWEST) == "read"
    assert plan_told(NEWEST) == "[startup_plan.py:154] Applying persisted startup plan (fingerprint 0123): kv=1"
    assert "24.00 [model_runner.py:1164] Graph capturing finished in 3 secs, took 0.20 GiB" in timed_lines(NEWEST)


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        ("INFO 05-01 10:00:00 [api_server.py:1043] vLLM API server version 0.8.5.post1", "server's imports"),
        (
            "INFO 05-01 10:00:00 [llm_engine.py:241] Initializing a V0 LLM engine (v0.8.5) with config",
            "engine's process and imports",
        ),
        ("INFO 05-01 10:00:00 [monitor.py:33] torch.compile takes 31.20 s in total", "compilation"),
        ("INFO 05-01 10:00:00 [loader.py:458] Loading weights took 2.00 seconds", None),
        ("INFO 05-01 10:00:00 [worker.py:271] Memory profiling takes 3.21 seconds", PROFILE),
        ("INFO 05-01 10:00:00 [executor_base.py:112] # cuda blocks: 1051, # CPU blocks: 4681", PROFILE),
        ("INFO 05-01 10:00:00 [gpu_worker.py:773] Available KV cache memory: 64.10 GiB", PROFILE),
        ("INFO 05-01 10:00:00 [cpu_worker.py:260] Explicitly set (1.0/23.54) GiB for KV cache on node 0.", PROFILE),
    ],
)
def test_lines_of_older_ones_and_of_the_cpu(line: str, stage: str | None) -> None:
    found = set(stage_ends([(1.0, "first"), (2.0, line)])) - {CONTAINER}
    assert found == ({stage} if stage else set())


def test_what_was_compiled() -> None:
    made = (1.0, "[backends.py:418] Compiling a graph for compile range (1, 8192) takes 12.00 s")
    read = (2.0, "[backends.py:119] Directly load the compiled graph(s) for shape None from the cache, took 3.000 s")
    assert (compiled_code([made]), compiled_code([read, made]), compiled_code([])) == (
        "compiled",
        "read and compiled",
        "",
    )
    assert plan_told([made]) == ""


def _said(tokens: list[str], *logprobs: float) -> dict[str, object]:
    return {"tokens": tokens, "logprobs": list(logprobs)}


def test_answers_are_held_against_the_first() -> None:
    first = {"a": _said(["1", "2"], -0.1, -0.2), "b": _said(["3"], -1.0)}
    assert compare_answers(first, first) == {"same tokens": True, "differ": [], "logprob distance": 0.0}
    near = {**first, "a": _said(["1", "2"], -0.1, -0.25)}
    assert compare_answers(first, near)["logprob distance"] == pytest.approx(0.05)
    # Behind the first other token logprobs are of other texts.
    other = {**first, "a": _said(["1", "9"], -0.1, -7.0)}
    assert compare_answers(first, other) == {"same tokens": False, "differ": ["a"], "logprob distance": 0.0}
    fewer = {"a": first["a"]}
    assert compare_answers(first, fewer)["differ"] == ["b"]
    assert not compare_answers(fewer, first)["same tokens"]


def test_ratios_are_of_medians() -> None:
    assert ratio([1.0, 2.0, 9.0], [4.0]) == 0.5
    assert ratio([], [1.0]) == ratio([1.0], []) == 0.0
