"""How much torch's allocator takes from a card for tensors: they are rounded, and small rests stay with them. Pure.

Facts of c10/cuda/CUDACachingAllocator.cpp (torch 2.5 to 2.10, without expandable segments): sizes are rounded to 512
bytes; up to 1 MiB they come from segments of 2 MiB, up to 10 MiB from segments of 20 MiB, above from segments of their
own in steps of 2 MiB; a rest of a large block is given back only where it is larger than 1 MiB.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

_MIB = 2**20
_ROUND = 512
_SMALL = _MIB
_SMALL_SEGMENT = 2 * _MIB
_MIDDLE = 10 * _MIB
_MIDDLE_SEGMENT = 20 * _MIB
_STEP = 2 * _MIB


class TorchMemory:
    """A card's memory as torch counts it: ``live`` bytes are allocated, which is what vLLM logs after loading."""

    def __init__(self) -> None:
        self.live = 0
        self._free: dict[bool, list[int]] = {True: [], False: []}

    def take(self, size: int) -> int:
        """Allocate a tensor of ``size`` bytes; the block's bytes, for `give`. The smallest free block that holds it."""
        wanted = max(_ROUND, -(-size // _ROUND) * _ROUND)
        small = wanted <= _SMALL
        free = self._free[small]
        at = bisect_left(free, wanted)
        block = free.pop(at) if at < len(free) else _segment(wanted)
        rest = block - wanted
        if rest >= _ROUND if small else rest > _SMALL:
            insort(free, rest)
            block = wanted
        self.live += block
        return block

    def take_all(self, sizes: Iterable[int]) -> None:
        """Allocate tensors one after the other."""
        for size in sizes:
            self.take(size)

    def give(self, block: int) -> None:
        """Free a block. Neighbours are not joined again: what is freed here is reused whole or cut."""
        self.live -= block
        insort(self._free[block <= _SMALL], block)


def _segment(size: int) -> int:
    if size <= _SMALL:
        return _SMALL_SEGMENT
    return _MIDDLE_SEGMENT if size < _MIDDLE else -(-size // _STEP) * _STEP
