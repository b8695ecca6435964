"""Two images' answers, speeds, memory and calls compared. Pure, standard library only: the host has nothing else."""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from images.device_code.stand_ins.source import SAID

SAME_SPEED = 0.02
# nvidia-smi counts whole pages of 2 MiB, and a context's own few differ from start to start; a library's code that is
# loaded in one image only is tens of MiB.
MEMORY_SLACK = 16 * 2**20
# Below it a file under a library's name holds no kernels: stand-ins weigh 15 to 190 kB.
STAND_IN_SIZE = 2**19
RESAMPLES = 4000
# Of cuDNN what no image has and nothing calls.
_NOT_CUDNN = "libcudnn_adv"


@dataclass(frozen=True)
class Compared:
    """Answers of two images to the same questions.

    ``first`` says where they first differ, "" where every bit is the same; ``farthest`` is the greatest distance of a
    logprob at places that both reached by the same tokens (0.0 where none was compared).
    """

    answers: int
    same_tokens: int
    same_bits: int
    logprobs: int
    farthest: float
    first: str

    @property
    def identical(self) -> bool:
        """Every token and every bit of every logprob, of one answer at least."""
        return self.answers > 0 and self.same_bits == self.answers


def compare_answers(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Compared:
    """Answers by mode and case, as worker.py writes them. Raises ValueError for unlike questions."""
    mine, others = flat(ours), flat(theirs)
    if mine.keys() != others.keys():
        raise ValueError(f"not the same questions: {sorted(mine.keys() ^ others.keys())[:4]}")
    tokens = bits = logprobs = 0
    farthest, first = 0.0, ""
    for name, answer in mine.items():
        other = others[name]
        tokens += answer["tokens"] == other["tokens"]
        bits += answer == other
        logprobs += sum(map(len, answer["logprobs"]))
        farthest = max(farthest, distance(answer, other))
        if answer != other and not first:
            first = f"{name}, {where(answer, other)}"
    return Compared(len(mine), tokens, bits, logprobs, farthest, first)


def flat(answers: Mapping[str, Any]) -> dict[str, Any]:
    """ "mode: case" -> answer."""
    return {f"{mode}: {case}": one for mode, cases in answers.items() for case, one in cases.items()}


def where(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Where two answers first differ."""
    pairs = zip(ours["tokens"], theirs["tokens"], strict=False)
    for at, (mine, other) in enumerate(pairs):
        if ours["logprobs"][at : at + 1] != theirs["logprobs"][at : at + 1]:
            return f"token {at}: a logprob"
        if mine != other:
            return f"token {at}: {mine}, not {other}"
    return "their lengths" if len(ours["tokens"]) != len(theirs["tokens"]) else "their ends"


def distance(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """Greatest distance of the logprobs of tokens that both tell, up to the first token that differs, that one too."""
    greatest = 0.0
    for at, (mine, other) in enumerate(zip(ours["logprobs"], theirs["logprobs"], strict=False)):
        if at and ours["tokens"][at - 1] != theirs["tokens"][at - 1]:
            break
        known = dict(map(tuple, other))  # [id, hex] pairs
        for token, value in mine:
            if token in known:
                greatest = max(greatest, abs(float.fromhex(value) - float.fromhex(known[token])))
    return greatest


def wrong_answers(answers: Mapping[str, Any], wanted: Mapping[str, Sequence[int]]) -> list[str]:
    """Cases of "taught" that were not answered as they were taught; vLLM tells the end token or leaves it out."""
    said = {name: list(one["tokens"]) for name, one in answers["taught"].items()}
    missing = [f"{name}: not asked" for name in wanted if name not in said]
    ends = {name: (list(tokens), list(tokens[:-1])) for name, tokens in wanted.items()}
    return missing + [
        f"{name}: said {said[name]}, taught {ends[name][0]}" for name in ends if said.get(name, []) not in ends[name]
        and name in said
    ]  # fmt: skip


def unlike_cases(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, list[str]]:
    """Case of with_transformers.py -> what of it differs: "logits", "greedy tokens", "sampled logits"…"""
    out: dict[str, list[str]] = {}
    for name in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(name), theirs.get(name)
        if mine is None or other is None:
            out[name] = ["not in both"]
            continue
        parts = ["logits"] if mine["logits"] != other["logits"] else []
        parts += [
            f"{mode} {what}" for mode in ("greedy", "sampled") for what in ("tokens", "logits")
            if mine[mode][what] != other[mode][what]
        ]  # fmt: skip
        if parts:
            out[name] = parts
    return out


def farthest_logit(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """Of all cases' last places: the greatest distance of a logit over the largest logit's size."""
    ratios = [0.0]
    for name in ours.keys() & theirs.keys():
        mine, other = ours[name]["last place"], theirs[name]["last place"]
        ratios.append(max(map(_gap, mine, other)) / (max(map(abs, other)) or 1.0))
    return max(ratios)


def _gap(one: float, other: float) -> float:
    return abs(one - other)


Kind = Literal["stand-in or smaller", "not there"]


def lacking(light: Mapping[str, int], untouched: Mapping[str, int]) -> dict[str, tuple[Kind, int]]:
    """NVIDIA's libraries that the light image has not: what is under the name there, and the bytes of the real one."""
    out: dict[str, tuple[Kind, int]] = {}
    for name, size in untouched.items():
        if not name.startswith("torch/") and size > STAND_IN_SIZE:
            if name not in light:
                out[name] = ("not there", size)
            elif light[name] < STAND_IN_SIZE:
                out[name] = ("stand-in or smaller", size)
    return out


def has_cudnn(light: Mapping[str, int], untouched: Mapping[str, int]) -> bool:
    """Whether the light image has every part of cuDNN that convolutions are computed by."""
    return not any("libcudnn" in name and _NOT_CUDNN not in name for name in lacking(light, untouched))


def speed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Ratio of two images' speeds in the same turns, its range, and the verdict on SAME_SPEED.

    First turn by turn (what slows the card slows both). Where these spread too far to tell, by each image's fast turns:
    a busy host only ever slows, so the fast ones are what the card can do. "within" where the whole range is, "outside"
    where none of it is, else "open"; "by" says which of the two ways gave it. Raises ValueError for unlike lengths.
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    draw = random.Random(1)  # noqa: S311  (the same resamples at each call)
    medians = [statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)]
    turns = _ratio_told("turns", statistics.median(ratios), medians)
    if turns["verdict"] != "open":
        return turns
    fast = [
        _fast(draw.choices(ours, k=len(ours))) / _fast(draw.choices(theirs, k=len(theirs))) for _ in range(RESAMPLES)
    ]
    return _ratio_told("fast turns", _fast(ours) / _fast(theirs), fast) | {"turns": turns["range"]}


def _fast(speeds: Sequence[float]) -> float:
    """The speed that one turn in ten reaches."""
    return sorted(speeds)[-(-len(speeds) * 9 // 10) - 1]


def _ratio_told(way: str, ratio: float, resampled: list[float]) -> dict[str, Any]:
    """The ratio with its range of 95 of 100 resamples, and what that says."""
    resampled.sort()
    low, high = resampled[RESAMPLES * 25 // 1000], resampled[RESAMPLES * 975 // 1000 - 1]
    within = low >= 1 - SAME_SPEED and high <= 1 + SAME_SPEED
    outside = high < 1 - SAME_SPEED or low > 1 + SAME_SPEED
    return {
        "ratio": round(ratio, 4),
        "range": [round(low, 4), round(high, 4)],
        "verdict": "within" if within else "outside" if outside else "open",
        "by": way,
    }


def memory_of(table: str, processes: Iterable[int]) -> int:
    """Bytes that nvidia-smi counts for these processes; 0 where it tells of none.

    ``table`` is of --query-compute-apps=pid,used_gpu_memory --format=csv,noheader,nounits: "123, 456" in MiB.
    """
    wanted = set(processes)
    rows = re.findall(r"^\s*(\d+)\s*,\s*(\d+)\s*$", table, re.M)
    return sum(int(mib) for pid, mib in rows if int(pid) in wanted) * 2**20


def card_memory(table: str) -> list[int]:
    """Bytes in use on each card: --query-gpu=memory.used with the same format."""
    return [int(word) * 2**20 for word in table.split() if word.isdecimal()]


def calls_told(lines: Iterable[str]) -> list[str]:
    """What a log says of calls of stand-ins."""
    return [line[line.index(SAID) :] for line in lines if SAID in line]
