"""The selectors: what a user named, read from the command line's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from images.core import UsageError, closest
from images.matrix.arch import KNOWN_ARCHS, Arch, parse_arch
from images.matrix.drivers import Driver, parse_driver
from images.matrix.model import ATTENTIONS, Attention, Matrix

ArchList = tuple[Arch, ...]
Locked = Mapping[str, bool] | None


@dataclass(frozen=True)
class Selectors:
    """What the user named; empty means open. ``archs`` holds one arch list per image wanted.

    ``driver`` is the one that the images must run on; ``here`` that of this machine, which decides between images
    for its own list of archs where it runs one of them, and forbids nothing.
    """

    archs: tuple[ArchList, ...] = ()
    cuda: str | None = None
    attention: Attention | None = None
    only: tuple[str, ...] = ()
    all: bool = False
    driver: Driver | None = None
    here: Driver | None = None


def read_selectors(
    matrix: Matrix,
    archs: Iterable[str] = (),
    cuda: str | None = None,
    attention: str | None = None,
    only: Iterable[str] = (),
    every: bool = False,
    driver: str | None = None,
) -> Selectors:
    """Selectors from the command line's words; ``"7.5 8.6"`` is one image for both. Raises UsageError."""
    lists = tuple(_read_archs(text) for text in archs)
    known_cuda = {stack.cuda for stack in matrix.stacks.values() if stack.cuda}
    if cuda is not None and cuda not in known_cuda:
        raise UsageError(
            f"no stack is built for CUDA {cuda}",
            do=f"nearest: {closest(cuda, sorted(known_cuda))}. Known: {', '.join(sorted(known_cuda))}",
            where=matrix.where("stacks"),
        )
    if attention is not None and attention not in ATTENTIONS:
        raise UsageError(
            f"{attention!r} is not an attention backend",
            do=f"nearest: {closest(attention, ATTENTIONS)}. Known: {', '.join(ATTENTIONS)}",
        )
    return Selectors(lists, cuda, attention, tuple(only), every, parse_driver(driver) if driver else None)


def _read_archs(text: str) -> ArchList:
    """The archs of one image. Raises UsageError where there is none, or one cannot be read."""
    words = text.replace(",", " ").split()
    if not words:
        raise UsageError(
            f"{text!r} names no compute capability",
            cause="an empty variable of a script, perhaps",
            do=f"--arch 7.5, or '7.0 7.5' for one image for both. Known: {', '.join(KNOWN_ARCHS)}",
        )
    return tuple(sorted({parse_arch(word) for word in words}))
