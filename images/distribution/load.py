"""A folder of pieces into the engine: every digest is checked first, and what the engine has is not given again.

Nothing is written beside the pieces, which may lie on a medium that cannot be written. An engine with the classic store
drops all layers of a load that breaks off. So it gets them one by one, each as the top of an image of its own that goes
when the whole is there: a load that was killed goes on at the layer that it had come to.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images.core import (
    CardstockError,
    CheckFailed,
    LockTimeout,
    RegistryFailure,
    Unsafe,
    hold,
    human_bytes,
    lock_path,
    process,
)
from images.distribution import disk_space
from images.distribution.disk_space import Disk, device_of
from images.distribution.have import Have, common
from images.distribution.pieces import Joined, chunks_of, fault_of
from images.distribution.saved import (
    SAVED_FILE,
    Member,
    Saved,
    SavedImage,
    blob_name,
    manifest_digest,
    members,
    offsets,
)
from images.docker import ImageFacts, refuse_old_engine
from images.registry import digest_of
from images.render import VARIANT

if TYPE_CHECKING:
    from images.docker import Engine

# On images that hold layers until the image that they are for is there.
LOADING = "dev.cardstock.loading"
_SHOWN = 20  # names of pieces in an error
Say = Callable[[str], None]


@dataclass(frozen=True)
class Loaded:
    """An image that the engine has now, and how many of its layers it was given."""

    image: SavedImage
    given: int


def list_layers(engine: Engine) -> Have:
    """The layers that an engine could put together images of without being given them again.

    None for an engine that keeps layers packed, or in another way: it wants all of them.
    """
    chains: list[tuple[str, ...]] = []
    if _takes_layers(engine):
        found = {facts.layers for label in (VARIANT, LOADING) for facts in engine.images(label) if facts.layers}
        # One that is the beginning of another says nothing more.
        chains = sorted(one for one in found if not any(one != other and other[: len(one)] == one for other in found))
    return Have.model_validate({"schema": 1, "engine": engine.version, "chains": tuple(chains)})


def load(engine: Engine, folder: Path, index: Saved, repository: str, say: Say = lambda _: None) -> list[Loaded]:
    """Bring the images of a folder into the engine, under the names that they had.

    Raises CheckFailed for missing pieces; Unsafe for damaged ones, for a name outside of ``repository`` and for what is
    not what its digest says; CardstockError where the engine lacks a layer that was not sent, or a disk is too small.
    Until all is checked the engine is given nothing. The same again goes on.
    """
    _refuse_names(index, repository)
    refuse_old_engine(", ".join(image.variant for image in index.images), "zstd", engine.docker_version)
    with hold(_lock(engine), "another load", say):
        ways = {image.id: _there(engine, image) for image in index.images}
        _refuse_lacking(engine, index, ways)
        check_pieces(folder, index)
        say(f"{len(index.pieces)} pieces are as {SAVED_FILE} says")
        with closing(Joined(folder, index.plain_pieces())) as joined:
            tar = Tar(index, joined)
            tar.check(say, {diff for image in index.images for diff in image.layers[ways[image.id] :]})
            _check_room(engine, index, ways)
            if not _takes_layers(engine):
                return _load_whole(engine, tar, say)
            return [_load_by_layer(engine, tar, image, say) for image in index.images]


def _lock(engine: Engine) -> Path:
    return lock_path("load", engine.endpoint)


def check_pieces(folder: Path, index: Saved) -> None:
    """Raise CheckFailed for pieces that are missing, Unsafe where some are damaged; all of them are named."""
    faults = [fault for piece in index.plain_pieces() if (fault := fault_of(folder, piece))]
    missing = [fault.name for fault in faults if fault.missing]
    damaged = [f"{fault.name}: {fault.why}" for fault in faults if not fault.missing]
    if damaged:
        raise Unsafe(
            f"{len(damaged)} of {len(index.pieces)} pieces are not what {SAVED_FILE} says: nothing was loaded",
            cause=_shortened(damaged, "; ") + (f"; missing: {_shortened(missing, ', ')}" if missing else ""),
            do=f"bring again: {_shortened([fault.name for fault in faults], ' ')}; then run the same again",
            where=str(folder),
        )
    if missing:
        raise CheckFailed(
            f"{len(missing)} of {len(index.pieces)} pieces are missing: nothing was loaded",
            cause=_shortened(missing, ", "),
            do=f"bring them: {_shortened(missing, ' ')}; then run the same again",
            where=str(folder),
        )


def _shortened(words: Sequence[str], between: str) -> str:
    return between.join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")


class Tar:
    """The joined pieces, held against their index: what is where, and whether it is what its digest says."""

    def __init__(self, index: Saved, joined: Joined) -> None:
        self.index = index
        self._joined = joined
        self.members = members(index.images, index.layers)
        self._starts = dict(zip((member.name for member in self.members), offsets(self.members), strict=True))

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob, in chunks."""
        self._joined.seek(self._starts[blob_name(digest)])
        return chunks_of(self._joined, size)

    def configuration(self, image: SavedImage) -> bytes:
        """An image's configuration."""
        return b"".join(self.blob(image.id, image.configuration))

    def whole(self) -> Iterator[bytes]:
        """All of it."""
        self._joined.seek(0)
        return chunks_of(self._joined, self.index.size)

    def check(self, say: Say, unpacked: set[str]) -> None:
        """Raise Unsafe where a byte is not what the index, a configuration or a digest says.

        The layers ``unpacked`` by diff id are unpacked and held against it, where the program zstd is there; the engine
        does it in any case, before it keeps a layer.
        """
        for member, start in zip(self.members, offsets(self.members), strict=True):
            self._check_member(member, start)
        self._joined.seek(offsets(self.members)[-1] + self.members[-1].size + len(self.members[-1].padding))
        if any(b"".join(chunks_of(self._joined, 1024))):
            raise _not_the_tar("its end")
        for image in self.index.images:
            self._check_configuration(image)
        if shutil.which("zstd") is None:
            say("the program zstd is not here: the engine alone holds unpacked layers against the image")
            return
        for diff in sorted(unpacked):
            if self.index.layers[diff].sent:
                self._check_unpacked(diff)

    def _check_member(self, member: Member, start: int) -> None:
        self._joined.seek(start - len(member.header))
        if b"".join(chunks_of(self._joined, len(member.header))) != member.header:
            raise _not_the_tar(member.name)
        digest = hashlib.sha256()
        for chunk in chunks_of(self._joined, member.size):
            digest.update(chunk)
        found = f"sha256:{digest.hexdigest()}"
        if found != (member.digest or digest_of(member.content or b"")):
            raise _not_the_tar(member.name)
        if b"".join(chunks_of(self._joined, len(member.padding))) != member.padding:
            raise _not_the_tar(member.name)

    def _check_configuration(self, image: SavedImage) -> None:
        said = _read_configuration(self.configuration(image), image)
        if said["rootfs"]["diff_ids"] != list(image.layers):
            raise Unsafe(
                f"{image.variant} is made of other layers than {SAVED_FILE} says",
                cause=f"the configuration {image.id} names others",
                do=f"do not use it; have it saved again, and bring {SAVED_FILE} with it",
            )

    def _check_unpacked(self, diff: str) -> None:
        layer = self.index.layers[diff]
        digest, left = hashlib.sha256(), layer.unpacked

        def take(chunk: bytes) -> None:
            nonlocal left
            left -= len(chunk)
            if left < 0:
                raise _wrong_layer(diff, f"it has more than the {layer.unpacked} bytes that {SAVED_FILE} says")
            digest.update(chunk)

        try:
            process.pump(["zstd", "-dcq"], self.blob(layer.digest, layer.size), take)
        except process.ProcessFailed as error:
            raise _wrong_layer(diff, f"zstd says: {error.tail.strip()}") from error
        if f"sha256:{digest.hexdigest()}" != diff:
            raise _wrong_layer(diff, f"it is sha256:{digest.hexdigest()}")


def _wrong_layer(diff: str, cause: str) -> Unsafe:
    return Unsafe(
        f"a layer is not what the image's configuration says: {diff}",
        cause=cause,
        do="do not use it; have it saved again",
    )


def _not_the_tar(name: str) -> Unsafe:
    return Unsafe(
        f"the joined pieces are not the archive that {SAVED_FILE} describes",
        cause=f"{name} is not what it should be, although every piece has its digest",
        do="do not use it: pieces and index are not of one save, or were made by something else; have it saved again",
    )


def _read_configuration(raw: bytes, image: SavedImage) -> dict[str, Any]:
    """A configuration whose digest is right; what is needed of it is there. Raises Unsafe."""
    try:
        said = json.loads(raw)
        if isinstance(said["rootfs"]["diff_ids"], list) and isinstance(said, dict):
            return said
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    raise Unsafe(
        f"{image.variant} has no configuration as images have it",
        cause=image.id,
        do="do not use it; have it saved again",
    )


def _refuse_names(index: Saved, repository: str) -> None:
    """An index names images of this product alone: a name that another program's image has would be taken from it."""
    if bad := [tag for image in index.images for tag in image.tags if tag.rpartition(":")[0] != repository]:
        raise Unsafe(
            f"{SAVED_FILE} names an image that is none of {repository}: {bad[0]}",
            cause="the engine would give that name to what is loaded",
            do="do not use it; ./inv save writes no such names",
        )


def _refuse_lacking(engine: Engine, index: Saved, ways: Mapping[str, int]) -> None:
    for image in index.images:
        lacking = [diff for diff in image.layers[ways[image.id] :] if not index.layers[diff].sent]
        if lacking:
            raise CardstockError(
                f"{image.variant}: {len(lacking)} layers were left out that this engine has not",
                cause=f"{_shortened(lacking, ', ')}; images were removed since the list was made, it was another "
                "machine's, or this engine keeps layers packed",
                do="print a new list here (./inv load --list > have.json), save again with it (./inv save --have "
                "have.json DIR), or without --have",
                where=engine.endpoint,
            )


def _takes_layers(engine: Engine) -> bool:
    """Whether it puts an image together of layers that it has unpacked: Docker with the classic store does."""
    return not engine.keeps_what_came() and not engine.host().podman


def _there(engine: Engine, image: SavedImage) -> int:
    """How many of an image's layers, from the base on, the engine need not be given."""
    return common(list_layers(engine).chains, image.layers)


def _check_room(engine: Engine, index: Saved, ways: Mapping[str, int]) -> None:
    """Raise CardstockError where the engine's disk has less free than the layers take, as far as it can be known."""
    free = engine.free_bytes()
    lacking = dict.fromkeys(diff for image in index.images for diff in image.layers[ways[image.id] :])
    layers = [index.layers[diff] for diff in lacking]
    packed = [layer.size for layer in layers]
    need = sum(layer.unpacked for layer in layers) + (max(packed, default=0) if _takes_layers(engine) else sum(packed))
    folder = engine.layers_folder()
    disk = None if free is None else Disk(folder, device_of(folder), free)
    if short := disk_space.short_of([(disk, need)]):
        raise CardstockError(
            f"the disk is too small for what is loaded: {human_bytes(need)} needed, {human_bytes(short[0].free)} free",
            cause="layers are unpacked, and lie packed beside that while the engine reads them",
            do="free some space (./inv engine --prune), or set CARDSTOCK_HOME, for the embedded engine, to a larger "
            "disk",
            where=short[0].folder,
        )


def _load_whole(engine: Engine, tar: Tar, say: Say) -> list[Loaded]:
    images = tar.index.images
    given = 0 if all(_found(engine, tar, image) for image in images) else 1
    if given:
        say(f"the engine reads {human_bytes(tar.index.size)}")
        _give(engine, tar.whole(), ", ".join(image.variant for image in images))
    return [_named(engine, tar, image, given * len(image.layers)) for image in images]


def _load_by_layer(engine: Engine, tar: Tar, image: SavedImage, say: Say) -> Loaded:
    """Give an image layer by layer, from the first that the engine lacks on."""
    there = _there(engine, image)
    say(f"{image.variant}: {there} of {len(image.layers)} layers are in the engine")
    if engine.inspect(image.id) is None:
        for count in range(there + 1, len(image.layers)):
            say(_progress(tar, image, count))
            _give(engine, _archive(tar, image, count, _holder(tar, image, count), ()), image.variant)
        if there < len(image.layers):
            say(_progress(tar, image, len(image.layers)))
        last = _archive(tar, image, len(image.layers), tar.configuration(image), image.tags)
        _give(engine, last, image.variant)
    loaded = _named(engine, tar, image, len(image.layers) - there)
    _drop(engine, f"{LOADING}={image.id}")
    return loaded


def _drop(engine: Engine, label: str) -> int:
    held = engine.images(label)
    for facts in held:
        engine.untag(facts.id, force=True)
    return len(held)


def drop_left(engine: Engine, say: Say = lambda _: None) -> int:
    """Drop the layers that loads left in the engine that did not end, unless one is under way; how many images."""
    try:
        with hold(_lock(engine), "a load", seconds=0):
            return _drop(engine, LOADING)
    except LockTimeout as busy:
        say(f"left as it is, what is loaded: {busy.holder} loads it")
        return 0


def _give(engine: Engine, archive: Iterator[bytes], what: str) -> None:
    """Give the engine an archive. Raises Unsafe where it refuses a layer, CardstockError for another refusal."""
    try:
        engine.load(archive)
    except Unsafe as error:
        raise Unsafe(
            f"{what}: the engine refuses a layer", cause=error.cause, do="do not use it; have it saved again"
        ) from error
    except RegistryFailure as error:
        raise CardstockError(
            f"{what} could not be loaded", cause=error.cause, do="see the engine's log; run the same again to go on"
        ) from error


def _progress(tar: Tar, image: SavedImage, count: int) -> str:
    layer = tar.index.layers[image.layers[count - 1]]
    return f"layer {count} of {len(image.layers)}: {human_bytes(layer.unpacked)}"


def _holder(tar: Tar, image: SavedImage, count: int) -> bytes:
    """The configuration of an image that holds the first layers of another, until that one is there."""
    said = _read_configuration(tar.configuration(image), image)
    return json.dumps(
        {
            "architecture": said.get("architecture", "amd64"),
            "os": said.get("os", "linux"),
            "config": {"Labels": {LOADING: image.id}},
            "rootfs": {"type": "layers", "diff_ids": list(image.layers[:count])},
        }
    ).encode()


def _archive(tar: Tar, image: SavedImage, count: int, configuration: bytes, tags: Sequence[str]) -> Iterator[bytes]:
    """An image of the first ``count`` layers as `docker load` takes it, with the bytes of the last of them alone."""
    layers = [tar.index.layers[diff] for diff in image.layers[:count]]
    top = layers[-1]
    listed = {
        "Config": blob_name(digest_of(configuration)),
        "RepoTags": list(tags),
        "Layers": [blob_name(layer.digest) for layer in layers],
    }
    told = json.dumps([listed]).encode()
    found = [
        Member("manifest.json", len(told), told),
        Member(blob_name(digest_of(configuration)), len(configuration), configuration),
    ]
    for member in found:
        yield from (member.header, member.content or b"", member.padding)
    if top.sent:
        last = Member(blob_name(top.digest), top.size, None, top.digest)
        yield last.header
        yield from tar.blob(top.digest, top.size)
        yield last.padding
    yield b"\0" * 1024


def _named(engine: Engine, tar: Tar, image: SavedImage, given: int) -> Loaded:
    """See that the engine has this very image, and that its names lead to it."""
    facts = _found(engine, tar, image)
    if facts is None:
        raise Unsafe(
            f"{image.variant}: the engine made another image of its layers",
            cause=f"it has none of the id {image.id}",
            do="do not use it; remove it (docker rmi), and have it saved again",
        )
    for tag in image.tags:
        engine.tag(facts.id, tag)
    return Loaded(image, given)


def _found(engine: Engine, tar: Tar, image: SavedImage) -> ImageFacts | None:
    """The engine's image of this id; an engine with the containerd store calls it by its manifest's digest."""
    digest = manifest_digest(image, tar.index.layers)
    for reference in (image.id, digest):
        facts = engine.inspect(reference)
        if facts is not None and facts.id in (image.id, digest) and facts.layers == image.layers:
            return facts
    return None
