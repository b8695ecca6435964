"""What was made: the stand-ins of an installation, from the list that their own distribution carries.

Cardstock's stand-ins are a distribution of their own, `cardstock-stand-ins`, and its `stand_ins.json` says which file
stands in for what, and which distributions are gone. Nobody has to guess by names or sizes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

DISTRIBUTION = "cardstock-stand-ins"
LIST = "stand_ins.json"
_MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class StandIn:
    """One stand-in. ``file`` is relative to site-packages; sizes are in bytes; ``real_*`` is what it stands in for.

    ``distribution`` is the wheel that brought the real one, ``left_out`` counts its exports that the stand-in has not.
    """

    file: str
    soname: str
    used_for: str
    functions: int
    left_out: dict[str, int]
    size: int
    sha256: str
    real_size: int
    real_sha256: str
    distribution: str


@dataclass(frozen=True)
class Gone:
    """A file that was deleted without a stand-in."""

    file: str
    size: int
    sha256: str
    distribution: str


@dataclass(frozen=True)
class Made:
    """All of it. ``distributions`` are the wheels that are gone whole, as "NAME VERSION"."""

    stand_ins: tuple[StandIn, ...] = ()
    gone: tuple[Gone, ...] = ()
    distributions: tuple[str, ...] = field(default=())


def dumps(made: Made) -> str:
    """The text of `stand_ins.json`."""
    return json.dumps(asdict(made), indent=1, sort_keys=True) + "\n"


def loads(text: str) -> Made:
    """`stand_ins.json`, read. Raises ValueError for what is none."""
    try:
        found = json.loads(text)
        return Made(
            tuple(StandIn(**one) for one in found["stand_ins"]),
            tuple(Gone(**one) for one in found["gone"]),
            tuple(str(one) for one in found["distributions"]),
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no list of stand-ins: {error}") from error


def folders(site: Path) -> list[Path]:
    """The dist-info folders of stand-ins in ``site``: one, or none."""
    return sorted(site.glob(f"{DISTRIBUTION.replace('-', '_')}-*.dist-info"))


def stand_ins_of(site: Path) -> Made:
    """The stand-ins below ``site``; an empty list where there are none. Raises ValueError, OSError."""
    found = folders(site)
    if not found:
        return Made()
    with (found[0] / LIST).open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"the list of stand-ins has more than {_MOST_BYTES} bytes")
    return loads(content.decode("utf-8"))
