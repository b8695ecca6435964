"""A light image against the same with untouched packages, on a host with cards and Docker's CLI.

    PYTHONPATH=CHECKOUT python3 -m images.proof.lighter --light IMAGE --untouched IMAGE \\
        [--old-light IMAGE --old-untouched IMAGE] --out records/cards/NAME.json --scratch FOLDER [--only GLOB]…

Nothing but Python's standard library is needed on the host; the images' Python does the rest. Both images share one
cache of compiled kernels, so that they run the same ones: what is compared is libraries. The record is written after
each step; with the same --out the next run goes on in it. Exit code 0 when nothing failed, 1 when something did, 3
without a card.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from images.core import UTC
from images.docker import Gpus
from images.proof.lighter.containers import LIGHT, UNTOUCHED, Host
from images.proof.lighter.lighter import NOTES, Comparison
from images.proof.on_card.records import GpuRecord, kept_steps
from images.proof.on_card.runs import INPUT, NO_CARD, VARIANT, Run, labels_of, own_checkout


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("light", "untouched"):
        parser.add_argument(f"--{name}", required=True)
        parser.add_argument(f"--old-{name}", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--by", choices=("cdi", "gpus"), default="cdi", help="how this engine gives cards")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for every container")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="these steps only")
    words = parser.parse_args()
    env = dict(pair.split("=", 1) for pair in words.env)
    host = Host(words.scratch.absolute(), own_checkout(), Gpus(-1, cdi=words.by == "cdi"), env)
    host.prepare()
    labels = labels_of(words.light)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    named = labels.get(VARIANT, ""), labels.get(INPUT, "")
    record = GpuRecord("", "", 0, "", made, "image", *named, {}, (), (), NOTES, given=words.by)
    record = kept_steps(record, words.out)
    run = Run(record, words.out, host.scratch, {LIGHT: None, UNTOUCHED: None}, only=tuple(words.only) or ("*",))
    old = {LIGHT: words.old_light, UNTOUCHED: words.old_untouched} if words.old_light else {}
    comparison = Comparison(run, host, {LIGHT: words.light, UNTOUCHED: words.untouched}, old, words.layers)
    comparison.go()
    if not comparison.cards:
        return NO_CARD
    return 0 if run.record.ok else 1


if __name__ == "__main__":
    sys.exit(main())
