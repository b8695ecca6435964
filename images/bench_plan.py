"""`invoke bench plan`: how long plan and explain take, on this matrix and on a generated one of 10,000 points."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import yaml

from images.bench import Row, bench, medians
from images.checkout import Checkout
from images.commands import excluded_json, variant_json
from images.matrix import Matrix
from images.matrix_file import parse_matrix
from images.plan import Selectors, explain, select
from images.states import lock_states
from images.variants import make_variants

POINTS = 10_000


def large_matrix(text: str, wanted: int = POINTS) -> Matrix:
    """A matrix of at least ``wanted`` points: the stacks of ``text`` again and again under other names."""
    data = yaml.safe_load(text)
    stacks, defaults = dict(data["stacks"]), dict(data["recommended"]["stacks"])
    lists = len(data["archs"]) + len(data["families"])
    copies = wanted // (lists * len(data["attention"]) * len(stacks)) + 1
    for copy in range(copies):
        for name, stack in stacks.items():
            if stack["cuda"]:
                data["stacks"][f"{name}-{copy}"] = stack
                data["recommended"]["stacks"][f"{name}-{copy}"] = defaults[name]
    return parse_matrix(yaml.safe_dump(data, sort_keys=False), "generated.yaml")


def _answer(matrix: Matrix, states: dict[str, str]) -> Iterator[str]:
    variants = make_variants(matrix)
    every = Selectors(all=True)
    yield json.dumps([variant_json("i", v, states.get(v.lock, "?"), None) for v in select(matrix, variants, every)])
    yield json.dumps([excluded_json(e) for e in explain(matrix, variants, every)])


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("plan")
    def rows() -> Iterable[Row]:
        matrix = checkout.matrix()
        large = large_matrix((checkout.root / "matrix.yaml").read_text(encoding="utf-8"))
        states = dict(lock_states(matrix, checkout.locks))
        sizes = {}
        for name, one in (("this matrix", matrix), ("generated", large)):
            variants = make_variants(one)
            sizes[name] = len(variants.valid) + len(variants.excluded)
        taken = medians(
            {
                "read matrix.yaml": checkout.matrix,
                "lock states": lambda: lock_states(matrix, checkout.locks),
                "this matrix": lambda: list(_answer(matrix, states)),
                "generated": lambda: list(_answer(large, states)),
            }
        )
        yield Row("plan", "read and check matrix.yaml", taken["read matrix.yaml"], 1.0, "s (peer: one second)")
        yield Row("plan", "states of all locks", taken["lock states"], 1.0, "s (peer: one second)")
        for name, count in sizes.items():
            measured = f"plan --all --json and explain --all --json, {name}, {count} points"
            yield Row("plan", measured, taken[name], 1.0, "s (peer: one second)")
