"""What makes the start of vLLM's server shorter: CUDA graphs, the cache's size, the kept plan, by version. Pure.

Read in the sources of vLLM 0.7.3, 0.8.5.post1, 0.9.2, 0.11.0, 0.19.1, 0.32.0 and 0.33.0. A version that is newer than
all of them gets none of these settings until somebody has read it: `UNDERSTOOD` ends where the reading ended. None of
it has been measured on a card yet; `python -m bench.start_breakdown` is the program that measures it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from images.matrix import Arch
from images.run.fit.backends import Setting
from images.run.fit.choose import USUAL, Fit
from images.run.fit.memory import BLOCK
from images.run.fit.weights import kv_bytes

SIZES, SIZES_AS_JSON = "--cudagraph-capture-sizes", "--compilation-config"
BYTES = "--kv-cache-memory-bytes"
PLAN, PLAN_KEY = "VLLM_ENABLE_STARTUP_PLAN", "--additional-config"
FORCE_AOT_LOAD = "VLLM_FORCE_AOT_LOAD"

# What vLLM itself keeps free beyond what it measured: redundancy_buffer_memory of v1/worker/gpu_worker.py@v0.33.0.
MARGIN = 150 * 2**20


@dataclass(frozen=True)
class Understood:
    """A flag or variable of vLLM's, the versions that are known to understand it, and where that was read."""

    name: str
    vllm: str
    source: str


UNDERSTOOD = (
    Understood(
        SIZES_AS_JSON,
        ">=0.8.5,<=0.11.0",
        "vllm/config.py@v0.8.5.post1, v0.9.2; vllm/config/compilation.py@v0.11.0: cudagraph_capture_sizes",
    ),
    Understood(SIZES, ">=0.19.1,<=0.33.0", "vllm/engine/arg_utils.py@v0.19.1, v0.32.0, v0.33.0"),
    # 0.11.0 knows it too, and measures without capturing anything: there is nothing to save.
    Understood(
        BYTES,
        ">=0.19.1,<=0.33.0",
        "vllm/v1/worker/gpu_worker.py determine_available_memory@v0.19.1, v0.33.0",
    ),
    Understood(PLAN, ">=0.32.0,<=0.33.0", "vllm/v1/worker/startup_plan.py@v0.32.0, v0.33.0"),
    Understood(PLAN_KEY, ">=0.32.0,<=0.33.0", "vllm/config/vllm.py compute_hash@v0.32.0, v0.33.0"),
    Understood(FORCE_AOT_LOAD, ">=0.19.1,<=0.33.0", "vllm/compilation/decorators.py@v0.19.1, v0.32.0, v0.33.0"),
)
# vllm/envs.py use_aot_compile@v0.19.1, v0.33.0: on by default from this torch on.
_AOT_TORCH = Version("2.10")

# A user's flag after which vLLM chooses the sizes itself: they are for another number of requests, or said there.
_SIZES_SAID = (
    "--max-num-seqs", "--enforce-eager", "--cudagraph-capture-sizes", "--max-cudagraph-capture-size",
    "--cuda-graph-sizes", "--compilation-config", "--optimization-level", "--performance-mode", "--speculative-config",
    "--config",
)  # fmt: skip
_SHORT_SAID = ("-O", "-cc", "-sc")
# The only flags of a user that leave a card's memory as it is summed up: after any other one vLLM measures it.
_NO_MEMORY = (
    "--served-model-name", "--api-key", "--allowed-origins", "--allowed-methods", "--allowed-headers",
    "--allow-credentials", "--allowed-media-domains", "--allowed-local-media-path", "--chat-template",
    "--chat-template-content-format", "--response-role", "--tool-call-parser", "--enable-auto-tool-choice",
    "--reasoning-parser", "--disable-log-requests", "--no-enable-log-requests", "--enable-log-requests",
    "--disable-log-stats", "--uvicorn-log-level", "--root-path", "--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs",
    "--generation-config", "--override-generation-config", "--seed", "--disable-fastapi-docs", "--max-log-len",
    "--enable-prefix-caching", "--no-enable-prefix-caching", "--enable-request-id-headers",
)  # fmt: skip


@dataclass(frozen=True)
class StartSettings:
    """Flags and environment of a server, what is told of each setting, made or not, and those that nobody has tried."""

    flags: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    choices: tuple[Setting, ...] = ()
    untried: tuple[str, ...] = ()


def understood(name: str, version: Version) -> Understood | None:
    """The row of a setting that this vLLM is known to understand; None: it is not given any."""
    return next((row for row in UNDERSTOOD if row.name == name and version in SpecifierSet(row.vllm)), None)


def aot_check(vllm: str, torch: str) -> dict[str, str]:
    """The environment with which vLLM ends instead of compiling where no kept compiled code fits; {} where none has it.

    For whoever checks that kept code is read, with a cache that has some. A first start with it would end.
    """
    known = understood(FORCE_AOT_LOAD, Version(vllm)) and Version(torch) >= _AOT_TORCH
    return {FORCE_AOT_LOAD: "1"} if known else {}


def usual_sizes(version: Version, arch: Arch, seqs: int, batched: int) -> tuple[int, ...]:
    """The batch sizes that vLLM's V1 captures CUDA graphs of when nothing is said.

    `_set_cudagraph_sizes` of vllm/config.py@v0.8.5.post1, v0.9.2 (to 512), vllm/config/__init__.py and
    scheduler.py@v0.11.0 (to twice the requests), vllm/config/vllm.py@v0.19.1 and @v0.33.0, which adds the number of
    requests itself and the tokens of a step.
    """
    most = 512 if version < Version("0.11") else min(2 * seqs, 512)
    if version < Version("0.19"):
        return tuple(size for size in (1, 2, 4, *range(8, most + 1, 8)) if size <= batched)
    newest = version >= Version("0.32")
    if newest and arch.major == 10:
        most = min(2 * seqs, 1024)
    most = min(most, batched)
    sizes = {size for size in (1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)) if size <= most}
    if newest:
        sizes |= {size for size in (seqs, batched) if size <= most}
    return tuple(sorted(sizes))


def capture_sizes(usual: Sequence[int], seqs: int) -> tuple[int, ...]:
    """Of vLLM's sizes those that ``seqs`` requests at a time use, and ``seqs`` itself.

    A batch is padded to the next captured size, so none of up to ``seqs`` requests is padded further than by ``usual``.
    """
    whole = {size for size in usual if size <= seqs}
    return tuple(sorted(whole | ({seqs} if seqs <= max(usual, default=0) else set())))


def start_settings(fit: Fit, user: Sequence[str] = ()) -> StartSettings:
    """The settings of a fit; ``user`` are the words that the server gets beyond them, which may make some wrong."""
    if not fit.backend.vllm:
        return StartSettings()
    parts = (_graphs(fit, _said(user)), *_memory(fit, _said(user)))
    made = [what for part in parts for what in part.untried]
    return StartSettings(
        tuple(word for part in parts for word in part.flags),
        tuple(pair for part in parts for pair in part.environment),
        tuple(choice for part in parts for choice in part.choices),
        tuple(made),
    )


def untried(fit: Fit) -> list[str]:
    """What of a fit's start was read in sources and tried on no card, in one sentence or none."""
    made = start_settings(fit).untried
    return [f"{', '.join(made)}, for a shorter start: read in vLLM's sources, tried on no card yet"] if made else []


def _said(user: Sequence[str]) -> tuple[str, ...]:
    """The flags among a user's words: "--compilation-config.mode=3" is "--compilation-config", "-O3" stays."""
    flags = (word for word in user if word.startswith("--") or (word[:1] == "-" and word[1:2].isalpha()))
    return tuple(word.partition("=")[0].partition(".")[0].replace("_", "-") for word in flags)


def _not(name: str, why: str, source: str) -> StartSettings:
    """Nothing is set, and why."""
    return StartSettings(choices=(Setting(name, "left to vLLM", why, source),))


def _graphs(fit: Fit, said: Sequence[str]) -> StartSettings:
    name, load, backend = "CUDA graphs", fit.load, fit.backend
    if not load.graphs:
        return StartSettings()  # enforce_eager has told it
    if not backend.chunked:
        return _not(
            name, "V0 captures no sizes beyond max_num_seqs by itself", "vllm/config.py@v0.7.3, v0.8.5.post1, v0.9.2"
        )
    if own := _first(said, _SIZES_SAID, _SHORT_SAID):
        return _not(name, f"{own} is given: the sizes for fit's {load.seqs} requests are left out", "--flag")
    row = understood(SIZES, backend.version) or understood(SIZES_AS_JSON, backend.version)
    if row is None:
        return _not(name, f"nobody has read how vLLM {backend.version} is told its sizes", "images/run/fit/start.py")
    usual = usual_sizes(backend.version, backend.arch, load.seqs, load.batched)
    sizes = capture_sizes(usual, load.seqs)
    if not sizes or sizes == usual:
        return _not(name, "vLLM captures the same sizes by itself", row.source)
    told = " ".join(map(str, sizes))
    why = (
        f"{len(sizes)} sizes instead of {len(usual)}, up to the {load.seqs} requests at a time; none of these is "
        f"padded further. Steps of {sizes[-1] + 1} to {usual[-1]} tokens, such as a short text that is read, go without"
    )
    words = (SIZES, *told.split()) if row.name == SIZES else (row.name, json.dumps({"cudagraph_capture_sizes": sizes}))
    return StartSettings(
        words,
        choices=(Setting(name, told, why, row.source),),
        untried=("CUDA graphs of fewer sizes",),
    )


def _memory(fit: Fit, said: Sequence[str]) -> Iterator[StartSettings]:
    """The cache's size: in bytes where fit's sum is sure, else measured once and kept, else measured at each start."""
    cache, plan = "key-value cache", "startup plan"
    backend = fit.backend
    if not fit.load.graphs or not backend.chunked:
        # Without graphs to capture twice, measuring costs hardly more than the run that every start makes.
        return
    if own := next((one for one in said if one not in _NO_MEMORY), ""):
        yield _not(cache, f"measured at each start: {own} is given, and fit has not summed up what it takes", "--flag")
        return
    size, unsure = cache_bytes(fit)
    if size:
        row = understood(BYTES, backend.version)
        assert row is not None  # noqa: S101  (cache_bytes has asked)
        tokens = size // kv_bytes(fit.ask.model, fit.ask.model.shape.layers, 1)
        why = (
            f"{tokens} tokens: fit's sum, less the {MARGIN // 2**20} MiB that vLLM leaves of what it measures. It then "
            "captures no graphs only to see what they take; gpu_memory_utilization stays as the look at what is free"
        )
        yield StartSettings(
            (BYTES, str(size)),
            choices=(
                Setting(cache, f"{BYTES} {size}", why, row.source),
                Setting(plan, "none", "the size is given: vLLM measures nothing that it could keep", _source(PLAN)),
            ),
            untried=("the cache's size in bytes",),
        )
        return
    yield _not(cache, f"measured by vLLM: {unsure}", _source(BYTES))
    yield _plan(fit, plan)


def cache_bytes(fit: Fit) -> tuple[int, str]:
    """Bytes for the key-value cache, in whole blocks; 0 where fit's sum is not sure enough, and why.

    The sum is exact, or high, so that its cache is what is left at the least; what vLLM leaves free of a measured size
    is left free here too. Where the sum is wrong all the same, a measured size would have been smaller and this one
    does not fit: so it is given only where nothing of the sum is a round figure or a guess.
    """
    ask, model = fit.ask, fit.ask.model
    if understood(BYTES, fit.backend.version) is None:
        return 0, f"vLLM {fit.backend.version} saves nothing by a given size, or was not read"
    if ask.count * ask.nodes > 1:
        return 0, "NCCL's buffers between cards are a round figure"
    if ask.on.machine is None:
        return 0, "the card's memory is known by its name alone"
    if model.assumed or model.shape.unverified:
        return 0, "the model's form was not read"
    if ask.video:
        return 0, "videos may be as long as a conversation"
    return _in_blocks(fit, 0)


def _in_blocks(fit: Fit, less: int) -> tuple[int, str]:
    """What is left of the cache after ``less`` bytes and the margin, if it still keeps what fit promises."""
    each = kv_bytes(fit.ask.model, fit.ask.model.shape.layers, 1)
    tokens = (fit.sum.tokens * each - less - MARGIN) // each // BLOCK * BLOCK
    # One block is vLLM's own (v1/core/block_pool.py null_block@v0.11.0).
    wanted = max(fit.load.length + BLOCK, fit.load.seqs * USUAL if fit.load.seqs > 1 else 0)
    if tokens < wanted:
        return 0, f"{(less + MARGIN) // 2**20} MiB less would not hold {wanted} tokens any more"
    return tokens * each, ""


def _plan(fit: Fit, name: str) -> StartSettings:
    """vLLM's own startup plan: the size that a first start has measured, kept in the cache volume for the next ones.

    It holds for the same vLLM, torch, card, model and settings (`compute_plan_fingerprint`) and is left aside where
    less is free than then. What the fingerprint leaves out and fit sets goes into it by --additional-config. A kept
    size is smaller than the measured one by the graphs, which are counted twice, and by a margin.
    """
    row, key = understood(PLAN, fit.backend.version), understood(PLAN_KEY, fit.backend.version)
    if row is None or key is None:
        return _not(name, f"vLLM {fit.backend.version} keeps none, or was not read", _source(PLAN))
    if fit.ask.count * fit.ask.nodes > 1:
        why = "each card decides by itself whether its plan holds, and a card that measures waits for those that do not"
        return _not(name, why, row.source)
    graphs = next((line.bytes for line in fit.sum.lines if line.name == "CUDA graphs"), 0)
    size, short = _in_blocks(fit, graphs)
    if not size:
        return _not(name, f"none: a kept size leaves out the graphs twice, and {short}", row.source)
    why = (
        "vLLM keeps in /cache what its first start measures, and uses it while settings, card and versions are the "
        f"same and as much is free; the cache is then up to {(graphs + MARGIN) // 2**20} MiB smaller"
    )
    return StartSettings(
        (PLAN_KEY, json.dumps({"startup_plan": plan_key(fit)})),
        ((PLAN, "1"),),
        (
            Setting(name, f"{PLAN}=1", why, row.source),
            Setting(
                "startup plan, its key",
                PLAN_KEY,
                "what vLLM's own key for it leaves out of what is set here",
                key.source,
            ),
        ),
        ("the startup plan",),
    )


def plan_key(fit: Fit) -> Mapping[str, object]:
    """What fit sets that changes a card's memory and is not in vLLM's fingerprint of a plan.

    Ignored there: CacheConfig gpu_memory_utilization, ModelConfig mm_processor_kwargs, MultiModalConfig as a whole
    (compute_hash in vllm/config/cache.py, model.py, vllm.py@v0.33.0).
    """
    pixels = fit.load.image_tokens * fit.ask.model.shape.vision.pixels_a_token
    vision = fit.backend.vision_attention
    return {
        "gpu_memory_utilization": fit.sum.utilisation,
        "max_pixels": pixels,
        **({"mm_encoder_attn_backend": vision} if vision else {}),
    }


def _source(name: str) -> str:
    return next(row.source for row in UNDERSTOOD if row.name == name)


def _first(said: Sequence[str], whole: Sequence[str], begin: Sequence[str]) -> str:
    """The first flag that is one of ``whole``, or a short one that begins so."""
    return next((one for one in said if one in whole or (one[:2] != "--" and one.startswith(tuple(begin)))), "")
