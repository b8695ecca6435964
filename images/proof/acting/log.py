"""What a server chose, read from its log: vLLM 0.7 to 0.33. Pure, standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What vLLM says that it serves attention with, in its versions' words, and the name of the backend.
_DECODER = (
    re.compile(r"Using (?:AttentionBackendEnum\.)?([A-Z][A-Z0-9_]+) attention backend out of potential backends"),
    re.compile(r"Using AttentionBackendEnum\.([A-Z][A-Z0-9_]+) backend\."),
    re.compile(r"Using (XFormers|Flash ?Attention|FlashInfer|Triton|Flex ?Attention|Torch SDPA) backend"),
)
_NAMES = {
    "XFormers": "XFORMERS",
    "FlashAttention": "FLASH_ATTN",
    "FlashInfer": "FLASHINFER",
    "Triton": "TRITON_ATTN",
    "FlexAttention": "FLEX_ATTENTION",
    "TorchSDPA": "TORCH_SDPA",
}
_VISION = re.compile(r"Using (?:default )?backend (?:AttentionBackendEnum\.)?(\w+) for vit attention")
_FLASH = re.compile(r"Using FlashAttention version (\d)")
_QUANTISED = (
    re.compile(r"Using (\w+) for \w*AWQ\w*LinearMethod"),
    re.compile(r"Using (awq_marlin|awq) kernel"),
)
_CONFIG = re.compile(r"Initializing a V[01] LLM engine")
_DTYPE, _EAGER, _QUANTISATION = (
    re.compile(rf"\b{name}=(?:torch\.)?(\w+)") for name in ("dtype", "enforce_eager", "quantization")
)
_GRAPHS = re.compile(r"Graph capturing finished")
_CACHE = re.compile(r"(?:Available KV cache memory: (\S+ GiB)|# GPU blocks: (\d+))")
# Lines that tell of a refusal (by preflight, of a card, an attention, a type of numbers), and of kernels that fail.
REFUSAL = re.compile(
    r"Minimum capability|is only supported on GPUs|is not valid for\b|Cannot use FlashAttention|has no code for"
    r"|not supported for the current GPU|is not supported on|No valid attention backend"
    r"|OutOfResources|no kernel image|PTXASError|ptxas.*error"
)
MOST_REFUSALS, MOST_CHARACTERS = 6, 300
# One way only to serve Qwen-VL's vision where nothing is said: vllm/platforms/cuda.py, get_vit_attn_backend, @v0.19.1
# and @v0.33.0 give it without a line.
UNSAID = "TORCH_SDPA (the one that vLLM takes without a word)"


@dataclass(frozen=True)
class Choices:
    """What a server decided, "" where its log does not say. ``attention`` and ``vision`` are vLLM's names of backends;
    ``quantised`` the kernel of AWQ, ``eager`` "True" or "False", ``graphs`` whether they were captured.
    """

    attention: str = ""
    vision: str = ""
    flash_attn: str = ""
    quantised: str = ""
    quantisation: str = ""
    dtype: str = ""
    eager: str = ""
    graphs: bool = False
    cache: str = ""
    preflight: str = ""
    refusals: tuple[str, ...] = field(default=())


def read_choices(lines: Sequence[str]) -> Choices:
    """The choices that a whole log, or its beginning, tells of."""
    config = next((line for line in lines if _CONFIG.search(line)), "")
    attention = _first(_DECODER, lines)
    vision = _first((_VISION,), lines)
    loaded = any("Model loading took" in line for line in lines)
    cache = next((match for line in lines if (match := _CACHE.search(line))), None)
    refusals = dict.fromkeys(_plain(line)[:MOST_CHARACTERS] for line in lines if REFUSAL.search(line))
    return Choices(
        attention=_NAMES.get(attention.replace(" ", ""), attention),
        vision=vision or (UNSAID if loaded and "V1 LLM engine" in config and attention.isupper() else ""),
        flash_attn=_first((_FLASH,), lines),
        quantised=_first(_QUANTISED, lines),
        quantisation=_in(_QUANTISATION, config),
        dtype=_in(_DTYPE, config),
        eager=_in(_EAGER, config),
        graphs=any(_GRAPHS.search(line) for line in lines),
        cache=next(filter(None, cache.groups()), "") if cache else "",
        preflight=_plain(_verdict(lines))[:MOST_CHARACTERS],
        refusals=tuple(refusals)[:MOST_REFUSALS],
    )


def _first(patterns: Iterable[re.Pattern[str]], lines: Sequence[str]) -> str:
    """The first word that a line gives for one of the patterns; an earlier pattern goes first."""
    return next((match[1] for one in patterns for line in lines if (match := one.search(line))), "")


def _verdict(lines: Sequence[str]) -> str:
    """Preflight's line about the cards; it may say other things before."""
    said = [line for line in lines if line.startswith("preflight: ")]
    return next((line for line in said if " fits " in line or "has no code for" in line), said[0] if said else "")


def _in(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _plain(line: str) -> str:
    """A line without colours and vLLM's date."""
    return re.sub(r"^.*?(?:INFO|WARNING|ERROR) [\d-]+ [\d:.]+ ", "", re.sub(r"\x1b\[[\d;]*m", "", line)).strip()


_TARGET = re.compile(rb"^\.target\s+(sm_\d+\w*)", re.M)
MOST_KERNELS, HEAD = 20000, 4096


def kernels_by_target(cache: Path) -> dict[str, int]:
    """How many kernels Triton wrote PTX of below ``cache``, by the target that the PTX names."""
    counts: dict[str, int] = {}
    for number, path in enumerate(cache.rglob("*.ptx")):
        if number >= MOST_KERNELS:
            break
        try:
            with path.open("rb") as file:
                match = _TARGET.search(file.read(HEAD))
        except OSError:
            continue
        target = match[1].decode() if match else "unknown"
        counts[target] = counts.get(target, 0) + 1
    return dict(sorted(counts.items()))
