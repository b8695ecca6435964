"""An image's server made to believe that this host's newer card is another one: what it decides there, and answers.

    PYTHONPATH=CHECKOUT python3 -m images.proof.acting --image IMAGE --card T4 [--card L4]… \\
        --out records/cards/NAME.json --scratch FOLDER [--only GLOB]… [--at-once N] [--seconds S]

Run on a host with a card of 9.0 or newer, Docker's CLI and Python alone; the image must hold code for that card. For
each acted card it takes the environment that the image of the same stack for that card has (flags, arch list), so that
the server decides as that image does. The record is written after each step; with the same --out the next run goes on
in it. Each server has a limit of time. What this shows and what it does not is in docs/acting.md. Exit code 0 when
nothing failed, 1 when something did, 3 without a card.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path

from images.core import UTC
from images.proof.acting.acting import NOTES, Acting
from images.proof.acting.cards import CARDS, acted_card
from images.proof.acting.containers import ActingHost
from images.proof.on_card.records import GpuRecord, kept_steps
from images.proof.on_card.runs import INPUT, NO_CARD, VARIANT, Run, gpus_of, labels_of, own_checkout


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--card", action="append", default=[], metavar="NAME", help="all, where none is named")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=36, help="of the 3B shape's text model")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds until a server must be healthy")
    parser.add_argument("--seconds", type=float, default=1e9, help="no server is started when these are nearly over")
    parser.add_argument("--at-once", type=int, default=1, help="cards that are acted side by side")
    parser.add_argument("--no-planted", action="store_true", help="no planted mistakes")
    parser.add_argument("--by", choices=("cdi", "gpus"), default="cdi", help="how this engine gives cards")
    parser.add_argument("--device", action="append", default=[], help="this card of the host alone, such as 1; repeat")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for every container")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="these steps only")
    return parser.parse_args()


def main() -> int:
    """Run it."""
    begun = time.monotonic()
    words = parse()
    cards = [acted_card(name) for name in words.card] or list(CARDS)
    env = dict(pair.split("=", 1) for pair in words.env)
    gpus = gpus_of(words.device, words.by)
    host = ActingHost(words.image, words.scratch.absolute(), own_checkout(), gpus, env, words.at_once > 1)
    host.prepare()
    labels = labels_of(words.image)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    named = labels.get(VARIANT, ""), labels.get(INPUT, "")
    record = GpuRecord("", "", 0, "", made, "image", *named, {}, (), (), NOTES, given=words.by)
    run = Run(kept_steps(record, words.out), words.out, host.scratch, {"image": None}, only=tuple(words.only) or ("*",))
    acting = Acting(run, host, cards, words.limit, begun + words.seconds)
    acting.go(words.layers, words.at_once, not words.no_planted)
    if not run.record.card:
        return NO_CARD
    return 0 if run.record.ok else 1


if __name__ == "__main__":
    sys.exit(main())
