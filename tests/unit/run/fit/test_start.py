"""What makes a start shorter: which vLLM is given it, what it may not cost, and when vLLM is left to itself."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from images.cards.this_machine import LocalCard, LocalMachine
from images.core.errors import NoImageFits
from images.matrix.arch import Arch
from images.matrix.variants import Variant
from images.run.fit.choose import USUAL, Fit, fit
from images.run.fit.fit_table import fit_json, fit_lines
from images.run.fit.memory import BLOCK
from images.run.fit.settings import environment, server_flags, setting_choices, unverified
from images.run.fit.start import (
    BYTES,
    FORCE_AOT_LOAD,
    MARGIN,
    PLAN,
    PLAN_KEY,
    SIZES,
    SIZES_AS_JSON,
    UNDERSTOOD,
    aot_check,
    cache_bytes,
    capture_sizes,
    plan_key,
    start_settings,
    usual_sizes,
)
from images.run.fit.weights import kv_bytes
from tests.helpers import matrices
from tests.helpers.fits import SM75, ask, variant
from tests.helpers.nonempty import nonempty

GOLDEN = Path(__file__).parents[3] / "golden" / "vllm_flags.json"
CARDS = {
    "6.0": "P100 PCIe 16 GB", "6.1": "Tesla P40", "7.0": "V100 PCIe 32 GB", "7.5": "T4", "8.0": "A100 SXM4 80 GB",
    "8.6": "A40", "8.9": "L40S", "9.0": "H200", "10.0": "B200", "12.0": "RTX 5090",
}  # fmt: skip
VERSIONS = ("0.8.5.post1", "0.9.2", "0.11.0", "0.19.1", "0.33.0")
SM90 = "cu130-vllm0.33.0-flash-attn-sm90"


@cache
def vllm_understands(version: str) -> dict[str, frozenset[str]]:
    """What the sources of this vLLM have: tests/golden/make_vllm_flags.py."""
    read = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return {name: frozenset(words.split()) for name, words in read[version].items()}


def seen(found: Fit) -> Fit:
    """The same on a machine whose cards NVML has told of."""
    card = LocalCard(found.ask.card, "GPU-1", found.ask.arch, found.ask.usable)
    machine = LocalMachine("580.65.06", "13.0", (card,) * found.ask.count)
    return fit(replace(found.ask, on=replace(found.ask.on, machine=machine)))


def fitted(model: str = "3b-awq", on: str = "H200", count: int = 1, *, by: str = "", here: bool = False) -> Fit:
    found = fit(ask(model, on, count, by=by))
    return seen(found) if here else found


def value(words: list[str], flag: str) -> list[str]:
    """What follows a flag, up to the next one; [] without it."""
    if flag not in words:
        return []
    rest = words[words.index(flag) + 1 :]
    return rest[: next((at for at, word in enumerate(rest) if word.startswith("--")), len(rest))]


def told(found: Fit, name: str) -> Any:
    return next(one for one in setting_choices(found) if one.name == name)


def sizes_of(words: list[str]) -> list[int]:
    """The sizes that a server is told, in either form."""
    if words_of := value(words, SIZES):
        return [int(word) for word in words_of]
    (text,) = value(words, SIZES_AS_JSON) or ["{}"]
    return list(json.loads(text).get("cudagraph_capture_sizes", []))


def _fits(one: Variant) -> list[Fit]:
    """Fits of the variant, by name and as seen, on one card and on more."""
    found = []
    for arch, (model, count) in product(one.archs, (("3b-awq", 1), ("7b", 1), ("3b-fp16", 1), ("7b-awq", 2))):
        try:
            made = fit(ask(model, CARDS[arch.capability], count, by=one.id))
        except NoImageFits:
            continue
        found += [made, seen(made)]
    return found


STACKS = {
    (one.stack, one.attention): one
    for one in matrices.variants().valid.values()
    if one.backend == "vllm" and one.archs and len(one.archs) == 1
}


@pytest.mark.parametrize("one", STACKS.values(), ids=lambda one: one.id)
def test_no_flag_reaches_a_vllm_that_does_not_know_it(one: Variant) -> None:
    pin = one.pin("vllm")
    assert pin is not None
    known = vllm_understands(pin.version.partition("+")[0])
    for found in nonempty(_fits(one)):
        words = [*one.args, *server_flags(found)]
        assert {word for word in words if word.startswith("--")} <= known["flags"]
        own = {name for name in {**dict(one.env), **environment(found)} if name.startswith("VLLM_")}
        assert own <= known["environment"]
        said = json.loads((value(words, SIZES_AS_JSON) or ["{}"])[0])
        assert set(said) <= known["compilation_config"]


def test_every_stack_of_the_matrix_is_looked_at() -> None:
    stacks = {(one.stack, one.attention) for one in matrices.variants().valid.values() if one.backend == "vllm"}
    assert {stack for stack in stacks if stack[0] != "cpu"} == set(STACKS)
    # And where a version understands something, some stack is given it.
    given_to: dict[str, set[str]] = {}
    for one in nonempty(STACKS.values()):
        for found in _fits(one):
            words = {*server_flags(found), *environment(found)}
            for name in words & {SIZES, SIZES_AS_JSON, BYTES, PLAN, PLAN_KEY}:
                given_to.setdefault(name, set()).add(str(found.backend.version.public))
    assert given_to[SIZES] == {"0.19.1", "0.33.0"}
    assert given_to[SIZES_AS_JSON] == {"0.8.5.post1", "0.9.2", "0.11.0"}
    assert given_to[BYTES] == {"0.19.1", "0.33.0"}
    assert given_to[PLAN] == given_to[PLAN_KEY] == {"0.33.0"}


def test_the_table_says_what_the_sources_say() -> None:
    for row in nonempty(UNDERSTOOD):
        kind = "flags" if row.name.startswith("--") else "environment"
        for version in ("0.19.1", "0.32.0", "0.33.0") if row.name != SIZES_AS_JSON else ("0.8.5.post1", "0.11.0"):
            if Version(version) >= Version(row.vllm.split(",")[0].removeprefix(">=")):
                assert row.name in vllm_understands(version)[kind], (row.name, version)
    assert PLAN not in vllm_understands("0.19.1")["environment"]
    assert SIZES not in vllm_understands("0.11.0")["flags"]


def test_a_version_that_nobody_read_gets_nothing() -> None:
    found = fitted(here=True)
    newer = replace(found, backend=replace(found.backend, version=Version("0.34.0")))
    assert start_settings(newer).flags == () and start_settings(newer).environment == ()
    assert "nobody has read" in start_settings(newer).choices[0].why


# -- sizes of CUDA graphs


def test_sizes_as_vllm_has_them() -> None:
    # vLLM 0.8 and 0.9 capture 67 sizes however many requests there are; logs say "67/67".
    assert len(usual_sizes(Version("0.8.5.post1"), Arch(8, 0), 4, 8192)) == 67
    assert usual_sizes(Version("0.11.0"), Arch(9, 0), 4, 8192) == (1, 2, 4, 8)
    assert usual_sizes(Version("0.19.1"), Arch(9, 0), 1, 8192) == (1, 2)
    assert usual_sizes(Version("0.33.0"), Arch(9, 0), 6, 8192) == (1, 2, 4, 6, 8)
    assert usual_sizes(Version("0.33.0"), Arch(9, 0), 512, 8192)[-2:] == (496, 512)
    assert usual_sizes(Version("0.33.0"), Arch(10, 0), 1024, 8192)[-1] == 1024
    assert usual_sizes(Version("0.33.0"), Arch(9, 0), 256, 100)[-2:] == (96, 100)


def test_four_requests_capture_three_sizes() -> None:
    assert capture_sizes(usual_sizes(Version("0.9.2"), Arch(8, 0), 4, 2048), 4) == (1, 2, 4)
    assert capture_sizes(usual_sizes(Version("0.33.0"), Arch(9, 0), 64, 8192), 64) == (1, 2, 4, *range(8, 65, 8))


def padded(sizes: tuple[int, ...], requests: int) -> int | None:
    """The captured size that a batch is computed as; None: without a graph."""
    return min((size for size in sizes if size >= requests), default=None)


@given(
    version=st.sampled_from(VERSIONS),
    seqs=st.integers(1, 1024),
    batched=st.sampled_from((512, 2048, 8192)),
    arch=st.sampled_from((Arch(8, 0), Arch(9, 0), Arch(10, 0))),
)
def test_no_batch_that_fit_promises_is_padded_further(version: str, seqs: int, batched: int, arch: Arch) -> None:
    usual = usual_sizes(Version(version), arch, seqs, batched)
    ours = capture_sizes(usual, seqs)
    assert len(ours) <= len(usual) + 1 and max(ours, default=0) <= max(seqs, 0)
    for requests in range(1, seqs + 1):
        before, now = padded(usual, requests), padded(ours, requests)
        assert (before is None) == (now is None)
        assert now is None or before is None or now <= before
    assert set(ours) >= {size for size in (1, 2, 4) if size <= min(seqs, batched)}


@pytest.mark.parametrize(
    ("by", "on", "flag"),
    [
        ("cu124-vllm0.8.5.post1-flash-attn-sm80", "A100 SXM4 80 GB", SIZES_AS_JSON),
        ("cu126-vllm0.9.2-flash-attn-sm90", "H200", SIZES_AS_JSON),
        ("cu128-vllm0.11.0-flash-attn-sm90", "H200", SIZES_AS_JSON),
        ("cu129-vllm0.19.1-flash-attn-sm90", "H200", SIZES),
        (SM90, "H200", SIZES),
    ],
)
def test_a_server_is_told_its_sizes(by: str, on: str, flag: str) -> None:
    found = fitted("7b", on, by=by)
    words = server_flags(found)
    usual = usual_sizes(found.backend.version, found.backend.arch, found.load.seqs, found.load.batched)
    assert sizes_of(words) == list(capture_sizes(usual, found.load.seqs)) and flag in words
    assert sizes_of(words)[-1] == found.load.seqs
    choice = told(found, "CUDA graphs")
    assert f"{len(sizes_of(words))} sizes instead of {len(usual)}" in choice.why and choice.source
    assert any("CUDA graphs of fewer sizes" in claim and "no card" in claim for claim in unverified(found))


def test_v0_and_eager_servers_are_told_none() -> None:
    old = fitted("7b-awq", "2080 Ti", by=SM75)
    assert sizes_of(server_flags(old)) == [] and "V0" in told(old, "CUDA graphs").why
    eager = replace(old, load=replace(old.load, graphs=False))
    assert start_settings(eager).choices == () and start_settings(eager).flags == ()
    assert start_settings(fitted("3b", "T4", by="cu124-transformers5.24.0-sdpa-sm75")).choices == ()


# -- the cache in bytes


def test_the_size_is_given_where_the_sum_is_sure() -> None:
    found = fitted(here=True)
    size, why = cache_bytes(found)
    each = kv_bytes(found.ask.model, found.ask.model.shape.layers, 1)
    assert why == "" and value(server_flags(found), BYTES) == [str(size)]
    # Whole blocks; never more than the sum's own cache less what vLLM leaves free of a measured one.
    assert size % (each * BLOCK) == 0
    assert size <= found.sum.tokens * each - MARGIN
    cache = next(line.bytes for line in found.sum.lines if line.name == "key-value cache")
    graphs = next(line.bytes for line in found.sum.lines if line.name == "CUDA graphs")
    assert size <= cache - graphs - MARGIN
    # And what fit promises still goes into it.
    assert size // each >= found.load.length + BLOCK and size // each >= found.load.seqs * USUAL
    # The look at what is free stays.
    assert value(server_flags(found), "--gpu-memory-utilization") == [f"{found.sum.utilisation:.2f}"]
    assert PLAN not in environment(found) and "none" in told(found, "startup plan").value
    assert any("size in bytes" in claim for claim in unverified(found))


@given(on=st.sampled_from(("H200", "A40", "L40S", "RTX 3090", "RTX 4090")), model=st.sampled_from(("3b-awq", "7b")))
def test_all_of_a_card_is_never_more_than_fit_has_summed_up(on: str, model: str) -> None:
    found = fitted(model, on, here=True)
    size, _ = cache_bytes(found)
    others = sum(line.bytes for line in found.sum.lines if line.name != "key-value cache")
    assert others + size + MARGIN <= found.ask.usable


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (lambda: fitted(), "by its name alone"),
        (lambda: fitted(count=2, here=True), "round figure"),
        (lambda: fitted("7b-w8a16", here=True), "form was not read"),
        (lambda: fit(replace(fitted(here=True).ask, video=1)), "videos"),
        (lambda: fitted("7b", by="cu128-vllm0.11.0-flash-attn-sm90", here=True), "saves nothing"),
    ],
)
def test_where_the_sum_is_not_sure_vllm_measures(found: Any, why: str) -> None:
    made = found()
    assert BYTES not in server_flags(made) and cache_bytes(made)[0] == 0
    assert why in told(made, "key-value cache").why


def test_a_tight_card_is_measured() -> None:
    """Where the margin would take what fit promises, neither a given size nor a kept one may come in its place."""
    roomy = fitted(here=True)
    tight = replace(roomy, sum=replace(roomy.sum, tokens=roomy.load.length + BLOCK))
    made = start_settings(tight)
    assert BYTES not in made.flags and made.environment == () and PLAN_KEY not in made.flags
    assert "would not hold" in next(one.why for one in made.choices if one.name == "startup plan")


# -- the plan


def test_the_plan_is_kept_where_vllm_measures() -> None:
    found = fitted()
    assert environment(found)[PLAN] == "1"
    key = json.loads(value(server_flags(found), PLAN_KEY)[0])
    assert key == {"startup_plan": dict(plan_key(found))}
    assert "/cache" in told(found, "startup plan").why


def test_the_key_has_what_vllms_own_leaves_out() -> None:
    """Another share of the card, other pictures or another attention: another plan (compute_hash@v0.33.0)."""
    found = fitted()
    words = server_flags(found)
    key = plan_key(found)
    assert float(value(words, "--gpu-memory-utilization")[0]) == key["gpu_memory_utilization"]
    assert json.loads(value(words, "--mm-processor-kwargs")[0])["max_pixels"] == key["max_pixels"]
    assert value(words, "--mm-encoder-attn-backend") == [key["mm_encoder_attn_backend"]]
    less = replace(found, sum=replace(found.sum, utilisation=0.5))
    smaller = replace(found, load=replace(found.load, image_tokens=640))
    assert len({json.dumps(dict(plan_key(one))) for one in (found, less, smaller)}) == 3


def test_several_cards_keep_no_plan() -> None:
    # One that applies its plan does not run the model a second time, and one that measures would wait for it.
    found = fitted(count=2)
    assert PLAN not in environment(found) and PLAN_KEY not in server_flags(found)
    assert sizes_of(server_flags(found)) and "each card decides" in told(found, "startup plan").why


# -- what the user says


@pytest.mark.parametrize(
    "said",
    [
        ["--max-num-seqs", "16"], ["--max_num_seqs=16"], ["--compilation-config", "{}"],
        ["--compilation-config.mode=3"], ["--x", "1", "-O3"], ["--x", "-cc.mode=3"], ["--enforce-eager"],
        ["--cuda-graph-sizes", "8"], ["--max-cudagraph-capture-size", "8"], ["--config", "file.yaml"],
        ["--speculative-config", "{}"],
    ],
)  # fmt: skip
def test_sizes_are_left_out_where_the_user_says_what_changes_them(said: list[str]) -> None:
    for found in (fitted(), fitted("7b", by="cu126-vllm0.9.2-flash-attn-sm90")):
        assert sizes_of(server_flags(found)) and sizes_of(server_flags(found, said)) == []


@pytest.mark.parametrize(
    "said",
    [
        ["--gpu-memory-utilization", "0.5"], ["--max-model-len=4096"], ["--kv-cache-dtype", "fp8"], ["-tp", "2"],
        ["--mm-processor-kwargs", "{}"], ["--limit-mm-per-prompt", "{}"], ["--something-new"], ["--enforce-eager"],
    ],
)  # fmt: skip
def test_vllm_measures_anew_where_the_user_changes_what_is_taken(said: list[str]) -> None:
    sure = fitted(here=True)
    assert BYTES in server_flags(sure) and BYTES not in server_flags(sure, said)
    assert PLAN not in environment(sure, said) and PLAN_KEY not in server_flags(sure, said)
    named = fitted()
    assert PLAN in environment(named) and PLAN not in environment(named, said)


def test_flags_that_take_no_memory_change_nothing() -> None:
    said = ["--served-model-name", "mine", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--seed", "-1"]
    for found in (fitted(), fitted(here=True)):
        assert server_flags(found, said) == server_flags(found) and environment(found, said) == environment(found)


# -- what is shown


def test_each_setting_is_shown_with_its_reason() -> None:
    for found in (fitted(), fitted(here=True), fitted(count=2), fitted("7b-awq", "2080 Ti")):
        lines = fit_lines(found)
        for choice in nonempty(start_settings(found).choices):
            assert f"  {choice.name}: {choice.value}. {choice.why} [{choice.source}]" in lines
            assert choice.why and choice.source
        told_to_scripts = fit_json(found, [])
        assert told_to_scripts["flags"] == server_flags(found)
        assert told_to_scripts["environment"] == environment(found)


# -- the check that compiled code is read


def test_the_check_is_for_versions_that_keep_compiled_code_ahead_of_time() -> None:
    assert aot_check("0.33.0", "2.14.0") == aot_check("0.19.1", "2.10.0") == {FORCE_AOT_LOAD: "1"}
    assert aot_check("0.11.0", "2.8.0") == aot_check("0.8.5.post1", "2.6.0+cu118") == aot_check("0.19.1", "2.9.1") == {}


def test_the_check_is_in_no_users_server() -> None:
    for one in nonempty(STACKS.values()):
        for found in _fits(one)[:2]:
            assert FORCE_AOT_LOAD not in environment(found)
    assert variant(SM90).id == SM90
