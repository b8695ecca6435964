"""What a model's name says, read whole or not at all: fit's own names, published checkpoints, copies of others. Pure.

What is known of a published checkpoint holds for that repository alone. The name of anybody else's says what its owner
calls it: it is believed only where the config.json cannot be had, only where each word of it is understood, and what
was taken for granted is told.
"""

from __future__ import annotations

import re
from dataclasses import replace

from images.core import UsageError
from images.run.fit.model import Model, model_by_name

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_REVISION = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)[@:](?P<of>[\w./-]+)", re.ASCII)
# Where people copy names from.
_PAGES = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com|modelscope\.(?:cn|ai)/models)/")
_COPY = re.compile(r"(?P<base>qwen[\d.]*-vl-(?P<size>\d+b)-instruct)(?:-(?P<form>[a-z0-9._-]+))?")
# Words for forms of weights as repositories have them, and fit's own for the same. A word that is not here is not
# understood; GPTQ alone does not say how many bits.
_FORMS = {
    "awq": "awq",
    "gptq-int4": "gptq",
    "gptq-int8": "gptq-int8",
    "fp8": "fp8",
    "fp8-dynamic": "fp8",
    "w4a16": "w4a16",
    "quantized.w4a16": "w4a16",
    "w8a8": "w8a8",
    "quantized.w8a8": "w8a8",
}
_ANY_SIZE = "7b"
# Files for other programs, by the word that their names carry.
_OTHERS = {
    "gguf": "GGUF files are for llama.cpp and ollama; the images read safetensors",
    "mlx": "MLX is for Apple's processors",
    "exl2": "EXL2 is ExLlama's own form, which neither vLLM nor transformers reads",
    "exl3": "EXL3 is ExLlama's own form, which neither vLLM nor transformers reads",
    "onnx": "ONNX is for onnxruntime; the images read safetensors",
    "openvino": "OpenVINO's form is for Intel's processors",
    "lora": "a LoRA adapter is no model of its own: merge it into one, or name the one it was made of",
}
_OTHERS["adapter"] = _OTHERS["lora"]
_ADAPTERS = {"lora", "adapter"}
FORMS_TOLD = (
    "7b-awq, qwen2-vl-7b, qwen3-vl-8b and their like (docs/fit.md); a repository OWNER/NAME; or a model's folder"
)


def typed_name(text: str) -> str:
    """The text without blanks around it, and without the address of a hub's page before it."""
    plain = text.strip()
    page = _PAGES.match(plain)
    if page:
        return "/".join(plain[page.end() :].split("/")[:2])
    return plain.rstrip("/") if is_repository(plain.rstrip("/")) else plain


def is_repository(text: str) -> bool:
    """Whether it has the form OWNER/NAME."""
    return bool(_REPOSITORY.fullmatch(text)) and not text.startswith(".")


def published(text: str) -> Model | None:
    """The model of one of fit's own names ("7b-awq"), or of a published checkpoint by its exact name; else None.

    Raises UsageError for a short name of a size or form that there is not.
    """
    plain = typed_name(text)
    if "/" in plain or "instruct" in plain.lower():
        found = _known(plain)
        same = found is not None and found.source.lower() in (plain.lower(), f"qwen/{plain.lower()}")
        return found if same else None
    return model_by_name(plain)


def refuse_others(text: str) -> None:
    """Raises UsageError for a name that says that its files are for another program."""
    owner, _, name = typed_name(text).rpartition("/")
    words = set(re.split(r"[-_.]", name.lower())) | set(re.split(r"[-_.]", owner.lower()))
    for word in sorted((words & set(_OTHERS)) - (_ADAPTERS if "merged" in words else set())):
        raise UsageError(
            f"{text} is nothing that the images serve",
            cause=_OTHERS[word],
            do="the model itself, in 16 bits, AWQ or GPTQ, such as 7b-awq",
        )


def by_name_alone(text: str) -> Model | None:
    """What the name of somebody's repository says, where each word of it is understood; None where one is not.

    The shapes are those of the model it is named after, without what is known of the published form of it (the padding
    of 72B's AWQ): ``unverified`` says that. ``called`` keeps the owner.
    """
    plain = typed_name(text)
    match = _COPY.fullmatch(plain.rpartition("/")[2].lower())
    if match is None or not is_repository(plain):
        return None
    whole, form = _known(match["base"]), match["form"] or ""
    if whole is None or (form and form not in _FORMS):
        return None
    formed = _known(f"{_ANY_SIZE}-{_FORMS[form]}") if form else whole
    return None if formed is None else assumed(replace(formed, shape=whole.shape), plain, whole)


def assumed(model: Model, text: str, whole: Model) -> Model:
    """The model under the name that its owner gave it, with a sentence on what nobody looked at."""
    shape = f"the shape of {whole.source or whole.name}"
    kept = "" if model.form == "16-bit" else ", the usual groups of its form, a vision tower in 16 bits"
    told = f"the config.json of {text} was not read; taken for granted: {shape}{kept}"
    return replace(model, shape=replace(model.shape, unverified=told), source=text, called=text)


def not_understood(text: str) -> UsageError:
    """The error for a name that cannot be summed by guess, with the ways to say what it is."""
    plain = typed_name(text)
    if not plain:
        return UsageError("which model?", do=FORMS_TOLD)
    if revision := _REVISION.fullmatch(plain):
        of = revision["of"]
        return UsageError(
            f"{plain} names a revision", do=f"--model {revision['name']}, and for the server --flag '--revision {of}'"
        )
    if not is_repository(plain):
        return UsageError(f"no model is called {text!r}", do=FORMS_TOLD)
    name = plain.rpartition("/")[2]
    match = _COPY.match(name.lower())
    # What follows the longest part that is understood.
    rest = name[match.end("base") :].lstrip("-._") if match else name
    return UsageError(
        f"the name {plain} does not tell what it holds",
        cause=f"{rest!r} in it is not understood, and a sum of a guess would be wrong; its config.json says what it is",
        do=f"--config FILE with the config.json of {plain}, or --model with the folder it was downloaded to; or a "
        "name of fit's own, such as 7b-awq",
    )


def _known(text: str) -> Model | None:
    """The same without errors: a size that there is not is somebody's own."""
    try:
        return model_by_name(text)
    except UsageError:
        return None
