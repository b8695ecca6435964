"""Make stand-ins in a site-packages folder, or list those that are there.

    python -m images.device_code.stand_ins SITE --version 0.1.0 --made 'GLOB=USED FOR' ... [--gone GLOB ...]
    python -m images.device_code.stand_ins SITE --list

GLOB is below SITE, and "*" also crosses folders. Exit code 1 where something hinders it: no
file is changed before all stand-ins are made and checked.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from images.device_code.record import RecordError
from images.device_code.stand_ins.made import Made, dumps, stand_ins_of
from images.device_code.stand_ins.names import StandInError
from images.device_code.stand_ins.place import Wish, make


def _wish(word: str) -> Wish:
    glob, equals, used_for = word.partition("=")
    if not glob or not equals or not used_for.strip():
        raise argparse.ArgumentTypeError(f"{word!r}: GLOB=USED FOR was expected")
    return Wish(glob, used_for.strip())


def _version(word: str) -> str:
    if not re.fullmatch(r"[0-9][0-9A-Za-z.+!]{0,63}", word):
        raise argparse.ArgumentTypeError(f"{word!r} is no version")
    return word


def _said(made: Made) -> str:
    lines = [
        f"stand_ins: {one.soname} ({one.used_for}): {one.functions} functions, {one.real_size / 1e6:.1f} MB -> "
        f"{one.size / 1e3:.1f} kB"
        for one in made.stand_ins
    ]
    lines += [f"stand_ins: {one.file}: {one.size / 1e6:.1f} MB gone" for one in made.gone]
    lines += [f"stand_ins: nothing is left of {one}" for one in made.distributions]
    freed = sum(one.real_size - one.size for one in made.stand_ins) + sum(one.size for one in made.gone)
    return "\n".join([*lines, f"stand_ins: {freed / 1e6:.1f} MB of libraries left out"])


def main(words: Sequence[str]) -> int:
    """The command line; exit code 1 where something hinders it, 2 for words it does not know."""
    parser = argparse.ArgumentParser(prog="stand_ins", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("site", type=Path, help="the site-packages folder")
    parser.add_argument("--made", nargs="+", action="extend", type=_wish, default=[], metavar="GLOB=USED FOR")
    parser.add_argument("--gone", nargs="+", action="extend", default=[], metavar="GLOB")
    parser.add_argument("--version", type=_version, help="Cardstock's version")
    parser.add_argument("--list", action="store_true", help="print the list of stand-ins as JSON, and change nothing")
    options = parser.parse_args(words)
    if options.list == bool(options.made or options.gone) or (not options.list and not options.version):
        parser.error("either --list, or --version with --made or --gone")
    try:
        if options.list:
            sys.stdout.write(dumps(stand_ins_of(options.site)))
        else:
            print(_said(make(options.site, options.made, options.gone, options.version)))
    except (StandInError, RecordError, OSError, ValueError, csv.Error) as error:
        print(f"stand_ins: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
