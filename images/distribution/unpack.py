"""A published image unpacked into a folder, for a machine without an engine: layers by digest, nothing outside of it.

The rules are those of the OCI image specification: a later layer's file takes an earlier one's place, `.wh.NAME` takes
NAME away, `.wh..wh..opq` all that earlier layers put into its folder. Links are followed as the image would follow
them, from its own root. No file gets set-user or set-group bits.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, cast

from images.catalogue import PublishedImage
from images.core import CardstockError, RegistryFailure, Unsafe, human_bytes, process
from images.distribution.pull_layers import Started
from images.registry import Blob, RemoteImage, Repository, digest_of_file, read_image

Say = Callable[[str], None]
# Below the state folder: images unpacked.
UNPACKED = "unpacked"
ROOT, DONE = "root", "whole"
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_MOST_MEMBERS = 2_000_000
_MOST_NAME = 4096
_MOST_LINKS = 40  # as the kernel follows them
_CHUNK = 4 << 20
# Room that an image may take beyond what its catalogue says: folders, and files that a later layer takes away.
_MORE, _LEAST_MORE = 1.25, 64 << 20


@dataclass
class Unpacking:
    """The folder that layers are unpacked into, and what is left of the bounds. ``owners``: files get theirs (root)."""

    root: Path
    bytes_left: int
    owners: bool
    members_left: int = _MOST_MEMBERS
    skipped: int = 0
    _made: set[Path] = field(default_factory=set)  # by the layer that is being unpacked

    def layer(self, stream: IO[bytes]) -> None:
        """Unpack one layer, a tar. Raises Unsafe for what no image has, CardstockError where the bounds are passed."""
        self._made = set()
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    self._member(tar, member)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError, ValueError) as error:
            raise _unsafe("a layer is no tar", str(error)) from error

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self.members_left -= 1
        self.bytes_left -= max(0, member.size)
        if self.members_left < 0 or self.bytes_left < 0:
            raise _unsafe("its layers hold more than its catalogue says", "too many files, or too large ones")
        parts = parts_of(member.name)
        if not parts:
            return
        folder = self.place(parts[:-1])
        name = parts[-1]
        if name == OPAQUE:
            self._empty(folder)
        elif name.startswith(WHITEOUT):
            taken = name.removeprefix(WHITEOUT)
            if taken in ("", ".", ".."):
                raise _unsafe("a whiteout takes away what no file is called", member.name[:200])
            remove(folder / taken)
        else:
            self._make(tar, member, folder, folder / name)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: Path) -> None:
        self._have(folder)
        if not (member.isdir() and path.is_dir() and not path.is_symlink()):
            remove(path)
        if member.isdir():
            path.mkdir(exist_ok=True)
        elif member.issym():
            if len(member.linkname) > _MOST_NAME:
                raise _unsafe("a link leads to a name that is too long", member.name[:200])
            path.symlink_to(member.linkname)
        elif member.islnk():
            self._link(member, path)
        elif member.isreg():
            self._write(tar, member, path)
        else:
            self.skipped += 1  # a device or a pipe: no image needs its own
            return
        self._made.add(path)
        self._dress(member, path)

    def _have(self, folder: Path) -> None:
        """Make a folder, also where an earlier layer has a file on the way to it."""
        at = self.root
        for part in folder.relative_to(self.root).parts:
            at = at / part
            if not at.is_dir():
                remove(at)
                at.mkdir()

    def _link(self, member: tarfile.TarInfo, path: Path) -> None:
        parts = parts_of(member.linkname)
        target = self.place(parts[:-1]) / parts[-1] if parts else self.root
        if target.is_symlink() or not target.is_file():
            raise _unsafe(f"{member.name[:200]} is another name of a file that is not there", member.linkname[:200])
        os.link(target, path)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        source = tar.extractfile(member)
        assert source is not None  # noqa: S101  (a regular file has content)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            shutil.copyfileobj(source, out, _CHUNK)

    def _dress(self, member: tarfile.TarInfo, path: Path) -> None:
        """Owner and mode; who is not root must be able to remove it again."""
        if self.owners:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not (member.issym() or member.islnk()):
            mode = member.mode & 0o1777
            path.chmod(mode if self.owners else mode | (0o700 if member.isdir() else 0o600))

    def _empty(self, folder: Path) -> None:
        """Take away what is in a folder and not of the layer that is being unpacked."""
        for child in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not any(made == child or child in made.parents for made in self._made):
                remove(child)
            elif child.is_dir() and not child.is_symlink():
                self._empty(child)

    def place(self, parts: Sequence[str]) -> Path:
        """Where a path of the image lies below ``root``: its links are followed as if the root were "/".

        What is not there yet is named as it is said. Raises Unsafe for links without end.
        """
        left, at, followed = list(reversed(parts)), self.root, 0
        while left:
            part = left.pop()
            if part == "..":
                at = at if at == self.root else at.parent
                continue
            step = at / part
            if step.is_symlink():
                followed += 1
                if followed > _MOST_LINKS:
                    raise _unsafe("links lead to each other without end", "/".join(parts)[:200])
                target = str(step.readlink())
                at = self.root if target.startswith("/") else at
                left += [one for one in reversed(PurePosixPath(target).parts) if one not in ("/", ".")]
                continue
            at = step
        return at


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a member's name, from the image's root. Raises Unsafe for a name that leads out of it."""
    parts = tuple(part for part in PurePosixPath(name).parts if part not in ("/", "."))
    if ".." in parts or "\0" in name or len(name) > _MOST_NAME:
        raise _unsafe("a file's name leads out of the image, or is none", repr(name[:200]))
    return parts


def remove(path: Path) -> None:
    """Take away what is there by this name; nothing is followed."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        path.unlink()


class _Counted(io.RawIOBase):
    """A stream that hashes what is read of it, up to ``most`` bytes."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self._source, self._left = source, most
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes at most, and never all at once."""
        found = self._source.read(_CHUNK if size < 0 else min(size, _CHUNK))
        self._left -= len(found)
        if self._left < 0:
            raise _unsafe("a layer unpacks to more than its image may take", "it goes on and on")
        self._hash.update(found)
        return found

    def rest(self) -> str:
        """Read to the end; the digest of all of it."""
        while self.read(_CHUNK):
            pass
        return f"sha256:{self._hash.hexdigest()}"


@contextmanager
def _opened(path: Path, most: int) -> Iterator[IO[bytes]]:
    """A packed layer's tar, by how the file begins: gzip, zstd, or as it is."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b":
        with gzip.open(path) as unpacked:
            yield cast("IO[bytes]", unpacked)
    elif head == b"\x28\xb5\x2f\xfd":
        tar = path.with_name(f"{path.name}.tar")
        words = ["prlimit", f"--fsize={most}", "zstd", "-q", "-d", "-f", "-o", str(tar), str(path)]
        try:
            process.run(words, timeout=1800)
            with tar.open("rb") as whole:
                yield whole
        except process.ProcessFailed as error:
            raise CardstockError(
                "a layer that is packed by zstd could not be unpacked",
                cause=error.tail,
                do="install zstd: apt-get install zstd",
            ) from error
        finally:
            tar.unlink(missing_ok=True)
    else:
        with path.open("rb") as plain:
            yield plain


def unpack_layer(path: Path, diff_id: str, unpacking: Unpacking) -> None:
    """Unpack a packed layer whose digest is right; what it unpacks to must have ``diff_id``. Raises as `layer` does."""
    most = unpacking.bytes_left + unpacking.members_left * 1024
    with _opened(path, most) as source:
        counted = _Counted(source, most)
        unpacking.layer(cast("IO[bytes]", counted))
        found = counted.rest()
    if found != diff_id:
        raise _unsafe("a layer unpacks to something else than its image says", f"{found}, not {diff_id}")


def bring_unpacked(
    repository: Repository, image: PublishedImage, home: Path, say: Say = lambda _: None
) -> tuple[bytes, Path]:
    """The configuration of a verified image, and its root below ``home``, unpacked there by this or an earlier call.

    What came of a pull that broke off stays, and the same again goes on. Raises RegistryFailure where the registry
    stays broken, CardstockError where the disk is too small, Unsafe for layers that are not what the image says.
    """
    started = Started(home, image.digest)
    with started.alone(image.variant, say):
        root, done = started.folder / ROOT, started.folder / DONE
        found = read_image(repository, image.digest)
        if found is None:
            raise RegistryFailure(f"{repository.name} has no {image.digest} any more", do="run the same again later")
        if done.is_file():
            say(f"{image.variant} is unpacked already: {root}")
            return found.configuration, root
        _check_room(started, image)
        if root.exists():
            _drop(root)  # of a run that did not end: which layers are in it is not known
        root.mkdir(parents=True)
        _unpack_all(repository, image, found, started, say)
        done.write_text(f"{image.digest}\n", encoding="utf-8")
        return found.configuration, root


def _unpack_all(repository: Repository, image: PublishedImage, found: RemoteImage, started: Started, say: Say) -> None:
    most = max(int(image.unpacked * _MORE), image.unpacked + _LEAST_MORE)
    unpacking = Unpacking(started.folder / ROOT, most, owners=os.geteuid() == 0)
    packed = [_fetch(repository, layer, started.folder, say) for layer in found.layers]
    for path, layer, diff_id in zip(packed, found.layers, found.diff_ids, strict=True):
        say(f"unpacking {layer.digest[7:19]}: {human_bytes(layer.size)}")
        unpack_layer(path, diff_id, unpacking)
    for path in set(packed):
        path.unlink(missing_ok=True)
    if unpacking.skipped:
        say(f"{unpacking.skipped} devices or pipes of the image were left out")


def _fetch(repository: Repository, layer: Blob, folder: Path, say: Say) -> Path:
    path = folder / layer.digest.replace(":", "-")
    if not (path.is_file() and digest_of_file(path) == layer.digest):
        say(f"layer {layer.digest[7:19]}: {human_bytes(layer.size)}")
        repository.download(layer, path, keep=True)
    return path


def _check_room(started: Started, image: PublishedImage) -> None:
    started.begin()
    need, free = image.compressed + image.unpacked, shutil.disk_usage(started.folder).free
    if free < need:
        raise CardstockError(
            f"the disk is too small for {image.variant}: {human_bytes(need)} needed, {human_bytes(free)} free",
            cause="its layers come packed, and are unpacked beside that",
            do="free some space, or set CARDSTOCK_HOME to a larger disk",
            where=str(started.folder),
        )


def _drop(root: Path) -> None:
    """Remove a root; folders of it may not be for writing."""
    for folder, names, _ in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
    shutil.rmtree(root)


def _unsafe(what: str, cause: str) -> Unsafe:
    return Unsafe(what, cause=cause, do="do not use it; tell whoever publishes it")
