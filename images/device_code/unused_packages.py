"""Installed packages that no server of an image imports: away with them, whole.

Run in a builder stage, standard library only; matrix.yaml says which, for each stack (section `unused`):

    python -m images.device_code.unused_packages SITE [--package NAME]... [--file GLOB]...

A module of its own beside unused.py, which NVIDIA's layer is made with: a change here must not make that anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from images.device_code.distributions import delete, distributions, normal
from images.device_code.record import RecordError
from images.device_code.unused import drop


def drop_packages(site: Path, names: Iterable[str]) -> int:
    """Delete what these distributions installed, scripts and dist-info too; the bytes given back.

    A file that a remaining distribution has as well stays. Raises LookupError for a name that is not installed and
    RecordError for a RECORD with files outside of the environment: nothing is deleted then.
    """
    site = site.resolve()
    wanted = {normal(name) for name in names}
    if not wanted:
        return 0
    there = distributions(site)
    if missing := wanted - {one.name for one in there}:
        raise LookupError(f"not installed: {', '.join(sorted(missing))}")
    going = [one for one in there if one.name in wanted]
    kept = {path for one in there if one.name not in wanted for path in one.rows}
    gone = {path for one in going for path in one.rows} - kept
    environment = site.parents[2]  # /opt/venv of /opt/venv/lib/python3.11/site-packages
    if outside := sorted(path for path in gone if environment not in path.parents):
        raise RecordError(f"{outside[0]} is not below {environment}: no file of an installed package")
    unlisted = {path for one in going for path in one.metadata.rglob("*") if not path.is_dir()}
    return delete(site, gone | unlisted)


def main(words: Sequence[str]) -> int:
    """The command line; exit code 1 for a package that is not there, 2 for words it does not know."""
    site, *rest = words or [""]
    options = list(zip(rest[::2], rest[1::2], strict=False))
    if not site or len(rest) % 2 or any(option not in ("--package", "--file") for option, _ in options):
        print(__doc__, file=sys.stderr)
        return 2
    names = [value for option, value in options if option == "--package"]
    globs = [value for option, value in options if option == "--file"]
    try:
        freed = drop_packages(Path(site), names)
    except (LookupError, RecordError) as error:
        print(f"unused packages: {error.args[0]}; see the section `unused` of matrix.yaml", file=sys.stderr)
        return 1
    freed += drop(Path(site), globs) if globs else 0
    print(f"unused packages: {freed / 1e6:.1f} MB of {len(names)} packages and {len(globs)} globs dropped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
