"""What a card can run of a library's device code, by the driver's own rule. Pure: values in, values out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from images.device_code.capability import Capability, read_capability
from images.device_code.model import OTHER, PTX, SASS, Container, Entry, Library

NATIVE, LOWER, JIT, PARTLY, NONE, NO_CODE = "native", "lower minor", "ptx", "partly", "none", "no device code"
UNKNOWN = "unknown"  # some code cannot be read, or is of a kind that only the driver or a linker compiles
_COVERING = (NATIVE, LOWER, JIT, NO_CODE)

__all__ = [
    "Capability",
    "Verdict",
    "covers",
    "driver_for",
    "judge",
    "label",
    "labels",
    "parse_capability",
    "pick",
    "runs",
]

# Version of the PTX language: the CUDA release that brought it, and the first driver branch that compiles it
# (release history in NVIDIA's PTX ISA document).
_PTX_RELEASES = {
    (6, 0): ("9.0", 384),
    (6, 1): ("9.1", 387),
    (6, 2): ("9.2", 396),
    (6, 3): ("10.0", 410),
    (6, 4): ("10.1", 418),
    (6, 5): ("10.2", 440),
    (7, 0): ("11.0", 445),
    (7, 1): ("11.1", 455),
    (7, 2): ("11.2", 460),
    (7, 3): ("11.3", 465),
    (7, 4): ("11.4", 470),
    (7, 5): ("11.5", 495),
    (7, 6): ("11.6", 510),
    (7, 7): ("11.7", 515),
    (7, 8): ("11.8", 520),
    (8, 0): ("12.0", 525),
    (8, 1): ("12.1", 530),
    (8, 2): ("12.2", 535),
    (8, 3): ("12.3", 545),
    (8, 4): ("12.4", 550),
    (8, 5): ("12.5", 555),
    (8, 6): ("12.7", 565),
    (8, 7): ("12.8", 570),
    (8, 8): ("12.9", 575),
    (9, 0): ("13.0", 580),
    (9, 1): ("13.1", 590),
}


@dataclass(frozen=True)
class Verdict:
    """What one card can run of one library.

    ``kind`` is the worst way that any container runs: NATIVE, LOWER (SASS of a lower minor), JIT (some is compiled
    from PTX); PARTLY if some containers have nothing for the card, NONE if all have; UNKNOWN where what cannot be read
    may be for it; NO_CODE for no container at all. ``lacking`` are those containers, of ``containers`` in all; ``ptx``
    the newest PTX language that must be compiled; ``linked`` says that the driver links it when it loads the library.
    """

    capability: Capability
    kind: str
    containers: int
    lacking: tuple[Container, ...] = ()
    ptx: tuple[int, int] | None = None
    linked: bool = False

    @property
    def covers(self) -> bool:
        """Whether every container has something that the card can run."""
        return self.kind in _COVERING

    @property
    def driver(self) -> str:
        """The driver that the PTX needs, such as "driver 550 (CUDA 12.4)"; empty where nothing is compiled."""
        return "" if self.ptx is None else driver_for(self.ptx)

    def lacking_hold(self) -> dict[str, int]:
        """What the lacking containers hold instead, and how many hold it: {"9.0a": 18}."""
        return dict(Counter(" ".join(labels(container.entries)) or "nothing" for container in self.lacking))


def parse_capability(text: str) -> Capability:
    """Read "7.5", "12.0" or another form of `read_capability`. Raises CapabilityError."""
    typed = read_capability(text)
    return typed.major, typed.minor


def driver_for(ptx: tuple[int, int]) -> str:
    """The driver that compiles this version of the PTX language, in words."""
    if ptx in _PTX_RELEASES:
        cuda, driver = _PTX_RELEASES[ptx]
        return f"driver {driver} (CUDA {cuda})"
    if ptx < min(_PTX_RELEASES):
        return "any driver"
    return f"a driver that knows PTX {ptx[0]}.{ptx[1]}"


def label(entry: Entry) -> str:
    """ "7.5", "9.0a", or "PTX 8.0"."""
    number = f"{entry.arch // 10}.{entry.arch % 10}{entry.suffix}"
    return number if entry.kind == SASS else f"{entry.kind} {number}"


def labels(entries: tuple[Entry, ...]) -> dict[str, int]:
    """Each label and how often it occurs: SASS first, then PTX, by number."""
    found = Counter((entry.kind != SASS, entry.kind, entry.arch, entry.suffix, label(entry)) for entry in entries)
    return {key[-1]: found[key] for key in sorted(found)}


def runs(entry: Entry, card: Capability) -> str | None:
    """How ``card`` runs this entry: NATIVE, LOWER, JIT, or None if it cannot.

    An `a` target runs on that capability alone, an `f` target from its capability up within its major; other SASS
    likewise within its major, other PTX on every card from its capability up.
    """
    made: Capability = (entry.arch // 10, entry.arch % 10)
    if entry.kind not in (SASS, PTX) or made > card:
        return None
    if entry.suffix == "a" and made != card:
        return None
    if made[0] != card[0] and (entry.kind == SASS or entry.suffix):
        return None
    if entry.kind == PTX:
        return JIT
    return NATIVE if made == card else LOWER


def pick(container: Container, card: Capability) -> Entry | None:
    """The entry that the driver takes for ``card``: the highest SASS, else the highest PTX; None if nothing runs.

    Of two with one number the one with a suffix is taken: it was compiled for this very card.
    """
    usable = [entry for entry in container.entries if runs(entry, card) is not None]
    return max(usable, key=lambda entry: (entry.kind == SASS, entry.arch, entry.suffix), default=None)


def relink(parts: Iterable[Container], card: Capability) -> tuple[Entry, ...]:
    """What the driver links for ``card`` when it loads what a device linker made of ``parts``; empty if it cannot.

    Every part must have PTX or machine code for the card (CUDA Compiler Driver NVCC, 6.6.2, "JIT Linking Support").
    """
    picked = [pick(part, card) for part in parts]
    return () if None in picked else tuple(entry for entry in picked if entry is not None)


def may_run(container: Container, card: Capability) -> bool:
    """Whether an entry of another kind (intermediate code for linking and the like) may be for ``card``."""
    return any(entry.kind == OTHER and (entry.arch // 10, entry.arch % 10) <= card for entry in container.entries)


def judge(library: Library, card: Capability) -> Verdict:
    """The verdict for one card."""
    lacking: list[Container] = []
    compiled: list[Entry] = []
    ways = set()
    unknown, linked = bool(library.unread), False
    parts = {one.address: one.parts for one in library.linked}
    containers = library.loadable
    for container in containers:
        entry = pick(container, card)
        if entry is not None:
            ways.add(runs(entry, card))
            compiled += [entry] if entry.kind == PTX else []
        elif anew := relink(parts.get(container.address, ()), card):
            ways.add(JIT)
            linked = True
            compiled += [one for one in anew if one.kind == PTX]
        elif may_run(container, card):
            unknown = True
        else:
            lacking.append(container)
    ptx = max((entry.version for entry in compiled), default=None)
    return Verdict(
        card, _kind(bool(containers), ways, bool(lacking), unknown), len(containers), tuple(lacking), ptx, linked
    )


def _kind(any_code: bool, ways: set[str | None], lacking: bool, unknown: bool) -> str:
    if lacking and ways:
        return PARTLY
    if unknown:
        return UNKNOWN
    if not any_code:
        return NO_CODE
    return NONE if lacking else next(way for way in (JIT, LOWER, NATIVE) if way in ways)


def covers(library: Library, capability: Capability | str) -> bool:
    """Whether ``capability`` ((7, 5) or "7.5") can run all of the library; one without device code needs no card."""
    card = parse_capability(capability) if isinstance(capability, str) else capability
    return judge(library, card).covers
