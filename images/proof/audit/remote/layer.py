"""What one layer puts into an image: names, what it takes away, and what was found in its files. Pure.

Names are from the root, without "/" before them. The rules are those of the OCI image specification, as engines that
lay layers over each other (overlayfs) follow them: a link that a lower layer has is not followed, a folder takes its
place.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from images.device_code.elf import FatbinError
from images.device_code.model import Library
from images.device_code.sources import may_hold_code
from images.proof.audit.remote.faults import LayerFault

Finding = Library | FatbinError
WHITEOUT, OPAQUE, _META = ".wh.", ".wh..wh..opq", ".wh..wh."
PSEUDO = ("proc/", "sys/", "dev/")
_MOST_NAME, _MOST_DEPTH = 4096, 250
_MOST_REPLACED = 1000  # folders whose place something else takes, in one layer: each is a walk through all names
_MOST_LINKS = 40  # as the kernel follows them


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a member's name. Raises LayerFault for one that leads out of the image, or is too long."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in name or len(name) > _MOST_NAME or len(parts) > _MOST_DEPTH:
        raise LayerFault(f"a file's name leads out of the image, or is none: {name[:200]!r}")
    return parts


def above(path: str) -> Iterator[str]:
    """The folders that a path is in, the nearest first, the root ("") last."""
    while path:
        path = path.rpartition("/")[0]
        yield path


@dataclass
class Layer:
    """One layer. ``found`` has what was read; ``links`` other names of files: link -> file, by ``add``'s order."""

    found: dict[str, Finding] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    symlinks: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    _replaced: int = 0

    def folder(self, path: str) -> None:
        """A folder; a file or link of its name is replaced, as where a tar is unpacked."""
        if path:
            self._drop(path)
            self._inside(path)
            self.folders.add(path)

    def file(self, path: str) -> None:
        """A file, or anything else that is no folder."""
        if path in self.folders:
            self._drop_below(path)
        self._drop(path)
        self._inside(path)
        self.files.add(path)

    def link(self, path: str, target: str) -> None:
        """Another name of the file ``target``, which may be a link itself, or lie in a lower layer."""
        self.file(path)
        self.links[path] = self.links.get(target, target)

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link; it leads where ``target`` says, from its own folder or from the root."""
        self.file(path)
        self.symlinks[path] = target

    def whiteout(self, folder: str, name: str) -> bool:
        """Whether a name takes others away; then that is noted."""
        if name == OPAQUE:
            self.opaque.add(folder)
        elif name.startswith(_META):
            pass  # of aufs' own
        elif name.startswith(WHITEOUT):
            taken = name.removeprefix(WHITEOUT)
            if taken in ("", ".", ".."):
                raise LayerFault(f"a whiteout takes away what no file is called: {name[:200]!r}")
            self.gone.add(_join(folder, taken))
        else:
            return False
        return True

    def place(self, name: str) -> tuple[str, str]:
        """Folder and name of a member; links of this layer that were met are followed to the folder."""
        parts = parts_of(name)
        if not parts:
            return "", ""
        return self._follow(parts[:-1]), parts[-1]

    def _follow(self, parts: tuple[str, ...]) -> str:
        path = "/".join(parts)
        if not self.symlinks or not any(one in self.symlinks for one in (path, *above(path))):
            return path
        left, at, followed = list(reversed(parts)), "", 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            step = posixpath.dirname(at) if part == ".." else _join(at, part)
            target = self.symlinks.get(step)
            if target is None or part == "..":
                at = step
                continue
            followed += 1
            if followed > _MOST_LINKS or len(target) > _MOST_NAME:
                raise LayerFault(f"links lead to each other without end: {path[:200]!r}")
            at = "" if target.startswith("/") else at
            left += reversed(target.split("/"))
        return at

    def _inside(self, path: str) -> None:
        """The folders that a path is in are folders."""
        for one in above(path):
            if one in self.folders or not one:
                return
            self._drop(one)
            self.folders.add(one)

    def _drop(self, path: str) -> None:
        for names in (self.found, self.links, self.symlinks):
            names.pop(path, None)
        self.files.discard(path)

    def _drop_below(self, path: str) -> None:
        """What this layer itself put into a folder whose place another thing takes."""
        self._replaced += 1
        if self._replaced > _MOST_REPLACED:
            raise LayerFault(f"more than {_MOST_REPLACED} of its folders are replaced by something else")
        below = f"{path}/"
        for one in [one for one in self.files if one.startswith(below)]:
            self._drop(one)
        self.folders = {one for one in self.folders if one != path and not one.startswith(below)}


@dataclass
class Stack:
    """The layers that were merged, from the top down: what they hide of those below, and what is left to be seen.

    ``wanted``: files of lower layers that a link of an upper one is another name of.
    """

    merged: int = 0
    members: int = 0
    found: dict[str, Finding] = field(default_factory=dict)
    wanted: dict[str, list[str]] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _folders: set[str] = field(default_factory=set)
    _opaque: set[str] = field(default_factory=set)

    def hides(self, path: str) -> bool:
        """Whether a file of the next layer is not seen in the image, under any name."""
        return path not in self.wanted and self._covered(path)

    def _covered(self, path: str) -> bool:
        if path in self._gone or path in self._folders:
            return True
        return any(one in self._gone or one in self._opaque for one in above(path))

    def add(self, layer: Layer) -> None:
        """Put the next lower layer below those that are here."""
        names: dict[str, list[str]] = {path: [path] for path in layer.found}
        for link, target in layer.links.items():
            if target in layer.files and target not in layer.links:
                if target in names:
                    names[target].append(link)
            elif not self._covered(link):
                self.wanted.setdefault(target, []).append(link)
        for path, all_names in names.items():
            seen = [name for name in all_names if not self._covered(name)] + self.wanted.get(path, [])
            if name := first_name(seen):
                self.found[name] = layer.found[path]
        for path in layer.files:
            self.wanted.pop(path, None)
        self._gone |= layer.files | layer.gone
        self._folders |= layer.folders
        self._opaque |= layer.opaque
        self.merged += 1


def first_name(names: Iterable[str]) -> str:
    """Of a file's names the one that an audit tells: the first in a walk through folders whose name a library has."""
    wanted = (name for name in names if may_hold_code(name) and not name.startswith(PSEUDO))
    candidates = sorted(wanted, key=lambda name: name.split("/"))
    return candidates[0] if candidates else ""


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
