"""The key of compiled code: what is in it, what is not, how it is written."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from images.compiled import key as keys
from images.compiled.key import CompiledKey, image_hash, kept_environment, kept_flags, key_of_facts, model_hash
from tests.helpers.compiled_code import KEY, other
from tests.helpers.nonempty import nonempty


def test_the_key_is_the_same_everywhere_and_for_ever() -> None:
    assert (
        KEY.digest == "d36543577366c80d80b84417080b9ff898a0b8d3190647bae4d21e8f639f9188"
    )  # a change here makes all that is kept useless: raise FORM with it
    assert KEY.tag == f"compiled-aaaaaaaaaaaa-{KEY.digest[:40]}"
    assert len(KEY.tag) <= 128


def test_every_fact_changes_the_key() -> None:
    others = {
        "image": "sha256:" + "c" * 64, "capability": "8.9", "card": "NVIDIA L4", "model": "d" * 64, "place": "Qwen/X",
        "flags": (), "env": (), "form": 2,
    }  # fmt: skip
    assert set(others) == {field.name for field in fields(CompiledKey)}
    for name, value in nonempty(others.items()):
        changed = other(**{name: value})
        assert changed.digest != KEY.digest
        assert len(KEY.differences(changed)) == 1
    assert not KEY.differences(KEY)


def test_the_facts_give_the_key_again() -> None:
    assert key_of_facts(json.loads(json.dumps(KEY.facts()))) == KEY


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (other(card="NVIDIA H100"), "card: NVIDIA H100, not NVIDIA H200"),
        (other(image="sha256:" + "c" * 64), "image: sha256:cccccccccccc, not sha256:aaaaaaaaaaaa"),
        (
            other(flags=(("--dtype", "half"), ("--max-model-len", "4096"))),
            "flags: --max-model-len 4096, not --max-model-len 8192",
        ),
        (other(env=()), "environment: no VLLM_USE_V1, not VLLM_USE_V1 1"),
        (other(card=""), "card: none, not NVIDIA H200"),
        (other(card="\x1b[31mred"), "card: ?[31mred, not NVIDIA H200"),
    ],
)
def test_a_difference_is_told_in_words(changed: CompiledKey, told: str) -> None:
    assert KEY.differences(changed) == [told]


def test_an_image_is_its_layers_and_its_variables() -> None:
    one = image_hash(["sha256:1", "sha256:2"], {"A": "1", "B": "2"})
    assert one == image_hash(("sha256:1", "sha256:2"), {"B": "2", "A": "1"})
    others = (
        image_hash(["sha256:2", "sha256:1"], {"A": "1", "B": "2"}),
        image_hash(["sha256:1", "sha256:2"], {"A": "1"}),
    )
    assert one not in others and others[0] != others[1]
    assert len(one) == 71


def test_a_configuration_counts_as_what_it_says() -> None:
    one = json.loads('{"hidden_size": 2048, "vision_config": {"depth": 32}}')
    two = json.loads('{"vision_config":{"depth":32},\n "hidden_size":2048}')
    assert model_hash(one) == model_hash(two) != model_hash({**one, "hidden_size": 4096})


def test_flags_are_canonical() -> None:
    one = kept_flags(["--max_model_len=8", "--dtype", "half", "--compilation-config", '{"b": 1, "a": 2}', "-tp", "2"])
    two = kept_flags(
        [
            "-tp=2",
            "--compilation-config",
            '{"a":2,"b":1}',
            "--dtype",
            "float16",
            "--dtype",
            "half",
            "--max-model-len",
            "8",
        ]
    )
    assert (
        one
        == two
        == (
            ("--compilation-config", '{"a":2,"b":1}'),
            ("--dtype", "half"),
            ("--max-model-len", "8"),
            ("--tensor-parallel-size", "2"),
        )
    )
    assert kept_flags(["--compilation-config", "{broken"]) == (("--compilation-config", "{broken"),)
    assert kept_flags(["--enforce-eager", "--dtype", "half"]) == (("--dtype", "half"), ("--enforce-eager", ""))
    assert kept_flags(["--cudagraph-capture-sizes", "1", "2", "4"]) == (("--cudagraph-capture-sizes", "1 2 4"),)


def test_what_changes_no_code_is_not_in_the_key() -> None:
    words = [
        "--served-model-name",
        "x",
        "--gpu-memory-utilization",
        "0.9",
        "--model",
        "O/N",
        "--port",
        "1",
        "--seed",
        "3",
    ]
    words += ["--limit-mm-per-prompt", '{"image": 8}', "--mm-processor-kwargs", "{}"]
    assert kept_flags(words) == ()
    assert kept_flags(["--max-num-batched-tokens", "2048"]) == (("--max-num-batched-tokens", "2048"),)


def test_no_secret_is_in_the_key() -> None:
    assert (
        kept_flags(
            ["--api-key", "s3cret", "--hf-token", "s3cret", "--ssl-keyfile", "/s3cret", "--x-password", "s3cret"]
        )
        == ()
    )
    said = {
        "HF_TOKEN": "s3cret", "VLLM_API_KEY": "s3cret", "VLLM_S3_SECRET": "s3cret", "AWS_SECRET_ACCESS_KEY": "s3cret",
        "TORCH_HUB_TOKEN": "s3cret", "VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_LOGGING_LEVEL": "DEBUG", "PATH": "/bin",
        "VLLM_USE_V1": "1", "TORCHDYNAMO_DISABLE": "0", "CARDSTOCK_DEFAULT_ARGS": "[]", "CARDSTOCK_ALLOWED_HOSTS": "x",
    }  # fmt: skip
    assert kept_environment(said) == (
        ("CARDSTOCK_DEFAULT_ARGS", "[]"), ("TORCHDYNAMO_DISABLE", "0"), ("VLLM_USE_V1", "1"),
    )  # fmt: skip


def test_tags_of_one_image_begin_alike() -> None:
    assert other(card="x").tag.startswith(keys.tag_start(KEY.image))
    assert not other(image="sha256:" + "c" * 64).tag.startswith(keys.tag_start(KEY.image))
