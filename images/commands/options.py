"""What tasks have in common: the selectors as typed, the checkout they work on, how an error ends one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images.core import EngineUnreachable, Report, discard_stdout, print_error
from images.matrix import Matrix, Variant, make_variants
from images.matrix import selection as planning
from images.render import Checkout, compile_templates, lock_states

if TYPE_CHECKING:
    from images.build import Job

CHECKOUT = Checkout(Path(__file__).resolve().parents[2])
ARCH = {"arch": "compute capability, such as 7.5; repeat for more images; '7.0 7.5' is one image for both"}
SELECT = ARCH | {
    "card": "a card's name, such as 'RTX 2080 Ti'; repeat for more images; 'T4, RTX 4090' is one image for both",
    "cuda": "CUDA version of the stack, such as 12.4",
    "attention": "flash-attn, xformers or sdpa",
    "only": "glob on variant ids; repeat for more",
    "all": "every variant that the other selectors allow, not only the recommended one",
    "debug": "show the traceback of an error",
}
LISTS = ["arch", "only", "card"]
WHEELS = {"wheels": "a registry's repository with kernel wheels: fetched before anything is compiled"}
JSON = {"json": "machine-readable, on stdout alone"}


@dataclass(frozen=True)
class Words:
    """The selectors as typed."""

    archs: Sequence[str] = ()
    cuda: str = ""
    attention: str = ""
    only: Sequence[str] = ()
    all: bool = False
    cards: Sequence[str] = ()


def run(action: Callable[[], None], debug: bool = False) -> None:
    """Do it; tell an error in the product's form and exit with its code."""
    try:
        action()
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same again to go on from here\n")
        sys.exit(130)
    except Exception as error:
        sys.exit(print_error(error, debug=debug))


def print_json(data: Any) -> None:
    """Data to stdout."""
    print(json.dumps(data, indent=1))


def selected(words: Words) -> tuple[Any, Any, planning.Selectors]:
    """The checkout's matrix, its variants, and what the words choose among them. Raises UsageError."""
    matrix = CHECKOUT.matrix()
    archs = list(words.archs)
    if words.cards:
        from images.commands._cards import (
            archs_of,  # its list of cards takes half a second, and most commands need none
        )

        archs += archs_of(words.cards, Report())
    wanted = planning.read_selectors(matrix, archs, words.cuda or None, words.attention or None, words.only, words.all)
    return matrix, make_variants(matrix), wanted


def running_engine() -> Any:
    """The engine if one answers; none is started."""
    from images.docker import connect

    try:
        return connect(start=False)
    except EngineUnreachable:
        return None


def jobs(matrix: Matrix, chosen: Iterable[Variant]) -> list[Job]:
    """What builds each of the variants."""
    from images.build import make_job

    states, templates = lock_states(matrix, CHECKOUT.locks), compile_templates(CHECKOUT.templates())
    return [make_job(CHECKOUT, matrix, templates, variant, states[variant.lock]) for variant in chosen]


def locked(matrix: Matrix) -> dict[str, bool]:
    """Which locks are there, whole and as the matrix has their pins: lock -> yes or no."""
    return {name: state == "locked" for name, state in lock_states(matrix, CHECKOUT.locks).items()}
