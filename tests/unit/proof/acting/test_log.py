"""What a server chose, read from its log. The lines are vLLM's: of records/cards, of its source, and of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.proof.acting.log import MOST_CHARACTERS, UNSAID, Choices, kernels_by_target, read_choices

CONFIG = (
    "(EngineCore pid=77) INFO 11-28 04:11:40 [core.py:140] Initializing a V1 LLM engine (v0.33.0) with config: "
    "model='/proof/tiny', dtype=torch.float16, max_seq_len=2048, quantization=auto_awq, enforce_eager=False, "
    "kv_cache_dtype=auto"
)
V33 = [
    "preflight: card 0, Tesla T4: its NVLink fabric is not up yet, and CUDA may end with 802; going on",
    "preflight: cu130-vllm0.33.0-triton-sm75 fits Tesla T4 (7.5), driver 580.159.04",
    CONFIG,
    "(EngineCore pid=77) INFO 11-28 04:11:50 [cuda.py:448] Using AttentionBackendEnum.TRITON_ATTN backend.",
    "(EngineCore pid=77) INFO 11-28 04:11:51 [auto_awq.py:451] Using MarlinLinearKernel for AutoAWQMarlinLinearMethod",
    "(EngineCore pid=77) INFO 11-28 04:11:52 [model_runner.py:428] Model loading took 0.01 GiB memory and 3.65 seconds",
    "(EngineCore pid=77) INFO 11-28 04:11:59 [gpu_worker.py:772] Available KV cache memory: 11.28 GiB",
    "(EngineCore pid=77) INFO 11-28 04:12:10 [model_runner.py:1163] Graph capturing finished in 2 secs, took 0.04 GiB",
]


def test_vllm_033_on_turing() -> None:
    assert read_choices(V33) == Choices(
        attention="TRITON_ATTN",
        vision=UNSAID,
        quantised="MarlinLinearKernel",
        quantisation="auto_awq",
        dtype="float16",
        eager="False",
        graphs=True,
        cache="11.28 GiB",
        preflight=V33[1],
    )


def test_before_the_model_is_loaded_nothing_is_said_about_vision() -> None:
    assert read_choices(V33[:5]).vision == ""
    assert read_choices([]) == Choices()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN', 'TRITON_ATTN'].", "FLASH_ATTN"),
        ("Using AttentionBackendEnum.TRITON_ATTN backend.", "TRITON_ATTN"),
        ("INFO 11-28 04:11:50 [cuda.py:289] Using XFormers backend.", "XFORMERS"),
        ("INFO 11-28 04:11:50 [cuda.py:292] Using Flash Attention backend.", "FLASH_ATTN"),
        ("(EngineCore) INFO [cuda.py:217] Using Flash Attention backend on V1 engine.", "FLASH_ATTN"),
        ("Using FlexAttention backend on V1 engine.", "FLEX_ATTENTION"),
    ],
)
def test_the_decoders_attention_in_the_words_of_each_version(line: str, name: str) -> None:
    assert read_choices([line]).attention == name


def test_vllm_08_and_what_flash_attention_says() -> None:
    lines = [
        "INFO [awq_marlin.py:113] The model is convertible to awq_marlin during runtime. Using awq_marlin kernel.",
        "INFO 11-28 04:11:50 [llm_engine.py:240] Initializing a V0 LLM engine (v0.8.5.post1) with config: "
        "dtype=torch.float16, quantization=awq_marlin, enforce_eager=True",
        "INFO 11-28 04:11:50 [cuda.py:240] Cannot use FlashAttention-2 backend for Volta and Turing GPUs.",
        "INFO 11-28 04:11:50 [cuda.py:289] Using XFormers backend.",
        "INFO 11-28 04:11:50 [model_runner.py:1140] Model loading took 0.01 GiB and 1 seconds",
        "INFO 11-28 04:11:50 [executor_base.py:112] # GPU blocks: 27000, # CPU blocks: 4096",
    ]
    seen = read_choices(lines)
    assert (seen.attention, seen.quantised, seen.dtype, seen.eager) == ("XFORMERS", "awq_marlin", "float16", "True")
    assert (seen.cache, seen.vision, seen.graphs) == ("27000", "", False)
    assert seen.refusals == ("[cuda.py:240] Cannot use FlashAttention-2 backend for Volta and Turing GPUs.",)
    newer = read_choices(
        [
            "[cuda.py:535] Using backend AttentionBackendEnum.FLASH_ATTN for vit attention",
            "[flash_attn.py:718] Using FlashAttention version 2",
        ]
    )
    assert (newer.vision, newer.flash_attn) == ("FLASH_ATTN", "2")


@pytest.mark.parametrize(
    "line",
    [
        "  Value error, The quantization method auto_awq is not supported for the current GPU. Minimum capability: 75. "
        "Current capability: 70. [type=value_error]",
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU",
        "ValueError: Selected backend AttentionBackendEnum.FLASH_ATTN is not valid for this configuration. Reason: "
        "['compute capability not supported']",
        "preflight: cu130-vllm0.33.0-flash-attn-sm90 has no code for Tesla T4 (7.5)",
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 98304, Hardware limit: 65536",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
    ],
)
def test_refusals_are_kept_once_and_not_too_long(line: str) -> None:
    seen = read_choices([line, f"\x1b[36m{line}\x1b[0m", "an error of another kind", line + " x" * 400])
    assert seen.refusals[0] == line.strip()[:MOST_CHARACTERS]
    assert len(seen.refusals) == 2
    assert max(map(len, seen.refusals)) <= MOST_CHARACTERS


def test_kernels_are_counted_by_the_target_that_their_ptx_names(tmp_path: Path) -> None:
    for name, text in {
        "a/x.ptx": "//\n.version 8.6\n.target sm_75\n",
        "b/y.ptx": ".version 9.0\n.target sm_75, texmode\n",
        "c/d/z.ptx": ".target sm_90a\n",
        "c/e/w.ptx": "nothing",
        "c/e/w.cubin": ".target sm_80\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert kernels_by_target(tmp_path) == {"sm_75": 2, "sm_90a": 1, "unknown": 1}
    assert kernels_by_target(tmp_path / "none") == {}
