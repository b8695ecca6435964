"""What decides the code that a server compiles when it first starts, and the key made of it. Pure.

The key is the SHA-256 of its facts as JSON, names sorted, no blanks; `FORM` is its version and one of the facts. It
says too much rather than too little: vLLM hashes the same things again before it uses what it finds, and compiles what
it does not find. What is left out changes no compiled code, by vLLM's own lists (vllm/envs.py `compile_factors`,
`ignored_factors` of the `compute_hash` of vllm/config/*.py @v0.32.0), or may be a secret.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

# The version of the key: another way to make it gives other keys.
FORM = 1
# Flags of the servers that change no compiled code, or only say where something is.
_LEFT_OUT = frozenset(
    {
        "--allowed-local-media-path", "--allowed-media-domains", "--api-key", "--chat-template",
        "--disable-fastapi-docs",
        "--disable-log-requests", "--disable-log-stats", "--download-dir", "--enable-log-requests",
        "--enable-prefix-caching", "--enable-prompt-tokens-details", "--enable-request-id-headers",
        "--enable-server-load-tracking", "--gpu-memory-utilization", "--hf-token", "--host", "--kv-cache-memory-bytes",
        "--limit-mm-per-prompt", "--load-format", "--max-log-len", "--middleware", "--mm-processor-cache-gb",
        "--mm-processor-kwargs", "--model", "--no-enable-prefix-caching", "--port", "--response-role", "--root-path",
        "--seed", "--served-model-name", "--swap-space", "--tokenizer", "--uvicorn-log-level",
    }
)  # fmt: skip
# Variables that servers and compilers read; others are not in the key. Of the first, vLLM's own list leaves out these.
_COMPILES = (
    "VLLM_",
    "TORCH",
    "PYTORCH_",
    "TRITON_",
    "FLASHINFER_",
    "CUDA_",
    "CARDSTOCK_ENGINE",
    "CARDSTOCK_DEFAULT_ARGS",
)
_NOT_THESE = (
    "VLLM_API_KEY", "VLLM_ASSETS_CACHE", "VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "VLLM_CPU_KVCACHE_SPACE",
    "VLLM_DO_NOT_TRACK", "VLLM_ENABLE_STARTUP_PLAN", "VLLM_FORCE_AOT_LOAD", "VLLM_HOST_IP", "VLLM_HTTP_", "VLLM_IMAGE_",
    "VLLM_LOG", "VLLM_MEDIA_", "VLLM_NO_USAGE_STATS", "VLLM_PORT", "VLLM_RPC_BASE_PATH", "VLLM_USAGE_",
    "VLLM_USE_MODELSCOPE",
    "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE", "CUDA_CACHE_", "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER", "TRITON_LIBCUDA_PATH",
)  # fmt: skip
# By the last word of its name: --max-num-batched-tokens is none.
_SECRET = re.compile(r"(?:^|[-_])(?:key|keyfile|token|secret|password|passwd|credentials?)$", re.IGNORECASE)
_SHORT = {"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-q": "--quantization"}
# What a person reads of a fact in "…: A, not B".
_NAMES = {
    "image": "image", "capability": "compute capability", "card": "card", "model": "the model's config.json",
    "place": "the model's place", "flags": "flags", "env": "environment", "form": "the form of the key",
}  # fmt: skip
_SHOWN = 240


@dataclass(frozen=True)
class CompiledKey:
    """The facts that compiled code is kept by.

    ``image`` is `image_hash` of the image. ``capability`` is "9.0", or "cpu". ``card`` is its name as NVML has it, or a
    processor's: torch's compiler asks for the name (torch/_inductor/codecache.py `CacheBase.get_system`), so it is ""
    only of servers that do not use it. ``model`` is `model_hash` of the checkpoint's config.json; ``place`` what the
    server is told as the model ("/models", or OWNER/NAME), which vLLM hashes too. ``flags`` and ``env`` are as
    `kept_flags` and `kept_environment` give them.
    """

    image: str
    capability: str
    card: str
    model: str
    place: str
    flags: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    form: int = FORM

    @property
    def digest(self) -> str:
        """64 hex digits."""
        return _hash_of(self.facts())

    @property
    def tag(self) -> str:
        """The tag of a registry that it is kept by: all of an image begin alike."""
        return f"{tag_start(self.image)}{self.digest[:40]}"

    def facts(self) -> dict[str, Any]:
        """As JSON has them."""
        return asdict(self) | {"flags": dict(self.flags), "env": dict(self.env)}

    def differences(self, other: CompiledKey) -> list[str]:
        """What ``other`` says otherwise, for people: "card: NVIDIA H200, not NVIDIA H100"."""
        out = []
        for one in fields(self):
            mine, its = getattr(self, one.name), getattr(other, one.name)
            if mine == its:
                continue
            if isinstance(mine, tuple):
                mine, its = _unlike(dict(mine), dict(its))
            out.append(f"{_NAMES[one.name]}: {_short(its)}, not {_short(mine)}")
        return out


def tag_start(image: str) -> str:
    """What the tags of all compiled code of an image begin with; ``image`` is its `image_hash`."""
    return f"compiled-{image.removeprefix('sha256:')[:12]}-"


def key_of_facts(facts: Mapping[str, Any]) -> CompiledKey:
    """The key that facts amount to; they are of the form of `CompiledKey.facts`."""
    pairs = {name: tuple(sorted(facts[name].items())) for name in ("flags", "env")}
    return CompiledKey(**{**facts, **pairs})


def image_hash(layers: Sequence[str], environment: Mapping[str, str]) -> str:
    """ "sha256:…" of what an image's programs see: its layers (digests of them unpacked, base first), its variables.

    Engines know an image by the digest of its configuration, or, with the containerd store, of its manifest; layers and
    variables are the same for both, and labels that are written later change neither.
    """
    facts = {"layers": list(layers), "env": dict(environment)}
    return f"sha256:{_hash_of(facts)}"


def _hash_of(facts: Mapping[str, Any]) -> str:
    """64 hex digits of JSON's one way to write them."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def model_hash(config: Mapping[str, Any]) -> str:
    """64 hex digits of a checkpoint's config.json, in whatever order and with whatever blanks it is written."""
    return _hash_of(config)


def kept_flags(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The flags of a server's words that may change compiled code, by name, each with its last value.

    "--max_model_len=8" and "--max-model-len 8" are one; JSON counts as what it says, however it is written.
    """
    out: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--") or word.partition("=")[0] in _SHORT:
            said, equals, value = word.partition("=")
            name = _SHORT.get(said, said.replace("_", "-"))
            out[name] = _plain(value) if equals else ""
        elif name:
            out[name] = f"{out[name]} {_plain(word)}".strip()
    return tuple(
        sorted((flag, value) for flag, value in out.items() if flag not in _LEFT_OUT and not _SECRET.search(flag))
    )


def kept_environment(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables of a container that may change compiled code, by name; a secret is none of them."""
    return tuple(
        sorted(
            (name, value)
            for name, value in environment.items()
            if name.startswith(_COMPILES) and not name.startswith(_NOT_THESE) and not _SECRET.search(name)
        )
    )


def _plain(value: str) -> str:
    """JSON without blanks and with sorted names; other text as it is."""
    if not value.startswith(("{", "[")):
        return value
    try:
        return json.dumps(json.loads(value), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return value


def _unlike(mine: Mapping[str, str], its: Mapping[str, str]) -> tuple[str, str]:
    """Those entries of two mappings that differ, as text."""
    names = sorted(name for name in {*mine, *its} if mine.get(name) != its.get(name))
    return tuple(  # type: ignore[return-value]
        ", ".join(f"{name} {one[name]}".strip() if name in one else f"no {name}" for name in names)
        for one in (mine, its)
    )


def _short(value: object) -> str:
    """For a message: a digest by its beginning, no line longer than it can be read."""
    text = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(value)) or "none"
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
