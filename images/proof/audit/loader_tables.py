"""What the ELF files of an image ask of the loader and offer it: kept small while the image streams by.

An `ImageTables` is the watcher of `audit_image`. Of each file it keeps names, not the file: for the images of torch a
few hundred thousand symbols, 200 MB at most.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from images.core import CheckFailed
from images.device_code.dynamic import Dynamic, read_dynamic
from images.device_code.elf import FatbinError, View
from images.device_code.names import shown
from images.device_code.stand_ins.made import DISTRIBUTION, LIST, loads
from images.device_code.stand_ins.source import SAID

SITE = "site-packages/"
_LIST = re.compile(rf"(?P<site>(?:.*/)?{SITE}){DISTRIBUTION.replace('-', '_')}-[^/]+\.dist-info/{re.escape(LIST)}")
# Far beyond any image: the largest has 1,300 ELF files, 640,000 symbols, 4,000 links.
_MOST_FILES, _MOST_SYMBOLS, _MOST_LINKS = 1 << 16, 1 << 23, 1 << 20
_MOST_STAND_IN = 4 << 20  # bytes; a stand-in has 15 to 190 KB
_MOST_JUMPS = 40  # as the kernel follows links
_PLAIN = (("", True),)


@dataclass(frozen=True, slots=True)
class Want:
    """A symbol that must be there before a file can be used: ``library`` is the one that its version is of."""

    name: str
    version: str
    library: str


@dataclass(frozen=True, slots=True)
class Table:
    """One file. ``exports``: name -> (version, whether it is the default) of each definition; ``wants`` are strong."""

    soname: str
    needed: tuple[str, ...]
    paths: tuple[str, ...]
    versions: frozenset[str]
    needs: tuple[tuple[str, tuple[str, ...]], ...]
    exports: Mapping[str, tuple[tuple[str, bool], ...]] = field(repr=False)
    wants: tuple[Want, ...] = field(repr=False)

    @staticmethod
    def of(dynamic: Dynamic) -> Table:
        """What counts of a dynamic segment."""
        exports: dict[str, tuple[tuple[str, bool], ...]] = {}
        for one in dynamic.exports:
            mine = _PLAIN if not one.version and one.default else ((one.version, one.default),)
            exports[sys.intern(one.name)] = exports[one.name] + mine if one.name in exports else mine
        wants = tuple(Want(sys.intern(one.name), one.version, one.library) for one in dynamic.wants if not one.weak)
        return Table(
            soname=dynamic.soname,
            needed=dynamic.needed,
            paths=(*dynamic.rpath, *dynamic.runpath),
            versions=frozenset(dynamic.versions),
            needs=dynamic.needs,
            exports=exports,
            wants=wants,
        )


def below_site(name: str) -> str:
    """A file's name below site-packages, or as it is."""
    return name.partition(SITE)[2] or name


class ImageTables:
    """Every ELF file of one image with a dynamic segment, the image's links, its stand-ins and their list."""

    def __init__(self) -> None:
        self.files: dict[str, Table] = {}
        self.damaged: dict[str, str] = {}
        self.stand_ins: dict[str, str] = {}  # name -> SHA-256, of files that say so
        self.listed: dict[str, str] = {}  # the same, by the list of their distribution
        self.list_problem = ""
        self._links: dict[str, str] = {}
        self._symbols = 0

    @property
    def symbols(self) -> int:
        """How many symbols the files define and want."""
        return self._symbols

    def elf(self, name: str, view: View) -> None:
        """Take a file's table. Raises CheckFailed where there is more than any image has."""
        try:
            dynamic = read_dynamic(view)
        except FatbinError as error:
            self.damaged[name] = str(error)
            return
        if dynamic is None:
            return
        self.files[name] = Table.of(dynamic)
        self._symbols += len(dynamic.symbols)
        if len(self.files) > _MOST_FILES or self._symbols > _MOST_SYMBOLS:
            raise _too_much(f"{len(self.files)} ELF files with {self._symbols} symbols")
        if len(view) <= _MOST_STAND_IN and SAID.encode() in (content := bytes(view)):
            self.stand_ins[name] = hashlib.sha256(content).hexdigest()

    def link(self, name: str, target: str) -> None:
        """Keep a link. Raises CheckFailed where there are more than any image has."""
        self._links[name] = target
        if len(self._links) > _MOST_LINKS:
            raise _too_much(f"more than {_MOST_LINKS} links")

    def reads(self, name: str) -> bool:
        """The list of stand-ins, of their own distribution."""
        return _LIST.fullmatch(name) is not None

    def text(self, name: str, content: bytes) -> None:
        """Take the list of stand-ins."""
        match = _LIST.fullmatch(name)
        try:
            rows = loads(content.decode("utf-8")).stand_ins
            self.listed |= {f"{match['site'] if match else ''}{row.file}": row.sha256 for row in rows}
        except ValueError as error:
            self.list_problem = f"{shown(name)} is no list of stand-ins: {shown(str(error))}"

    def real(self, path: str) -> str:
        """A path with its links followed, wherever in it they are; unfinished where they lead in a circle."""
        for _ in range(_MOST_JUMPS):
            parts = path.split("/")
            for count in range(1, len(parts) + 1):
                target = self._links.get("/".join(parts[:count]))
                if target is not None:
                    path = posixpath.normpath("/".join((target, *parts[count:])))
                    break
            else:
                return path
        return path

    def file_at(self, path: str) -> str:
        """The ELF file at a path; "" where there is none."""
        found = self.real(path)
        return found if found in self.files else ""

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """What a library can be asked for by, once it is loaded -> files: its SONAME, or its name where it has none."""
        found: dict[str, list[str]] = {}
        for name, table in self.files.items():
            found.setdefault(table.soname or posixpath.basename(name), []).append(name)
        return {asked: tuple(sorted(files)) for asked, files in found.items()}


def _too_much(what: str) -> CheckFailed:
    return CheckFailed(
        f"the image holds {what}", cause="no image of Cardstock's has so many", do="see what was put into it"
    )
