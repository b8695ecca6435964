"""fit: the settings with which an image serves a model on cards, or why it cannot. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from images.cards import AskedCards, counted_name
from images.core import NoImageFits, UsageError, human_bytes
from images.matrix import Arch, Driver, Variant, driver_suffices
from images.run.fit.backends import CardBackend
from images.run.fit.memory import Load, MemorySum, add_up
from images.run.fit.mixed import backend_for_all, check_instances
from images.run.fit.model import Model
from images.run.fit.parallel import Obstacle, Split, sizes, try_split

# Lengths of a conversation that are tried, the longest first that a common use needs; below the last one a picture and
# an answer hardly go together.
LENGTHS = (32768, 24576, 16384, 12288, 8192, 6144, 4096, 2048)
IMAGE_TOKENS = 1280
# A request that is expected: a picture and some text. As many as the cache holds are taken at a time.
USUAL = 2048


@dataclass(frozen=True)
class Ask:
    """What is to be served on what: the cards ``on`` in each of ``nodes`` machines, ``usable`` bytes on the least.

    ``tp`` and ``pp`` 0: whatever fits best. ``video``: so many in one request. ``named``: the image was said.
    """

    model: Model
    variant: Variant
    on: AskedCards
    usable: int
    nodes: int = 1
    tp: int = 0
    pp: int = 0
    video: int = 0
    named: bool = False

    @property
    def count(self) -> int:
        """Cards in each machine."""
        return self.on.count

    @property
    def arch(self) -> Arch:
        """The oldest card's: what it cannot do is done on none."""
        return self.on.archs[0]

    @property
    def driver(self) -> Driver | None:
        """None if it is not known."""
        return self.on.driver

    @property
    def card(self) -> str:
        """The kinds of cards, without their number."""
        return " and ".join(dict.fromkeys(card.name for card in self.on.kinds))

    @property
    def cards(self) -> str:
        """ "8 x RTX 2080 in 2 machines", "2 x RTX 3090 and RTX 4090"."""
        whole = self.count * self.nodes
        if len(self.on.kinds) > 1:
            return self.on.text if self.nodes == 1 else f"{self.on.text} in each of {self.nodes} machines"
        told = counted_name(self.card, whole)
        return told if self.nodes == 1 else f"{told} in {self.nodes} machines"


@dataclass(frozen=True)
class Fit:
    """How it is served: the backend, the split, the load, and the memory of the fullest card."""

    ask: Ask
    backend: CardBackend
    split: Split
    load: Load
    sum: MemorySum


def fit(ask: Ask) -> Fit:
    """The settings: the longest conversation first, then the widest tensor parallel size, then the rest.

    Raises NoImageFits where the image, the model's form, the split or the memory does not allow it, UsageError for
    counts that cannot be.
    """
    if min(ask.count, ask.nodes) < 1:
        raise UsageError("--count and --nodes must be 1 or more", do="--count 2 for two cards in each machine")
    _runs_here(ask)
    check_instances(ask.on, ask.nodes)
    backend = backend_for_all(ask.model, ask.variant, ask.on)
    if not backend.vllm and ask.nodes > 1:
        raise NoImageFits(
            f"{ask.variant.id} serves from one machine only",
            cause="its server is one process",
            do="--nodes 1, or a variant with vLLM",
        )
    if not backend.vllm and ask.video:
        raise NoImageFits(
            f"{ask.variant.id} takes no videos",
            cause="its server takes pictures",
            do="a variant with vLLM, or no --video",
        )
    splits, obstacle = _splits(ask, backend)
    if not splits:
        raise _cut(ask, backend, obstacle)
    best: Fit | None = None
    for split in splits:
        found = _longest(ask, backend, split)
        if found and (best is None or found.load.length > best.load.length):
            best = found
    if best is None:
        raise _too_small(ask, backend, splits)
    return _improve(best)


def with_load(found: Fit, load: Load) -> MemorySum:
    """The memory of the fullest card with another load."""
    return add_up(found.ask.model, found.backend, found.split, load, found.ask.usable)


def _runs_here(ask: Ask) -> None:
    variant = ask.variant
    if not variant.archs:
        raise UsageError(
            f"{variant.id} uses no card",
            cause="fit adds up a card's memory",
            do="name a variant for cards; the cpu image takes VLLM_CPU_KVCACHE_SPACE (GiB) for its cache",
        )
    for card in ask.on.kinds:
        if not any(own.runs_on(card.arch) for own in variant.archs):
            raise NoImageFits(
                f"{variant.id} does not run on {card.name}",
                cause=f"it holds code for {' '.join(map(str, variant.archs))}, and the card has {card.arch}",
                do=f"leave out --variant, or see ./inv plan --all --arch {card.arch.capability}",
            )
    if ask.driver is not None and not driver_suffices(ask.driver, variant.min_driver):
        raise NoImageFits(
            f"driver {ask.driver} is too old for {variant.id}",
            cause=f"it needs {variant.min_driver}",
            do=f"install driver {variant.min_driver} or newer, or leave out --variant",
            where="CUDA release notes, table 3",
        )


def _splits(ask: Ask, backend: CardBackend) -> tuple[list[Split], Obstacle | None]:
    """The splits that can be, the widest first; and what is against the widest that cannot."""
    pairs = sizes(ask.count, ask.nodes, backend)
    world = ask.count * ask.nodes
    if ask.tp or ask.pp:
        tp, pp = ask.tp or world // ask.pp, ask.pp or world // max(1, ask.tp)
        if tp * pp != world:
            raise UsageError(
                f"{tp} x {pp} is not {world} cards",
                cause="every card belongs to one tensor part of one pipeline stage",
                do=f"sizes whose product is {world}, such as --tp {world} --pp 1, or {tp * pp} cards",
            )
        pairs = [(tp, pp)]
    tried = [try_split(ask.model, backend, tp, pp) for tp, pp in pairs]
    against = next((one for one in tried if isinstance(one, Obstacle)), None)
    return [one for one in tried if isinstance(one, Split)], against


def _longest(ask: Ask, backend: CardBackend, split: Split) -> Fit | None:
    """The longest conversation with everything else at its least."""
    for length in LENGTHS:
        if length > ask.model.shape.positions:
            continue
        load = Load(length, image_tokens=min(IMAGE_TOKENS, length // 2), video=ask.video > 0)
        total = add_up(ask.model, backend, split, load, ask.usable)
        if not total.missing:
            return Fit(ask, backend, split, load, total)
    return None


def _improve(found: Fit) -> Fit:
    """What memory is left goes to requests at a time, CUDA graphs and pictures, in this order."""
    for change in _changes(found):
        load = change(found.load)
        total = add_up(found.ask.model, found.backend, found.split, load, found.ask.usable)
        if not total.missing and total.tokens >= load.seqs * USUAL:
            found = replace(found, load=load, sum=total)
    return found


def _changes(found: Fit) -> Iterator[Callable[[Load], Load]]:
    half = found.load.length // 2
    vllm = found.backend.vllm
    if vllm:
        yield partial(replace, seqs=2)
        yield partial(replace, seqs=4)
        yield partial(replace, graphs=True)
    for images, tokens in ((2, IMAGE_TOKENS), (4, IMAGE_TOKENS), (4, 2560), (4, 4096)):
        if images * tokens <= half:
            yield partial(replace, images=images, image_tokens=tokens)
    if vllm:
        for seqs in (8, 16, 32, 64):
            yield partial(replace, seqs=seqs)
        if found.backend.chunked:
            yield partial(replace, batched=8192)


def _cut(ask: Ask, backend: CardBackend, obstacle: Obstacle | None) -> NoImageFits:
    world = ask.count * ask.nodes
    tried = [try_split(ask.model, backend, tp, pp) for tp, pp in sizes(ask.count, ask.nodes, backend)]
    can = [f"{split.tp} x {split.pp}" for split in tried if isinstance(split, Split)]
    why = obstacle or Obstacle(f"{ask.model.shape.layers} layers are fewer than {world} cards", "")
    size = f" with tensor parallel size {ask.tp}" if ask.tp else ""
    do = f"tensor x pipeline parallel size {can[0]} instead" if can else "use fewer cards"
    return NoImageFits(f"{ask.model.name} cannot be cut for {ask.cards}{size}", cause=why.why, do=do, where=why.source)


def _too_small(ask: Ask, backend: CardBackend, splits: list[Split]) -> NoImageFits:
    """The split that lacks the least speaks."""
    load = Load(LENGTHS[-1], image_tokens=LENGTHS[-1] // 2)
    tried = [(add_up(ask.model, backend, split, load, ask.usable), split) for split in splits]
    total, split = min(tried, key=lambda one: one[0].missing)
    largest = max((line for line in total.lines), key=lambda line: line.bytes)
    cut = f", cut into {split.tp} x {split.pp}," if split.tp * split.pp > 1 else ""
    has = f"{human_bytes(total.usable)} that a card has for it"
    kinds = ask.on.kinds
    least = min(kinds, key=lambda card: card.memory)
    decides = f"; the least of them decides, {least.name}" if len({card.memory for card in kinds}) > 1 else ""
    return NoImageFits(
        f"{ask.model.name} does not fit on {ask.cards}",
        cause=f"a conversation of {load.length} tokens{cut} lacks {human_bytes(total.missing)} of the {has}; "
        f"its {largest.name} alone take {human_bytes(largest.bytes)}{decides}",
        do=f"a smaller model, {'a form in 4 bits, ' if ask.model.weight_bits > 4 else ''}or more cards",
    )
