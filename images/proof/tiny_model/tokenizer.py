"""A byte-level BPE tokenizer of a few hundred tokens, in the form Qwen2.5-VL's own takes.

Bytes come first in the byte-level order (so id 0 is "!", as in the real vocabulary), then the merges that
make each of `FIRST` and `LATER` one token, then Qwen's special tokens.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

# Words that are one token each: at the start of an answer or line, and after a space.
FIRST = "red green blue yellow black white Hello user assistant system".split()
LATER = (
    "red green blue yellow black white and one two from a tiny model picture square colour is the What are Say these"
    " this hello"
).split()
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|>"
    " <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
ROUND = 16
# The pre-tokenizer pattern that Qwen2's tokenizer class builds for itself: another pattern would split otherwise
# under the versions of transformers that ignore the file's.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ['image', 'image_url'] -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes, in vocabulary order: printable Latin-1 first, the rest after."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(256 - len(printable))]


@cache
def merges() -> tuple[tuple[str, str], ...]:
    """Pair merges, in order: the most frequent pair first (ties by text) until every word is one token."""
    words = [list(word) for word in FIRST] + [["Ġ", *word] for word in LATER]
    found: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            return tuple(found)
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        words = [_merge(word, best) for word in words]


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


@cache
def vocabulary() -> dict[str, int]:
    """Text of a token (in byte symbols) to its id, without the special tokens."""
    tokens = byte_symbols() + ["".join(pair) for pair in merges()]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


@cache
def special_ids() -> dict[str, int]:
    """Special token to id; fillers round the vocabulary up to a multiple of `ROUND`."""
    start = len(vocabulary())
    fill = -(start + len(SPECIAL)) % ROUND
    names = [*SPECIAL, *(f"<|filler_{n}|>" for n in range(fill))]
    return {name: start + index for index, name in enumerate(names)}


def vocab_size() -> int:
    """Number of token ids."""
    return len(vocabulary()) + len(special_ids())


def token_id(text: str) -> int:
    """Id of a special token, or of a text that is one token. Raises KeyError for anything else."""
    ids = special_ids()
    return ids[text] if text in ids else vocabulary()[text.replace(" ", "Ġ")]


def _added(name: str, index: int) -> dict[str, object]:
    return {
        "id": index, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": True,
    }  # fmt: skip


def tokenizer_json() -> dict[str, object]:
    """Content of tokenizer.json."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(name, index) for name, index in special_ids().items()],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
                byte_level,
            ],
        },
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocabulary(), "merges": [" ".join(pair) for pair in merges()],
        },
    }  # fmt: skip


def tokenizer_config() -> dict[str, object]:
    """Content of tokenizer_config.json; the class name holds in transformers 4.49 to 5.x."""
    added = {
        str(index): {key: value for key, value in _added(name, index).items() if key != "id"}
        for name, index in special_ids().items()
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL[1:],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
