"""A fit as command-line flags, container settings and environment, each with one sentence of reason. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from packaging.version import Version

from images.run.fit.backends import Setting
from images.run.fit.choose import LENGTHS, Fit
from images.run.fit.parallel import Obstacle, sizes, try_split
from images.run.fit.start import start_settings, untried

# Below this the processor enlarges a picture (preprocessor_config.json: 4 * 28 * 28).
MIN_PIXELS = 3136
_JSON_LIMITS = Version("0.8.5")


def pixel_limits(fit: Fit) -> tuple[int, int]:
    """The least and most pixels of a picture: it is brought between them before it is cut into patches."""
    return MIN_PIXELS, fit.load.image_tokens * fit.ask.model.shape.vision.pixels_a_token


def shm_gigabytes(fit: Fit) -> int:
    """Shared memory of the container in GiB: vLLM's queues and NCCL's buffers; docker's own 64 MB are too little."""
    return 2 + 2 * fit.ask.count


def server_flags(fit: Fit, user: Sequence[str] = ()) -> list[str]:
    """What follows the image's name; the image's own flags and environment are not repeated.

    ``user`` are words that the server gets beyond these: what would be wrong beside them is left out.
    """
    load, split = fit.load, fit.split
    if not fit.backend.vllm:
        out = ["--dtype", fit.backend.dtype, "--max-model-len", str(load.length)]
        return [*out, "--pipeline-parallel-size", str(split.pp)] if split.pp > 1 else out
    least, most = pixel_limits(fit)
    out = ["--dtype", "half" if fit.backend.dtype == "float16" else fit.backend.dtype]
    if split.tp > 1:
        out += ["--tensor-parallel-size", str(split.tp)]
    if split.pp > 1:
        out += ["--pipeline-parallel-size", str(split.pp)]
    if fit.ask.nodes > 1:
        out += ["--distributed-executor-backend", "ray"]
    if split.whole_vision:
        out += ["--mm-encoder-tp-mode", "data"]
    out += ["--max-model-len", str(load.length), "--max-num-seqs", str(load.seqs)]
    out += ["--max-num-batched-tokens", str(load.batched if fit.backend.chunked else load.length)]
    out += ["--gpu-memory-utilization", f"{fit.sum.utilisation:.2f}"]
    out += ["--limit-mm-per-prompt", _limits(fit)]
    out += ["--mm-processor-kwargs", json.dumps({"min_pixels": least, "max_pixels": most})]
    out += [*fit.backend.flags, *([] if load.graphs else ["--enforce-eager"])]
    return [*out, *start_settings(fit, user).flags]


def _limits(fit: Fit) -> str:
    limits = {"image": fit.load.images, "video": fit.ask.video}
    if fit.backend.version < _JSON_LIMITS:
        return ",".join(f"{name}={count}" for name, count in limits.items())
    return json.dumps(limits)


def environment(fit: Fit, user: Sequence[str] = ()) -> dict[str, str]:
    """Environment of the container: the order of cards that differ, what a start keeps, the transformers server's
    limits on pictures. ``user`` as in `server_flags`."""
    own = dict(fit.backend.environment) | dict(start_settings(fit, user).environment)
    if fit.backend.vllm:
        return own
    least, most = pixel_limits(fit)
    return own | {
        "CARDSTOCK_MIN_PIXELS": str(least),
        "CARDSTOCK_MAX_PIXELS": str(most),
        "CARDSTOCK_MAX_IMAGES": str(fit.load.images),
    }


def unverified(fit: Fit) -> list[str]:
    """Claims of this fit that nobody has tried."""
    claims = [fit.ask.model.shape.unverified] if fit.ask.model.shape.unverified else []
    claims += untried(fit)
    if fit.ask.nodes > 1:
        claims.append(
            "several machines: served by two hosts without cards, and on one host by two containers with an H200 each; "
            "on two hosts with cards not yet"
        )
    if any(note.id == "unproven-below-ampere" for note in fit.ask.variant.notes):
        claims.append("this vLLM on a card below 8.0: not shown by anybody yet")
    if any(note.id == "flashinfer-candidate" for note in fit.ask.variant.notes):
        claims.append("FlashInfer's kernels for 7.5, a candidate: compiled here, no card has run them")
    return claims


def setting_choices(fit: Fit) -> list[Setting]:
    """Each setting, with one sentence of reason and its source."""
    return [*fit.backend.choices, *_cuts(fit), *_loads(fit), *start_settings(fit).choices, *_container(fit)]


def _cuts(fit: Fit) -> list[Setting]:
    ask, split = fit.ask, fit.split
    if split.tp * split.pp == 1:
        return []
    if not fit.backend.vllm:
        why = "one process, device_map: each card holds a run of layers, and one computes at a time"
        return [Setting("cards", f"{split.pp} in a row", why, "dockerfiles/rootfs/opt/cardstock/awq_loader.py")]
    shape = ask.model.shape
    why, source = f"it divides {shape.heads} heads and the width {shape.intermediate}", "vllm/config.py"
    if ask.tp or ask.pp:
        why += f"; {'--tp' if ask.tp else '--pp'} asks for it"
    elif wider := [tp for tp, _ in sizes(ask.count, ask.nodes, fit.backend) if tp > split.tp]:
        against = [try_split(ask.model, fit.backend, tp, ask.count * ask.nodes // tp) for tp in wider]
        no = next((one for one in against if isinstance(one, Obstacle)), None)
        why += f"; {wider[0]} does not: {no.why}" if no else f"; {wider[0]} leaves less for a conversation"
        source = no.source if no else source
    settings = [Setting("tensor parallel size", str(split.tp), why, source)]
    if split.pp > 1:
        row = f"{shape.layers} layers in {split.pp} stages"
        rest = "as asked for" if ask.tp or ask.pp else "the cards that are left"
        why = f"{row}, one for each machine" if ask.nodes == split.pp else f"{row}: {rest}"
        settings.append(
            Setting("pipeline parallel size", str(split.pp), why, "vllm/distributed/utils.py get_pp_indices")
        )
    if split.whole_vision:
        why = f"its width {shape.vision.intermediate} cannot be cut into {split.tp}: each card holds all of it"
        source = "vllm/model_executor/models/qwen2_5_vl.py@v0.11.0"
        settings.append(Setting("vision tower", "--mm-encoder-tp-mode data", why, source))
    return settings


def _loads(fit: Fit) -> list[Setting]:
    load, total, arithmetic = fit.load, fit.sum, "the sum below"
    longer = "more is seldom needed" if load.length == LENGTHS[0] else f"{_longer(load.length)} do not fit"
    settings = [Setting("max_model_len", str(load.length), f"tokens of one conversation; {longer}", arithmetic)]
    _, most = pixel_limits(fit)
    side = round(most**0.5)
    why = f"{load.image_tokens} tokens of {fit.ask.model.shape.vision.pixels_a_token} pixels, such as {side} x {side}"
    why += f"; {load.images} in one request" + ("" if load.video else ", no video, unless --video asks for it")
    settings.append(Setting("max_pixels", str(most), why, "compatibility facts, section 7"))
    if not fit.backend.vllm:
        return settings
    why = f"the cache holds {total.tokens} tokens; requests beyond wait"
    settings.append(Setting("max_num_seqs", str(load.seqs), why, arithmetic))
    why = "a step's tokens" if fit.backend.chunked else "V0 computes a whole prompt at once: as max_model_len"
    batched = load.batched if fit.backend.chunked else load.length
    settings.append(Setting("max_num_batched_tokens", str(batched), why, "vllm/config.py SchedulerConfig"))
    why = "what is left for the CUDA context, graphs and spare is not vLLM's to fill"
    settings.append(Setting("gpu_memory_utilization", f"{total.utilisation:.2f}", why, "vllm/worker/worker.py@v0.8.5"))
    why = "CUDA graphs fit: no --enforce-eager" if load.graphs else "CUDA graphs do not fit beside the rest"
    settings.append(Setting("enforce_eager", str(not load.graphs).lower(), why, arithmetic))
    return settings


def _longer(length: int) -> int:
    return min(known for known in LENGTHS if known > length)


def _container(fit: Fit) -> list[Setting]:
    if not fit.backend.vllm:
        return []
    why = "for vLLM's queues and NCCL; docker gives 64 MB"
    settings = [Setting("--shm-size", f"{shm_gigabytes(fit)}g", why, "vLLM documentation; size unverified")]
    if fit.ask.nodes > 1:
        why = "name the network interface between the machines on each, or NCCL may pick another"
        settings.append(Setting("NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME", "yours", why, "vLLM documentation"))
    return settings
