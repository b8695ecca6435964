"""vGPU profiles, the names that NVML gives in virtual machines of clouds: the board, and the share of it. Pure.

NVIDIA's user guides of vGPU and AI Enterprise, reference of virtual GPU types: a profile is BOARD-GBx, or
BOARD-SLICES-GBx where MIG backs it; x is the series (Q, C, B, A), or nothing for games. Letters after the board's
number tell its form and memory: V100D is the PCIe card of 32 GB, V100DX the SXM2 one, H100XM the SXM5 one of 80 GB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PROFILE = re.compile(
    r"(?P<board>[a-z][a-z0-9 .-]*?[a-z0-9])-(?:(?P<slices>[1-7])-)?"
    r"(?P<memory>\d{1,3})(?:[abcq]\d?(?:(?:no)?me|gfx)?|c?me)"
)
# Games have no series; so only what is said to be a profile is one, and no other name that ends in a number.
_GAMES = re.compile(r"(?:grid|geforce) (?:gtx |rtx )?(?P<board>[a-z]+\d+[a-z]*)-(?P<memory>\d{1,2})")
_WORDS = re.compile(r"^(?:(?:nvidia|grid|tesla|quadro)[ -])+")
# Boards whose name in a profile says too little, or means another card elsewhere.
_BOARDS = (
    (re.compile(r"rtx(6000|8000)p?"), r"Quadro RTX \1"),
    (re.compile(r"rtx ?a(\d{4})"), r"RTX A\1"),
    (re.compile(r"rtx ?(\d{4}) ada(?: generation)?"), r"RTX \1 Ada Generation"),
    (re.compile(r"rtx pro (\d{4}) blackwell(?: (?:dc|se|server|server edition))?"), r"RTX PRO \1 Blackwell Server"),
    (re.compile(r"t10x"), "GRID RTX T10-4"),
    (re.compile(r"(gh|gb)(\d{3})[a-z]{0,2}"), r"\1\2"),
    (re.compile(r"([ahlmpv]\d{1,3}|t4|ax\d{3}|b\d{3})[a-z]{0,2}"), r"\1"),
)  # fmt: skip
# The same guides' tables: which form of the board a profile's letters mean.
_FORMS = {
    code: name
    for name, code in (
        *(("Tesla V100 PCIe 16 GB", "v100"), ("Tesla V100 PCIe 32 GB", "v100d"), ("Tesla V100 FHHL", "v100l")),
        *(("Tesla V100 SXM2 16 GB", "v100x"), ("Tesla V100 SXM2 32 GB", "v100dx"), ("Tesla V100S PCIe 32 GB", "v100s")),
        *(("A100 PCIe 40 GB", "a100"), ("A100 PCIe 80 GB", "a100d"), ("A100 SXM4 40 GB", "a100x")),
        *(("A100 SXM4 80 GB", "a100dx"), ("A800 PCIe 80 GB", "a800d"), ("A800 SXM4 80 GB", "a800dx")),
        *(("H100 PCIe 80 GB", "h100"), ("H100 NVL 94 GB", "h100l"), ("H100 SXM5 80 GB", "h100xm")),
        *(("H100 SXM5 94 GB", "h100xl"), ("H100 SXM5 64 GB", "h100xs"), ("H20-3e", "h20x")),
        *(("Tesla P100 PCIe 16 GB", "p100"), ("Tesla P100 PCIe 12 GB", "p100c"), ("GRID RTX T10-4", "t10")),
        ("RTX PRO 6000 Blackwell Server", "dc"),
    )
}
# Suffixes that are part of a board's own name: L40S is another card than L40.
_OWN = re.compile(r"l40[sg]|a10[gm]|t4g")


# How the source of a card's data begins where the card is such a share.
SHARED = "vGPU profile of "


@dataclass(frozen=True)
class Profile:
    """A share of a card: the ``board``'s name as people call it, and the profile's ``memory`` in GB."""

    board: str
    memory: float


def read_profile(name: str) -> Profile | None:
    """The profile that a name is; None for any other name."""
    plain = " ".join(name.lower().replace("_", " ").split())
    match = _PROFILE.fullmatch(_WORDS.sub("", plain)) or _GAMES.fullmatch(plain)
    if match is None:
        return None
    return Profile(_board(match["board"]), float(match["memory"]))


def _board(text: str) -> str:
    if text in _FORMS or _OWN.fullmatch(text):
        return _FORMS.get(text, text)
    for pattern, name in _BOARDS:
        if found := pattern.fullmatch(text.replace("-", " ")):
            return found.expand(name)
    return text
