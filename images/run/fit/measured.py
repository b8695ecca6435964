"""fit's sum held against what vLLM took of a card, line by line.

    python -m images.run.fit.measured RECORD       the record of images/proof/memory/with_vllm.py

Every line keeps its promise or does not: "exact" is the same to 1 MiB, "high" is not below what was seen. Exit code 0
when every line does, 1 when one does not or nothing was measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.version import Version

from images.core import UsageError
from images.matrix import Variant, make_variants, parse_arch
from images.proof.on_card.records import GpuRecord, read_gpu_record
from images.render import Checkout
from images.run.fit.activations import Load
from images.run.fit.backends import backend_for
from images.run.fit.memory import MemorySum, add_up
from images.run.fit.model import Model, model_by_name
from images.run.fit.parallel import Split
from images.run.fit.usable_memory import GIB
from images.run.fit.weights import kv_bytes

EXACT = 2**20
# Logs of vLLM round to hundredths of a GiB.
ROUNDED = int(0.005 * GIB)
# Older versions load what fit adds up to the MiB; newer ones keep buffers that fit estimates.
_EXACT_BELOW = Version("0.14")
_COMPUTING = ("activations, vision", "activations, text", "pictures, encoded", "pictures, as they came")
_OUTSIDE = ("CUDA context", "spare", "NCCL")
Promise = Literal["exact", "high"]


@dataclass(frozen=True)
class Held:
    """A line of the sum in bytes: what fit says, what was seen, what fit promises of it, how closely it was seen."""

    case: str
    line: str
    said: int
    seen: int
    promise: Promise
    within: int = 0

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        if self.promise == "exact":
            return abs(self.said - self.seen) <= EXACT + self.within
        return self.said >= self.seen - self.within

    @property
    def above(self) -> float:
        """How far fit is above what was seen, as a part of it."""
        return self.said / self.seen - 1 if self.seen > 0 else 0.0

    def text(self) -> str:
        """One line for people."""
        verdict = self.promise if self.holds else f"not {self.promise}"
        return f"{self.case}: {self.line}: fit {self.said / GIB:.4f} GiB, seen {self.seen / GIB:.4f} ({verdict})"


def held_lines(record: GpuRecord, variant: Variant) -> tuple[Held, ...]:
    """Every line of every case that a record has measured. ``variant`` is its image."""
    steps = [step for step in record.steps if step.name.startswith("fit: ") and step.verdict == "passed"]
    return tuple(line for step in steps for line in _of_case(step.name[5:], step.facts, record, variant))


def case_sum(case: Mapping[str, Any], record: GpuRecord, variant: Variant, total: int) -> MemorySum:
    """fit's sum for the settings of a case, on a card of which a program has ``total`` bytes."""
    model = _model(case)
    backend = backend_for(model, variant, parse_arch(record.capability))
    load = Load(
        case["length"],
        case["seqs"],
        case["batched"],
        image_tokens=case["image_tokens"],
        images=case["images"],
        graphs=case["graphs"],
    )
    return add_up(model, backend, Split(case["tp"], 1), load, total)


def _model(case: Mapping[str, Any]) -> Model:
    model = model_by_name(str(case["model"]))
    if model is None:
        raise UsageError(
            f"fit has no model {case['model']!r}", do="write the record with images/proof/memory/with_vllm.py"
        )
    return model


def _of_case(name: str, facts: Mapping[str, Any], record: GpuRecord, variant: Variant) -> Iterator[Held]:
    case, worker, logged = facts["case"], facts.get("worker", {}), facts.get("logged", {})
    torch, card = facts.get("torch", {}), facts["card"]
    total = torch.get("total") or card["total"]
    made = case_sum(case, record, variant, total)
    lines = {line.name: line.bytes for line in made.lines}
    version = Version(record.versions["vllm"])

    def both(what: str) -> tuple[int, int] | None:
        """Bytes and how closely they are known: of vLLM's own figures, else of its log."""
        if what in worker:
            return int(worker[what]), 0
        return (int(logged[what]), ROUNDED) if what in logged else None

    if loaded := both("loaded"):
        promise: Promise = "exact" if version < _EXACT_BELOW else "high"
        yield Held(name, "loaded", made.loaded, loaded[0], promise, loaded[1])
    if computing := both("computing"):
        said = sum(lines.get(one, 0) for one in _COMPUTING)
        yield Held(name, "computing", said, computing[0], "high", computing[1])
    cache, tokens = both("cache"), worker.get("tokens") or logged.get("tokens")
    if cache and tokens:
        model = _model(case)
        each = kv_bytes(model, model.shape.layers, case["tp"])
        # A cache is whole blocks of 16 tokens, and a log of tokens may leave out one block.
        yield Held(name, "key-value cache", int(tokens) * each, cache[0], "exact", cache[1] + 32 * each)
    if graphs := both("graphs"):
        yield Held(name, "CUDA graphs", lines.get("CUDA graphs", 0), graphs[0], "high", graphs[1])
    if "outside" in torch:
        said = sum(lines.get(one, 0) for one in (*_OUTSIDE, "CUDA graphs"))
        yield Held(name, "outside of torch", said, int(torch["outside"]), "high")
    # All of it: what vLLM may fill, and what fit leaves outside of that.
    taken = max(card["most"] - card["before"], 0)
    budget = int(case["utilisation"] * total) + sum(lines.get(one, 0) for one in (*_OUTSIDE, "CUDA graphs"))
    yield Held(name, "together", budget, taken, "high")


def table(held: tuple[Held, ...]) -> str:
    """Markdown: a row a line."""
    rows = ["| model | line | `fit`, GiB | seen, GiB | |", "| --- " * 5 + "|"]
    for one in held:
        verdict = one.promise if one.holds else f"**not {one.promise}**"
        rows.append(f"| {one.case} | {one.line} | {one.said / GIB:.3f} | {one.seen / GIB:.3f} | {verdict} |")
    return "\n".join(rows)


def main() -> int:
    """Command line."""
    path = Path(sys.argv[1])
    record = read_gpu_record(path)
    variant = make_variants(Checkout(Path(__file__).parents[3]).matrix()).named(record.variant)
    if variant is None:
        print(f"the matrix has no image {record.variant or 'without a name'}", file=sys.stderr)
        return 1
    held = held_lines(record, variant)
    print("\n".join(one.text() for one in held) or "nothing was measured")
    for step in record.steps:
        if step.verdict != "passed":
            print(f"{step.name}: {step.verdict}: {step.reason}")
    return 0 if held and all(one.holds for one in held) else 1


if __name__ == "__main__":
    sys.exit(main())
