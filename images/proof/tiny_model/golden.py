"""Make the golden answers of the tiny checkpoints, with torch and transformers (not in the development environment).

    python -m images.proof.tiny_model.golden            write golden/*.json from the checkpoints as they are
    python -m images.proof.tiny_model.golden --check    make them again and compare: equal answers, near logits
    python -m images.proof.tiny_model.golden --teach    first make the taught rows of the output heads
    --family qwen3_vl                                   one family alone

The golden logits are those of float32 weights (AWQ unpacked), transformers' eager attention, on a CPU. Teaching is
one ridge regression: the hidden states of a random model at the places of the answers are features good enough to
tell colours apart. It makes the right token lead clearly, which is what lets engines of lower precision be held to
the same greedy tokens. Its result is committed as bytes, since a regression is not the same on every machine.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import platform
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from images.core import write_atomically
from images.proof.tiny_model import checkpoint, picture, tokenizer
from images.proof.tiny_model.checkpoint import FAMILIES, QWEN2_5, Tiny

ROOTFS = Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"
END = "<|im_end|>"
# A picture's name says its colour, width and height.
SIZES = ((140, 112), (112, 112), (112, 140), (168, 112), (84, 112), (140, 168), (168, 168))
LEAD, RIDGE = 12.0, 0.03


@dataclass(frozen=True)
class Case:
    """A conversation with pictures (colour, width, height) and the answer's tokens, each one token's text."""

    name: str
    messages: tuple[dict[str, Any], ...]
    pictures: tuple[tuple[str, int, int], ...]
    answer: tuple[str, ...]


def _ask(text: str, pictures: int) -> tuple[dict[str, Any], ...]:
    if not pictures:
        return ({"role": "system", "content": "You are a tiny model."}, {"role": "user", "content": text})
    parts = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]
    return ({"role": "user", "content": parts},)


def text_case() -> Case:
    """No picture, a system message."""
    return Case("text", _ask("Say hello", 0), (), ("Hello", " from", " a", " tiny", " model", END))


def one(colour: str, width: int = 140, height: int = 112) -> Case:
    """One picture, its colour asked."""
    question = _ask("What colour is the square?", 1)
    return Case(f"picture-{colour}", question, ((colour, width, height),), (colour, END))


def two(first: str, second: str, width: int = 140, height: int = 112) -> Case:
    """Two pictures, their colours asked in order."""
    pictures = ((first, width, height), (second, 112, 112))
    answer = (first, " and", f" {second}", END)
    return Case(f"pictures-{first}-{second}", _ask("What are these?", 2), pictures, answer)


def golden_cases(tiny: Tiny = QWEN2_5) -> list[Case]:
    """What every image is asked."""
    return [_sized(case, tiny) for case in (text_case(), one("red"), one("blue"), two("green", "yellow"))]


def lessons(tiny: Tiny = QWEN2_5) -> list[Case]:
    """What the head is taught: every colour in several sizes, every ordered pair, the text."""
    return [_sized(case, tiny) for case in _lessons()]


def _sized(case: Case, tiny: Tiny) -> Case:
    """The case with pictures of the family's own patches: as many tokens each, so never resized."""
    pictures = ((colour, width * tiny.side // 28, height * tiny.side // 28) for colour, width, height in case.pictures)
    return replace(case, pictures=tuple(pictures))


def _lessons() -> Iterator[Case]:
    yield text_case()
    for colour in picture.COLOURS:
        yield from (one(colour, *size) for size in SIZES)
    for first in picture.COLOURS:
        yield from (two(first, second) for second in picture.COLOURS if second != first)


def picture_name(spec: tuple[str, int, int]) -> str:
    """Key of a picture in golden.json."""
    return f"{spec[0]}-{spec[1]}x{spec[2]}"


def _picture_record(spec: tuple[str, int, int]) -> dict[str, Any]:
    colour, width, height = spec
    raw = zlib.compress(picture.pixels(colour, width, height), 9)
    return {"colour": colour, "width": width, "height": height, "rgb_zlib": base64.b64encode(raw).decode()}


def _render(case: Case) -> str:
    """The chat template, by hand: what a Jinja engine makes of it is checked in the image against the golden ids."""
    out = []
    for message in case.messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "".join(part.get("text", "<|vision_start|><|image_pad|><|vision_end|>") for part in parts)
        out.append(f"<|im_start|>{message['role']}\n{text}<|im_end|>\n")
    return "".join(out) + "<|im_start|>assistant\n"


def question(canary: Any, encode: Any, cases: list[Case], tiny: Tiny = QWEN2_5) -> dict[str, Any]:
    """The part of golden.json that is input: settings, pictures, and for each case its ids and answer."""
    ids = tokenizer.special_ids()
    specs = dict.fromkeys(spec for case in cases for spec in case.pictures)
    golden: dict[str, Any] = {
        "mean": list(tiny.mean), "std": list(tiny.std), "image_token_id": ids["<|image_pad|>"],
        "pictures": {picture_name(spec): _picture_record(spec) for spec in specs}, "cases": [],
    }  # fmt: skip
    if tiny.side != 28:
        golden["patch"] = tiny.side // 2
    for case in cases:
        record: dict[str, Any] = {
            "name": case.name, "messages": list(case.messages), "pictures": [picture_name(p) for p in case.pictures],
            "text": "".join(token for token in case.answer if token != END),
            "tokens": [tokenizer.token_id(token) for token in case.answer],
        }  # fmt: skip
        record["input_ids"] = canary.expand(encode(_render(case)), golden, record)
        golden["cases"].append(record)
    return golden


def _inside(name: str) -> Any:
    """A module that runs inside images: canary (numpy only) or awq_loader (torch)."""
    if str(ROOTFS) not in sys.path:
        sys.path.insert(0, str(ROOTFS))
    return importlib.import_module(name)


def _load(folder: Path, **how: Any) -> tuple[Any, Any]:
    import torch
    from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]

    text = Tokenizer.from_file(str(folder / "tokenizer.json"))
    exact = {"dtype": torch.float32, "attention": "eager", "dequantised": True}
    model = _inside("awq_loader").load_model(folder, **{**exact, **how})
    return model, lambda line: text.encode(line, add_special_tokens=False).ids


def teach(tiny: Tiny = QWEN2_5) -> dict[str, Any]:
    """Rows of the output head for the answers' tokens: {token: {int8: base64, shift}}."""
    canary = _inside("canary")
    cases = lessons(tiny)
    with tempfile.TemporaryDirectory() as scratch:
        model, encode = _load(checkpoint.write_checkpoint(Path(scratch) / "tiny", tiny).folder)
        golden = question(canary, encode, cases, tiny)
        seen: list[Any] = []
        model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].double().numpy()))
        features, said = [], []
        for case in golden["cases"]:
            seen.clear()
            canary.forward_logits(model, golden, case, "cpu")
            features.append(seen[0][-len(case["tokens"]) :])
            said += case["tokens"]
    matrix = np.concatenate(features)
    tokens = sorted(set(said))
    target = LEAD * (np.array(said)[:, None] == np.array(tokens)[None, :])
    rows = np.linalg.solve(matrix.T @ matrix + RIDGE * len(matrix) * np.eye(matrix.shape[1]), matrix.T @ target).T
    names = {tokenizer.token_id(token): token for case in cases for token in case.answer}
    return {names[token]: _quantise(row) for token, row in zip(tokens, rows, strict=True)}


def _quantise(row: Any) -> dict[str, Any]:
    shift = int(np.floor(np.log2(127 / np.abs(row).max())))
    values = np.round(row * 2.0**shift).astype(np.int8)
    return {"shift": shift, "int8": base64.b64encode(values.tobytes()).decode()}


def make(tiny: Tiny = QWEN2_5) -> dict[str, Any]:
    """Content of golden.json. Raises SystemExit when the model's greedy answer is not the taught one."""
    import tokenizers  # type: ignore[import-not-found,unused-ignore]

    canary = _inside("canary")
    with tempfile.TemporaryDirectory() as scratch:
        info = checkpoint.write_checkpoint(Path(scratch) / "tiny", tiny)
        model, encode = _load(info.folder)
        golden = question(canary, encode, golden_cases(tiny), tiny)
        for case in golden["cases"]:
            greedy = canary.greedy_tokens(model, golden, case, "cpu")
            if greedy != case["tokens"]:
                raise SystemExit(f"case {case['name']}: greedy {greedy}, taught {case['tokens']}: teach again")
            logits = canary.forward_logits(model, golden, case, "cpu").astype("<f4")
            ranked = np.sort(logits, axis=1)
            case["gaps"] = [round(float(gap), 3) for gap in ranked[:, -1] - ranked[:, -2]]
            case["logits"] = base64.b64encode(zlib.compress(logits.tobytes(), 9)).decode()
    made = {**canary.versions(), "tokenizers": tokenizers.__version__, "machine": platform.machine()}
    how = "float32, AWQ weights unpacked, eager attention, CPU"
    head = {} if tiny.head else {"head": tiny.taught()}
    told = {"format": 1, "made_with": made, "how": how, "tolerance": canary.TOLERANCE, "sha256": info.sha256}
    return {**told, **golden, **head}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two golden files, beyond who made them and the tolerance on logits."""
    canary = _inside("canary")
    out = [f"{key} differs" for key in ("format", "sha256", "mean", "std", "image_token_id") if old[key] != new[key]]
    for key in sorted({*old["pictures"], *new["pictures"]}):
        pair = [canary.decode_picture(side["pictures"][key]) for side in (old, new) if key in side["pictures"]]
        if len(pair) != 2 or not np.array_equal(*pair):
            out.append(f"picture {key} differs")
    if [case["name"] for case in old["cases"]] != [case["name"] for case in new["cases"]]:
        return [*out, "the cases differ"]
    for before, now in zip(old["cases"], new["cases"], strict=True):
        keys = ("messages", "pictures", "text", "tokens", "input_ids")
        out += [f"case {now['name']}: {key} differs" for key in keys if before[key] != now[key]]
        if before["tokens"] != now["tokens"]:
            continue
        check = canary.compare(now["name"], canary.decode_logits(now), canary.decode_logits(before))
        out += [] if check.ok else [f"case {now['name']}: {check.detail}"]
    return out


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0, or 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description="Make or check the golden answers of the tiny checkpoint.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--teach", action="store_true")
    parser.add_argument("--family", choices=[tiny.family for tiny in FAMILIES], help="this one alone")
    args = parser.parse_args(arguments)
    chosen = [tiny for tiny in FAMILIES if args.family in (None, tiny.family)]
    # Every family is made, whatever another one gave.
    return max([_one(tiny, teaching=args.teach, checking=args.check) for tiny in chosen])


def _one(tiny: Tiny, *, teaching: bool, checking: bool) -> int:
    """One family's golden answers written, or compared; 1 when --check finds a difference."""
    if teaching:
        rows = teach(tiny)
        content = rows if tiny.head else {"head": rows}
        write_atomically(tiny.head or tiny.golden, json.dumps(content, indent=1) + "\n")
    golden = make(tiny)
    for case in golden["cases"]:
        print(f"{tiny.family} {case['name']}: {case['text']!r}, leads {case['gaps']}", file=sys.stderr)
    if not checking:
        write_atomically(tiny.golden, json.dumps(golden, indent=1) + "\n")
        return 0
    found = differences(json.loads(tiny.golden.read_text()), golden)
    print("\n".join(found) or f"{tiny.golden.name} is what this environment makes", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
