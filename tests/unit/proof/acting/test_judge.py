"""Verdicts on acted servers: what the matrix expects passes, and each thing that is not so is named."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from images.proof.acting import judge
from images.proof.acting.acting import BFLOAT16
from images.proof.acting.cards import acted_card
from images.proof.acting.log import Choices
from images.proof.on_card.runs.run import Failed, NotRun

T4 = acted_card("T4")
EXPECTED = {"variant": "cu130-vllm0.33.0-triton-sm75", "attention": "TRITON_ATTN", "dtype": "float16"}
CHOSE = Choices(
    attention="TRITON_ATTN",
    dtype="float16",
    preflight="preflight: cu130-vllm0.33.0-triton-sm75 fits Tesla T4 (7.5), driver 580",
)


def outcome(how: str = "healthy", chose: Choices = CHOSE, **more: Any) -> dict[str, Any]:
    return {
        "how": how,
        "seconds": 61.0,
        "chose": asdict(chose),
        "kernels": {"sm_75": 63},
        "changed": list(judge.NEEDED),
        "tail": ["the last line"],
        "answers": {"said": {"text": "Hello"}},
        "wrong": "",
        "error": "" if how == "healthy" else f"{how}: not healthy after 300 s",
        **more,
    }


def changed(**values: Any) -> Choices:
    return Choices(**{**asdict(CHOSE), **values})


def test_a_server_that_decides_as_the_matrix_says_passes() -> None:
    facts = judge.judge_choices(outcome(), T4, EXPECTED)
    assert facts["as"] == EXPECTED["variant"]
    assert (facts["kernels"], facts["chose"]["dtype"]) == ({"sm_75": 63}, "float16")
    assert judge.judge_choices(outcome("late"), T4, EXPECTED)["how"] == "late"  # decided, and not yet healthy


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (outcome(chose=changed(attention="FLASH_ATTN")), "its attention is FLASH_ATTN, and TRITON_ATTN was expected"),
        (outcome(chose=changed(attention="")), "its attention is not told"),
        (outcome(chose=changed(dtype="bfloat16")), "its numbers are bfloat16, and float16 was expected"),
        (outcome(kernels={"sm_75": 60, "sm_90a": 3}), "kernels were compiled for sm_90a, and sm_75 is acted"),
        (outcome(changed=["torch.cuda"]), "triton.backends.nvidia.driver was not acted"),
        (outcome(chose=changed(preflight="preflight: x fits NVIDIA H100 (9.0)")), "preflight did not see the card"),
        (outcome("ended", chose=changed(refusals=("No valid attention backend",))), "it ended: No valid attention"),
        (outcome("ended"), "it ended: the last line"),
    ],
)
def test_each_thing_that_is_not_as_expected_fails(seen: dict[str, Any], said: str) -> None:
    with pytest.raises(Failed) as error:
        judge.judge_choices(seen, T4, EXPECTED)
    assert said in str(error.value.args[0])
    assert error.value.args[1]["chose"]


def test_too_late_is_not_run_and_keeps_its_facts() -> None:
    with pytest.raises(NotRun, match="not healthy after 300 s") as error:
        judge.judge_choices(outcome("late", chose=changed(attention="")), T4, EXPECTED)
    assert error.value.args[1]["how"] == "late"
    with pytest.raises(NotRun, match="not healthy"):
        judge.judge_answers(outcome("late"))
    with pytest.raises(NotRun, match="no answer within its time"):
        judge.judge_answers(outcome(answers={}, unfinished=True))


def test_without_the_front_preflight_is_left_out_and_that_is_no_fault() -> None:
    left_out = changed(preflight="preflight: left out, as CARDSTOCK_SKIP_PREFLIGHT says")
    assert judge.judge_choices(outcome(chose=left_out), T4, EXPECTED)


def test_answers_must_be_right_and_be_there() -> None:
    assert judge.judge_answers(outcome())["answers"] == {"said": {"text": "Hello"}}
    for seen, said in (
        (outcome(wrong="text: said '!!!!'"), "text: said '!!!!'"),
        (outcome(answers={}), "nothing was answered"),
        (outcome("ended"), "it ended"),
    ):
        with pytest.raises(Failed, match=said):
            judge.judge_answers(seen)


AWQ = "Value error, The quantization method auto_awq is not supported for the current GPU. Minimum capability: 75."
BF16 = "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU"
UNFIT = "preflight: cu130-vllm0.33.0-flash-attn-sm90 has no code for Tesla T4 (7.5)"


@pytest.mark.parametrize(
    ("pattern", "chose"),
    [
        (judge.NO_CAPABILITY, changed(refusals=(AWQ,))),
        (BFLOAT16, changed(refusals=(BF16,))),
        (judge.PREFLIGHT, changed(preflight=UNFIT)),
    ],
)
def test_a_planted_mistake_is_noticed_where_the_server_refuses_it(pattern: str, chose: Choices) -> None:
    assert judge.judge_refusal(outcome("ended", chose=chose), pattern, "it")["said"]
    with pytest.raises(Failed, match="it was not refused"):
        judge.judge_refusal(outcome(chose=chose), pattern, "it")
    with pytest.raises(Failed, match="does not say why"):
        judge.judge_refusal(outcome("ended"), pattern, "it")
    with pytest.raises(NotRun):
        judge.judge_refusal(outcome("late", chose=chose), pattern, "it")


def test_that_bfloat16_was_asked_for_is_no_refusal() -> None:
    asked = outcome("ended", tail=["non-default args: {'dtype': 'bfloat16'}"])
    with pytest.raises(Failed, match="does not say why"):
        judge.judge_refusal(asked, BFLOAT16, "bfloat16")


def test_a_forced_attention_must_be_refused_or_replaced() -> None:
    refused = changed(attention="", refusals=("ValueError: Selected backend FLASH_ATTN is not valid: capability",))
    assert judge.judge_forced(outcome("ended", chose=refused), "FLASH_ATTN", T4)["said"]
    assert judge.judge_forced(outcome(chose=changed(attention="XFORMERS")), "FLASH_ATTN", T4)  # vLLM 0.8 takes another
    with pytest.raises(Failed, match=r"was taken on 7\.5"):
        judge.judge_forced(outcome(chose=changed(attention="FLASH_ATTN")), "FLASH_ATTN", T4)
    with pytest.raises(Failed, match="does not say why"):
        judge.judge_forced(outcome("ended", chose=changed(attention="")), "FLASH_ATTN", T4)
    with pytest.raises(NotRun):
        judge.judge_forced(outcome("late", chose=changed(attention="")), "FLASH_ATTN", T4)


SEEN = {
    "torch": {"capability": "7.5", "name": "Tesla T4", "sms": 40, "memory": T4.memory},
    "pynvml": {"capability": "7.5", "name": "Tesla T4", "memory": T4.memory},
    "vLLM's pynvml": {"capability": "7.5", "name": "Tesla T4", "memory": T4.memory},
    "preflight": {"capability": "7.5", "name": "Tesla T4"},
    "Triton": {"target": 75, "shared memory": 65536, "sms": 40, "right": True, "kernels": {"sm_75": 1}},
    "memory refused": "CUDA out of memory",
}


def test_every_way_to_ask_must_tell_the_acted_card() -> None:
    assert judge.judge_seen(SEEN, T4, front=True) == SEEN
    for change, said in (
        ({"preflight": {"capability": "9.0", "name": "NVIDIA H100"}}, "preflight: capability is 9.0, not 7.5"),
        ({"pynvml": {"error": "NVMLError"}}, "pynvml: NVMLError"),
        ({"memory refused": ""}, "torch gave more memory"),
        ({"Triton": {**SEEN["Triton"], "right": False}}, "Triton: right is False"),  # type: ignore[dict-item]
        ({"Triton": {**SEEN["Triton"], "kernels": {"sm_90a": 1}}}, "Triton: kernels for sm_90a"),  # type: ignore[dict-item]
    ):
        with pytest.raises(Failed) as error:
            judge.judge_seen({**SEEN, **change}, T4, front=True)
        assert said in str(error.value.args[0])
    assert judge.judge_seen({**SEEN, "preflight": {}}, T4, front=False)
    absent = {**SEEN, "pynvml": {"error": "ModuleNotFoundError: No module named 'pynvml'"}}
    assert judge.judge_seen(absent, T4, front=True) == absent
