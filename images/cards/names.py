"""From what NVML, nvidia-smi and people call a card to the card. Pure: the cards are given."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from images.cards.data import Card, plain_name
from images.cards.makers import other_maker
from images.cards.vgpu import SHARED, read_profile
from images.core import UsageError, closest
from images.matrix import Arch

# Words that say nothing, that name a family (people leave them out), and that name a form of the same card.
_NOISE = frozenset(
    "nvidia nvgpu gpu gpus graphics card cards with design generation edition workstation corporation the a founders "
    "fe oc asus msi gigabyte zotac palit evga pny colorful galax gainward inno3d".split()
)
_FAMILY = frozenset("geforce rtx gtx gt tesla quadro grid nvs jetson drive".split())
_FORM = frozenset(
    "pcie hgx dgx sxm sxm2 sxm3 sxm4 sxm5 sxm6 fhhl dgxs active passive ac hbm2 hbm2e hbm3 hbm3e gddr5 gddr5x gddr6"
    " gddr6x ddr4 oem refresh rev low power mac server sff x2 ls lc 9gbps 8gbps 10gbps 11gbps".split()
)
# The other way, in commands that have the flag; `named_cards` says another where they have not.
BY_ARCH = "the compute capability: --arch 7.5 (nvidia-smi --query-gpu=name,compute_cap --format=csv)"
# Of older ones no stack has an image for cards.
_FIRST_SERVED = Arch(6, 0)
_DIGITS = re.compile(r"\d+")
_CHIP = re.compile(r"[gat][a-z]\d{3}|\d\d(\.\d)?w")
_MEMORY = re.compile(r"(?<![a-z0-9.])(\d{1,3}) ?(?:gib|gb|g)(?![a-z0-9])")
_MIG = re.compile(r"\bmig (\d+)c?\.?\d*g\.(\d+)gb.*")
_SPLITS = (
    (re.compile(r"\((?:r|tm|c)\)|[®™]"), " "),
    (re.compile(r"max[- ]?q"), " maxq "),
    (re.compile(r"\b(?:laptop|notebook)\b"), " mobile "),
    (re.compile(r"(geforce|quadro|tesla|nvidia|jetson|titan|rtx|gtx|gt(?=\d))(?=[a-z0-9])"), r"\1 "),
    (re.compile(r"\bmx (?=\d{3}\b)"), "mx"),
    (re.compile(r"(\d)(pcie|sxm\d?|nvl)\b"), r"\1 \2"),
    (re.compile(r"(\d)tis\b"), r"\1 ti super"),
    (re.compile(r"(\d)(ti|super|mobile|maxq|ada)(?![a-z])"), r"\1 \2 "),
    # As people shorten them: 4090D, 5090DV2, 2080S, 4070TiS, 3080M. Others have letters of their own: V100S, 6000D.
    (re.compile(r"\b([45]090) ?d ?(v2)?\b"), r"\1 d \2 "),
    (re.compile(r"\b(16[56]0|20[678]0|40[78]0)( ti)? ?s\b"), r"\1\2 super"),
    (re.compile(r"\b([1-5]0[5-9]0)( ti)? ?m\b"), r"\1\2 mobile"),
    (re.compile(r"(\d) ?ti ?super"), r"\1 ti super"),
    (re.compile(r"(\d{4})(?:tisuper)"), r"\1 ti super"),
)


@dataclass(frozen=True)
class NameParts:
    """The words of a card's name: ``model`` must agree, ``family`` and ``form`` may be left out; ``memory`` in GB."""

    model: frozenset[str]
    family: frozenset[str]
    form: frozenset[str]
    memory: int | None


@dataclass(frozen=True)
class NameMatch:
    """The card that a name means, and others of the same compute capability that it may mean as well."""

    card: Card
    others: tuple[Card, ...] = ()

    @property
    def memories(self) -> tuple[float, ...]:
        """GB that the card may have, the least first."""
        return tuple(sorted({card.memory for card in (self.card, *self.others)}))


@lru_cache(maxsize=8192)
def split_name(name: str) -> NameParts:
    """The words of a name: "NVIDIA A100-SXM4-80GB" is the model a100, of the form sxm4, with 80 GB."""
    text = name.lower().replace("_", " ")
    for pattern, instead in _SPLITS:
        text = pattern.sub(instead, text)
    memory = _MEMORY.search(text.replace("-", " "))
    text = _MEMORY.sub(" ", text.replace("-", " "))
    words = {word for word in re.split(r"[^a-z0-9.]+", text) if word} - _NOISE
    form = {word for word in words if word in _FORM or _CHIP.fullmatch(word)}
    family = words & _FAMILY
    return NameParts(
        frozenset(words - form - family), frozenset(family), frozenset(form), int(memory[1]) if memory else None
    )


def match_card(name: str, cards: Sequence[Card]) -> NameMatch:
    """The card that a name means.

    Raises UsageError for a name that no card has, with the nearest one, and for one that cards of different compute
    capabilities have, with these.
    """
    plain = plain_name(name)
    if same := [card for card in cards if plain in (plain_name(card.name), *map(plain_name, card.aliases))]:
        return _match(same[0], _similar(split_name(name), cards))
    if part := _slice_of(name):
        whole, memory, shared = part
        found = _part(match_card(whole, cards), memory)
        return NameMatch(replace(found, source=f"{SHARED}{found.name}; {found.source}") if shared else found)
    similar = _similar(split_name(name), cards)
    if not similar or _of_another(name, cards):
        raise _unknown(name, cards)
    if len({card.arch for card in similar}) > 1:
        raise _ambiguous(name, similar)
    return _match(similar[0], similar)


def _match(card: Card, similar: Iterable[Card]) -> NameMatch:
    return NameMatch(card, tuple(other for other in similar if other != card and other.arch == card.arch))


def _part(whole: NameMatch, memory: float) -> Card:
    """A part of the smallest card of this name that has so much memory."""
    large = [card for card in (whole.card, *whole.others) if card.memory >= 0.9 * memory]
    return replace(min(large, key=lambda card: card.memory, default=whole.card), memory=memory)


def _slice_of(name: str) -> tuple[str, float, bool] | None:
    """A MIG or vGPU slice: the card it is of, its GB, whether a hypervisor gives it; "A100-SXM4-40GB MIG 1g.5gb",
    "GRID T4-8Q".
    """
    text = name.strip().lower()
    if mig := _MIG.search(text):
        return text[: mig.start()], float(mig[2]), False
    profile = read_profile(name)
    return (profile.board, profile.memory, True) if profile else None


def _similar(asked: NameParts, cards: Sequence[Card]) -> list[Card]:
    """The cards that a name may mean, the likeliest first; of several capabilities only where it does not decide."""
    if not asked.model:
        return []
    parts = {card: split_name(card.name) for card in cards}
    pool = [card for card, words in parts.items() if asked.model <= words.model and asked.family <= words.family]
    if asked.memory is not None:
        pool = [card for card in pool if abs(card.memory - asked.memory) <= 0.1 * asked.memory]

    def rank(card: Card) -> tuple[int, int, bool, bool, float]:
        words = parts[card]
        # A name that says its memory is the special one; of several, overlay.yaml names the common one.
        more = len(words.model - asked.model)
        return more, _differ(words.form, asked.form), not card.common, words.memory is not None, card.memory

    pool.sort(key=rank)
    exact = [card for card in pool if parts[card].model == asked.model]
    closest = [card for card in exact if rank(card)[1] == rank(exact[0])[1]]
    if exact and all(parts[card].family <= asked.family for card in closest):
        return closest
    # A word was left out: it may mean another card that has it, but hardly a rare form of the same one.
    meant = [card for card in pool if card in closest or card not in exact]
    return closest if exact and len({card.arch for card in meant}) == 1 else meant


def _differ(have: frozenset[str], asked: frozenset[str]) -> int:
    """In how many words of form two names differ; "sxm" is every SXM."""
    if "sxm" in asked and (every := {word for word in have if word.startswith("sxm")}):
        asked = asked - {"sxm"} | every
    return len(have ^ asked)


def _unknown(name: str, cards: Sequence[Card]) -> UsageError:
    asked = split_name(name)
    if asked.memory is not None and (sizes := {c.memory for c in _similar(replace(asked, memory=None), cards)}):
        known_sizes = " or ".join(f"{size:g}" for size in sorted(sizes))
        cause = f"there is one of {known_sizes} GB, and none of {asked.memory} GB"
    elif maker := other_maker(name):
        own = _similar(asked, cards)
        return UsageError(
            f"no NVIDIA card is called {name!r}" if not own else f"{name!r} is said of another maker's card",
            cause=f"{maker.name} makes it, so it is not in the list of NVIDIA's cards, which the images here are for",
            do=f"take {maker.instead}; or the cpu image: ./inv build --only 'cpu*'"
            + (f"; NVIDIA's own is called {own[0].name!r}" if own else ""),
        )
    elif plain_name(name) in ("cpu", "none", "no", "no gpu"):
        cause = "it is no card; the image for the CPU is a variant of its own: ./inv plan --only 'cpu*'"
    else:
        close = _nearest(name, cards)
        cause = f"the nearest name is {close!r}" if close else "it is not in the list of NVIDIA's cards (./inv cards)"
    return UsageError(f"no NVIDIA card is called {name!r}", cause=cause, do=f"correct the name, or {BY_ARCH}")


def _of_another(name: str, cards: Sequence[Card]) -> bool:
    """Whether a bare number such as M4 or K100 is rather another maker's: NVIDIA's of it is too old for any image."""
    if split_name(name).family or other_maker(name) is None:
        return False
    return all(card.arch < _FIRST_SERVED for card in _similar(split_name(name), cards))


def _nearest(name: str, cards: Sequence[Card]) -> str:
    """The card whose name, with or without its family, is spelled nearly so, the same numbers first; "" if none is."""
    text, family = _spaced(name), split_name(name).family
    names: dict[str, str] = {}
    for card in cards if not family else [card for card in cards if family <= split_name(card.name).family]:
        for alias in map(plain_name, (card.name, *card.aliases)):
            names.setdefault(alias, card.name)
            names.setdefault(" ".join(word for word in alias.split() if word not in _FAMILY), card.name)
    digits = _DIGITS.findall(text)
    same = [one for one in names if digits and _DIGITS.findall(one) == digits]
    for among, least in ((same, 0.5), (names, 0.8)):
        close = closest(text, among)
        if close and difflib.SequenceMatcher(None, text, close).ratio() > least and _same_number(text, close):
            return names[close]
    return ""


def _same_number(one: str, other: str) -> bool:
    """Whether the digits of two names are alike, or those of one go on where the other's end: T44 and T4."""
    digits, others = ("".join(_DIGITS.findall(text)) for text in (one, other))
    return digits.startswith(others) or others.startswith(digits)


def _spaced(name: str) -> str:
    """A name with the words apart that people write together."""
    text = plain_name(name)
    for pattern, instead in _SPLITS:
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def _ambiguous(name: str, similar: Sequence[Card]) -> UsageError:
    by_arch: dict[str, list[str]] = {}
    for card in similar:
        by_arch.setdefault(str(card.arch), []).append(card.name)
    meanings = "; ".join(f"{arch}: {', '.join(names[:4])}" for arch, names in sorted(by_arch.items()))
    return UsageError(
        f"{name!r} may be cards of different compute capabilities",
        cause=meanings,
        do=f"say more of its name, or {BY_ARCH}",
    )
