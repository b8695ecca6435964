"""`invoke bench render`: how long all Dockerfiles and the bake file take, and comparing them with the disk."""

from __future__ import annotations

from collections.abc import Iterable

from bench.frame import bench, medians
from bench.record import Row
from images.matrix import make_variants
from images.render import Checkout, differences, lock_states, render

_LIMIT = 1.0  # seconds: what a person does not wait for


def register(checkout: Checkout) -> None:
    """Make the bench known."""

    @bench("render")
    def rows() -> Iterable[Row]:
        matrix = checkout.matrix()
        variants = make_variants(matrix)
        locked = {name: state == "locked" for name, state in lock_states(matrix, checkout.locks).items()}
        templates = checkout.templates()
        files = render(matrix, variants, templates, locked)
        taken = medians(
            {
                "render": lambda: render(matrix, variants, templates, locked),
                "check": lambda: differences(files, checkout.generated()),
            }
        )
        yield Row("render", f"all {len(files)} generated files", taken["render"], _LIMIT, "s", "limit")
        yield Row("render", "comparing them with those on disk", taken["check"], _LIMIT, "s", "limit")
