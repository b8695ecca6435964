"""The transformers backend of the server: prompts and pictures in, tokens out. The only part that needs torch.

Sampling is done here, in a logits processor that leaves `generate` one token to choose: the same in every version
of transformers, repeatable by seed, and log-probabilities are the model's own, before temperature.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from awq_loader import load_model  # type: ignore[import-not-found,unused-ignore]
from chat import Chat, Image, Sampling, Token, token_limit  # type: ignore[import-not-found,unused-ignore]
from picture_size import resized  # type: ignore[import-not-found,unused-ignore]
from pictures import begin_picture, open_picture  # type: ignore[import-not-found,unused-ignore]

DTYPES = {
    "half": torch.float16, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "float": torch.float32, "float32": torch.float32,
}  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """A prompt ready for the model: keyword arguments for generate, and its length in tokens."""

    inputs: dict[str, Any]
    length: int


def pick_dtype(name: str, config: dict[str, Any], device: torch.device) -> torch.dtype:
    """The dtype of ``name``; "auto" is float32 on a CPU, the checkpoint's on a card, float16 where bfloat16 is not."""
    if name != "auto":
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    wanted = DTYPES.get(str(config.get("torch_dtype") or config.get("dtype")), torch.float16)
    old = torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float16 if old and wanted == torch.bfloat16 else wanted


class _Sampler:
    """A logits processor that chooses, reports and forces one token a step."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self.generator = torch.Generator(device)
        if sampling.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(sampling.seed % 2**63)
        self.token = Token(-1)

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raw = scores[0].float()
        chosen = self._choose(ids[0], raw)
        self.token = self._token(chosen, raw)
        forced = torch.full_like(scores, float("-inf"))
        forced[0, chosen] = 0
        return forced

    def _choose(self, ids: torch.Tensor, raw: torch.Tensor) -> int:
        sampling, logits = self.sampling, raw
        if sampling.repetition_penalty != 1:
            logits = raw.clone()
            seen = torch.unique(ids)
            before = raw[seen]
            penalty = sampling.repetition_penalty
            logits[seen] = torch.where(before > 0, before / penalty, before * penalty)
        if sampling.temperature < 1e-5 or sampling.top_k == 1:
            return int(logits.argmax())
        chances, order = torch.softmax(logits / sampling.temperature, 0).sort(descending=True)
        if sampling.top_k:
            chances[sampling.top_k :] = 0
        chances[chances.cumsum(0) - chances > sampling.top_p] = 0
        return int(order[torch.multinomial(chances, 1, generator=self.generator)])

    def _token(self, chosen: int, raw: torch.Tensor) -> Token:
        if not self.sampling.logprobs:
            return Token(chosen)
        chances = torch.log_softmax(raw, 0)
        best = chances.topk(max(1, self.sampling.top_logprobs))
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Token(chosen, float(chances[chosen]), top if self.sampling.top_logprobs else ())


class Transformers:
    """A model on transformers. One `generate` at a time; `prepare` may run beside it."""

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str = "auto",
        attention: str = "sdpa",
        devices: Sequence[str] = (),
        max_model_len: int | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        dequantised: bool = False,
    ) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig

        config = json.loads((folder / "config.json").read_text())
        places = list(devices) or ["cuda:0" if torch.cuda.is_available() else "cpu"]
        self.device = torch.device(places[0])
        self.dtype = pick_dtype(dtype, config, self.device)
        self.model = load_model(folder, dtype=self.dtype, attention=attention, devices=places, dequantised=dequantised)
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        pixels = {name: value for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if value}
        self.pictures = AutoImageProcessor.from_pretrained(str(folder), trust_remote_code=False, **pixels)
        self.template = _template(folder)
        text = config.get("text_config", config)
        self.max_model_len = min(max_model_len or 2**31, int(text["max_position_embeddings"]))
        self.image_token = int(config["image_token_id"])
        self.vision_tokens = {name: int(config[name]) for name in ("image_token_id", "video_token_id")}
        self.merge = int(config["vision_config"].get("spatial_merge_size", 2)) ** 2
        self.defaults, self.ends = _generation(folder, self.tokenizer)
        # transformers fills what a request leaves unset (sampling, penalties) from the model's own: leave none there.
        self.model.generation_config = GenerationConfig(
            bos_token_id=self.tokenizer.bos_token_id, eos_token_id=sorted(self.ends), pad_token_id=min(self.ends)
        )
        self.wants_types = "mm_token_type_ids" in inspect.signature(self.model.forward).parameters
        self.healthy = True

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _resized(self, data: bytes) -> tuple[int, int]:
        """Pixels of a picture as it came, and as the model will see it. Raises ApiError 400."""
        width, height = begin_picture(data).size
        size = self.pictures.size
        least = getattr(self.pictures, "min_pixels", None) or size["shortest_edge"]
        most = getattr(self.pictures, "max_pixels", None) or size["longest_edge"]
        factor = self.pictures.patch_size * self.pictures.merge_size
        try:
            wide, high = resized(width, height, factor, least, most)
        except ValueError as error:
            message = f"the picture cannot be used: {error}"
            raise ApiError(400, message, param="messages", code="invalid_image") from error
        return width * height, wide * high

    def pixels(self, pictures: Sequence[bytes]) -> tuple[int, int]:
        """Pixels that `prepare` holds while it opens them, one at a time, and those that the prompt holds then.

        Only headers are read. Raises ApiError 400 for a bad picture.
        """
        sizes = [self._resized(data) for data in pictures]
        kept = sum(after for _, after in sizes)
        return kept + max((before for before, _ in sizes), default=0), kept

    def prepare(self, chat: Chat, pictures: Sequence[bytes]) -> Prompt:
        """Template, tokens and patches. Raises ApiError 400 for a bad picture, and for a prompt that is too long
        before a picture is opened.
        """
        messages = [{"role": m.role, "content": _content(m.parts)} for m in chat.messages]
        text = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
        )
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        marks = sum(ids.count(token) for token in self.vision_tokens.values())
        if marks != len(pictures):
            raise ApiError(400, "the text holds picture or video marks of the model's own", param="messages")
        patch = self.pictures.patch_size**2 * self.merge  # pixels of a token
        counts = [self._resized(data)[1] // patch for data in pictures]
        token_limit(chat.sampling, len(ids) + sum(counts) - len(counts), self.max_model_len)
        inputs: dict[str, Any] = {}
        if pictures:
            inputs = self._patches(pictures, sum(counts) * self.merge)
            tokens = iter([int(grid.prod()) // self.merge for grid in inputs["image_grid_thw"]])
            ids = [token for at in ids for token in [at] * (next(tokens) if at == self.image_token else 1)]
        inputs["input_ids"] = torch.tensor([ids])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if self.wants_types:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.image_token).int()
        return Prompt(inputs, len(ids))

    def _patches(self, pictures: Sequence[bytes], rows: int) -> dict[str, Any]:
        """Opened and cut into ``rows`` patches one after the other, so that no two are there as pixels."""
        values: torch.Tensor | None = None
        grids, at = [], 0
        for data in pictures:
            try:
                out = self.pictures(images=[open_picture(data)], return_tensors="pt")
            except ValueError as error:
                message = f"the picture cannot be used: {error}"
                raise ApiError(400, message, param="messages", code="invalid_image") from error
            one = out["pixel_values"]
            if values is None:
                values = one if len(pictures) == 1 else one.new_empty((rows, one.shape[1]))
            if len(pictures) > 1:
                values[at : at + len(one)] = one
            at += len(one)
            grids.append(out["image_grid_thw"])
        return {"pixel_values": values, "image_grid_thw": torch.cat(grids)}

    def generate(self, prompt: Prompt, sampling: Sampling, limit: int, emit: Callable[[Token], bool]) -> None:
        """Call ``emit`` with each token, at most ``limit``, until it returns true. Raises ApiError 503 (memory)."""
        try:
            self._generate(prompt, sampling, limit, emit)
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise ApiError(503, "out of GPU memory: send smaller pictures or ask for fewer tokens") from error
        except RuntimeError as error:
            if "CUDA error" in str(error):  # the process's CUDA context is lost: only a restart helps
                self.healthy = False
            raise

    def _generate(self, prompt: Prompt, sampling: Sampling, limit: int, emit: Callable[[Token], bool]) -> None:
        sampler = _Sampler(sampling, self.device)

        def stopping(ids: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
            return torch.full((ids.shape[0],), emit(sampler.token), dtype=torch.bool, device=ids.device)

        with torch.inference_mode():
            self.model.generate(
                **{name: value.to(self.device) for name, value in prompt.inputs.items()},
                max_new_tokens=limit,
                do_sample=False,
                logits_processor=[sampler],
                stopping_criteria=[stopping],
            )


def _content(parts: Sequence[str | Image]) -> Any:
    if all(isinstance(part, str) for part in parts):
        return "".join(part for part in parts if isinstance(part, str))
    return [{"type": "image"} if isinstance(part, Image) else {"type": "text", "text": part} for part in parts]


def _template(folder: Path) -> str | None:
    """The chat template of the folder's own files; None: the one in the tokenizer's settings."""
    if (folder / "chat_template.jinja").exists():
        return (folder / "chat_template.jinja").read_text()
    if (folder / "chat_template.json").exists():
        return str(json.loads((folder / "chat_template.json").read_text())["chat_template"])
    return None


def _generation(folder: Path, tokenizer: Any) -> tuple[Sampling, frozenset[int]]:
    """Default sampling and the ids that end an answer, from generation_config.json as vLLM takes them."""
    path = folder / "generation_config.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    ends = found.get("eos_token_id", tokenizer.eos_token_id)
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    defaults = Sampling(**{name: found[name] for name in names if found.get(name) is not None})
    return defaults, frozenset(ends if isinstance(ends, list) else [ends])
