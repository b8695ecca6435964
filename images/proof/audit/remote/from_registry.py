"""`audit_remote`: an image in a registry, judged without pulling it: two layers at a time, from the top down."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from images.core import PrintLine, UsageError, human_bytes
from images.device_code.audit import Audit, audit
from images.proof.audit.remote.layer import Layer, Stack
from images.proof.audit.remote.layer_reader import UNCHECKED, LayerReader, ReadLayer
from images.proof.audit.remote.progress import Progress, Stopped
from images.proof.audit.remote.reference import ImageName
from images.registry import FoundImage, Repository, find_image

_AT_ONCE = 2
_MOST_LAYERS = 300  # engines take 127


@dataclass(frozen=True)
class RemoteAudit:
    """The audit of an image in a registry: which it was, and how its layers were read, the lowest first."""

    audit: Audit
    name: ImageName
    image: FoundImage
    layers: tuple[ReadLayer, ...]

    @property
    def by_digest(self) -> str:
        """This very image, as an engine pulls it."""
        return f"{self.name.repository}@{self.image.digest}"

    @property
    def received(self) -> int:
        """Bytes of layers that came over the line."""
        return sum(layer.received for layer in self.layers)

    @property
    def unchecked(self) -> int:
        """Layers of which parts were read that no digest tells anything of."""
        return sum(layer.how == UNCHECKED for layer in self.layers)

    def ways(self) -> str:
        """How layers were read, in words: "9 whole (gzip); 2 in part, by digests (eStargz)"."""
        counted = Counter((layer.how, layer.packing) for layer in self.layers)
        return "; ".join(f"{count} {how} ({packing})" for (how, packing), count in counted.items())

    def to_json(self) -> dict[str, object]:
        """What it says for machines, beside the audit itself."""
        return {
            "digest": self.image.digest,
            "platform": self.image.platform,
            "bytes": self.image.size,
            "bytes_read": self.received,
            "layers": [
                {"digest": blob.digest, "bytes": blob.size, "packed": read.packing, "read": read.how}
                | {"bytes_read": read.received}
                for blob, read in zip(self.image.layers, self.layers, strict=True)
            ],
        }


def audit_remote(
    name: ImageName,
    repository: Callable[[], Repository],
    say: PrintLine,
    *,
    platform: str = "",
    whole: bool = False,
) -> RemoteAudit:
    """Audit the image ``name``; nothing of it is stored, run or unpacked beyond one file at a time.

    ``repository`` gives one for each thread. ``whole``: every layer is read to its end and has its digest. Raises
    UsageError where there is no such image or platform, RegistryFailure, Unsafe for bytes of another digest,
    CheckFailed for a layer that is none.
    """
    image = find_image(repository(), name.reference, platform)
    if image is None:
        raise UsageError(
            f"{name.repository} has no {name.reference}",
            cause="the registry knows no such tag or digest",
            do="correct the name; docker login, if it is a private one",
        )
    if len(image.layers) > _MOST_LAYERS:
        raise UsageError(f"{name.repository} has {len(image.layers)} layers: no engine takes so many")
    if len(image.platforms) > 1:
        say(f"of {', '.join(image.platforms)} the image for {image.platform} is read; --platform names another")
    progress = Progress(image.size, say)
    stack = Stack()
    layers = _read_layers(image, repository, progress, stack, say, whole=whole)
    found = audit(name.text, stack.found.items())
    return RemoteAudit(found, name, image, layers)


def _read_layers(
    image: FoundImage,
    repository: Callable[[], Repository],
    progress: Progress,
    stack: Stack,
    say: PrintLine,
    *,
    whole: bool,
) -> tuple[ReadLayer, ...]:
    """The layers, read from the top down and merged in that order; the lowest first."""
    left = deque(enumerate(reversed(image.layers)))
    running: deque[Future[ReadLayer]] = deque()
    done: list[ReadLayer] = []
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="layer") as pool:
        try:
            while left or running:
                while left and len(running) < _AT_ONCE:
                    number, blob = left.popleft()
                    hides = partial(_hides, stack, number)
                    reader = LayerReader(repository(), blob, progress, hides, whole=whole)
                    running.append(pool.submit(_read, reader, progress))
                read = running.popleft().result()
                stack.add(read.layer)
                done.append(replace(read, layer=Layer()))  # its names are merged: they need not be held twice
                blob = image.layers[-len(done)]
                say(
                    f"layer {len(image.layers) - len(done) + 1} of {len(image.layers)}: {human_bytes(blob.size)}, "
                    f"{read.packing}; {human_bytes(read.received)} read, {read.how}"
                )
        except BaseException as error:
            progress.stop()
            raise _first_fault(error, running) from None
    return tuple(reversed(done))


def _read(reader: LayerReader, progress: Progress) -> ReadLayer:
    try:
        return reader.read()
    except BaseException:
        progress.stop()
        raise


def _hides(stack: Stack, number: int, path: str) -> bool:
    """Whether a file of layer ``number``, from the top, is not seen: known once all layers above it were merged."""
    return stack.merged == number and stack.hides(path)


def _first_fault(error: BaseException, running: deque[Future[ReadLayer]]) -> BaseException:
    """``error``; where that is only that another layer failed, its fault."""
    if not isinstance(error, Stopped):
        return error
    faults = [fault for one in running if (fault := one.exception()) is not None]
    return next((fault for fault in faults if not isinstance(fault, Stopped)), error)
