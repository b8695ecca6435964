"""What one ELF file asks of the loader and offers it, from its dynamic segment: names, libraries, symbols, versions.

`read_dynamic` gives a `Dynamic`: SONAME, NEEDED, RPATH and RUNPATH, the versions it defines, those it needs of each
library, and its symbols that are not local. Each `Symbol` has its name, its version ("" without), for a wanted one the
library that the version is of, and whether it is defined, weak, a default ("@@": what somebody takes who names no
version), a function or data. `Dynamic.exports` and `Dynamic.wants` part the two kinds. Read as the loader does, by
addresses in segments; the table of sections serves to count symbols alone, where there is one. Pure; every offset is
checked before it is followed, and every count bounded. Source: System V ABI, chapter 5; "ELF Symbol Versioning" (LSB).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from images.device_code.elf import FatbinError, View, is_elf

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_ENTRY = struct.Struct("<qQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_VERDEF, _VERDAUX = struct.Struct("<HHHHIII"), struct.Struct("<II")
_VERNEED, _VERNAUX = struct.Struct("<HHIII"), struct.Struct("<IHHII")
_PT_LOAD, _PT_DYNAMIC, _SHT_DYNSYM = 1, 2, 11
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME, _RPATH, _RUNPATH = 1, 4, 5, 6, 10, 11, 14, 15, 29
_GNU_HASH, _VERSYM = 0x6FFFFEF5, 0x6FFFFFF0
_VERDEFS, _VERDEFNUM, _VERNEEDS, _VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_ABSOLUTE = 0xFFF1
_LOCAL, _WEAK = 0, 2
_HIDDEN_VERSION, _BASE = 0x8000, 1
# libtorch_cpu.so, the largest known, has 217,000 symbols and 40 MB of names.
_MOST_ENTRIES, _MOST_SEGMENTS, _MOST_SYMBOLS, _MOST_VERSIONS = 1 << 16, 1 << 16, 1 << 22, 1 << 15
_MOST_NAMES, _LONGEST_NAME, _MOST_TEXT = 1 << 28, 1 << 20, 1 << 28


class Kind(Enum):
    """What a symbol stands for. ``VERSION`` is the mark that some linkers leave for a version's own name."""

    FUNCTION = "function"
    DATA = "data"
    THREAD = "data of each thread"
    VERSION = "version"
    OTHER = "other"


_KINDS = {1: Kind.DATA, 2: Kind.FUNCTION, 5: Kind.DATA, 6: Kind.THREAD, 10: Kind.FUNCTION}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol that is not local; ``size`` in bytes. ``library``: for a wanted one, the NEEDED that has its version.

    A defined one may have a version that the file needs: a program's own copy of a library's data.

    ``default``: it is defined, and what names no version takes it. ``visible``: other files may take it.
    """

    name: str
    version: str
    library: str
    defined: bool
    weak: bool
    default: bool
    visible: bool
    kind: Kind
    size: int


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A file's dynamic segment. Paths are parted at ":", with "$ORIGIN" as it stands.

    ``versions`` are the names it defines (without its own SONAME's, the base); ``needs`` the versions it wants of each
    library.
    """

    soname: str
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    versions: tuple[str, ...]
    needs: tuple[tuple[str, tuple[str, ...]], ...]
    symbols: tuple[Symbol, ...]

    @property
    def exports(self) -> tuple[Symbol, ...]:
        """What other files may take from it."""
        return tuple(one for one in self.symbols if one.defined and one.visible and one.kind is not Kind.VERSION)

    @property
    def wants(self) -> tuple[Symbol, ...]:
        """What it takes from other files; a weak one may be missing."""
        return tuple(one for one in self.symbols if not one.defined)


def read_dynamic(view: View) -> Dynamic | None:
    """The dynamic segment of ``view``; None where there is none (static programs, object files), or no ELF.

    Raises FatbinError where a table or a name is not inside the file, and for counts beyond any known file's.
    """
    if not is_elf(view):
        return None
    image = _Image(view)
    span = image.dynamic()
    if span is None:
        return None
    raw = bytes(view[span[0] : span[0] + span[1] // _ENTRY.size * _ENTRY.size])
    entries = []
    for tag, value in _ENTRY.iter_unpack(raw):
        if tag == 0:
            break
        entries.append((tag, value))
    tags = dict(entries)
    names = _Names(image, tags)
    versions, bases = _defined_versions(image, tags, names)
    needs, wanted = _needed_versions(image, tags, names)
    texts = {tag: [names.at(value) for kind, value in entries if kind == tag] for tag in (_NEEDED, _SONAME)}
    paths = {tag: names.at(tags[tag]).split(":") if tag in tags else [] for tag in (_RPATH, _RUNPATH)}
    return Dynamic(
        soname=(texts[_SONAME] or [""])[-1],
        needed=tuple(texts[_NEEDED]),
        rpath=tuple(paths[_RPATH]),
        runpath=tuple(paths[_RUNPATH]),
        versions=tuple(name for index, name in sorted(versions.items()) if index not in bases),
        needs=needs,
        symbols=tuple(_symbols(image, tags, names, versions, wanted)),
    )


class _Image:
    """Addresses of the loaded file, as offsets in it."""

    def __init__(self, view: View) -> None:
        self.view, self.size = view, len(view)
        self.header = _HEADER.unpack_from(view, 0)
        phoff, phentsize, phnum = self.header[5], self.header[9], self.header[10]
        if phnum and phentsize != _SEGMENT.size:
            raise FatbinError(f"segments of {_SEGMENT.size} bytes expected, not {phentsize}", 54)
        if phnum > _MOST_SEGMENTS or phoff + phnum * _SEGMENT.size > self.size:
            raise FatbinError(f"{phnum} segments expected inside the file of {self.size} bytes", phoff)
        table = bytes(view[phoff : phoff + phnum * _SEGMENT.size])
        self.segments = list(_SEGMENT.iter_unpack(table))
        self.loads = [one for one in self.segments if one[0] == _PT_LOAD]

    def dynamic(self) -> tuple[int, int] | None:
        """Offset and size of the dynamic segment."""
        for kind, _, offset, _, _, filesz, _, _ in self.segments:
            if kind == _PT_DYNAMIC:
                if offset + filesz > self.size or filesz > _MOST_ENTRIES * _ENTRY.size:
                    raise FatbinError(f"a dynamic segment expected inside the file of {self.size} bytes", offset)
                return offset, filesz
        return None

    def offset(self, address: int, size: int, what: str) -> int:
        """Where ``size`` bytes at ``address`` lie in the file."""
        for _, _, offset, vaddr, _, filesz, _, _ in self.loads:
            if vaddr <= address and address + size <= vaddr + filesz:
                at: int = offset + address - vaddr
                if at + size <= self.size:
                    return at
        raise FatbinError(f"{what} expected in a segment of the file, not at address {address:#x}", 32)

    def unpack(self, form: struct.Struct, address: int, what: str) -> tuple[int, ...]:
        return form.unpack_from(self.view, self.offset(address, form.size, what))

    def table(self, form: struct.Struct, address: int, count: int, what: str) -> Iterator[tuple[int, ...]]:
        at = self.offset(address, count * form.size, what)
        return form.iter_unpack(bytes(self.view[at : at + count * form.size]))

    def dynsym_count(self, address: int) -> int | None:
        """How many symbols the table of sections says there are; None without such a table, or one that is damaged."""
        shoff, shentsize, shnum = self.header[6], self.header[11], self.header[12]
        if not shoff or shentsize != _SECTION.size or shoff + shnum * _SECTION.size > self.size:
            return None
        for header in _SECTION.iter_unpack(bytes(self.view[shoff : shoff + shnum * _SECTION.size])):
            if header[1] == _SHT_DYNSYM and header[3] == address:
                count: int = header[5] // _SYMBOL.size
                return count
        return None


class _Names:
    """The table of names. All that is read from it together is bounded: names may share bytes."""

    def __init__(self, image: _Image, tags: Mapping[int, int]) -> None:
        size = tags.get(_STRSZ, 0)
        if size > _MOST_NAMES:
            raise FatbinError(f"at most {_MOST_NAMES} bytes of names expected, not {size}", 32)
        self.start = image.offset(tags[_STRTAB], size, "the names of symbols") if _STRTAB in tags else 0
        self.raw = bytes(image.view[self.start : self.start + size]) if _STRTAB in tags else b""
        self.read = 0

    def at(self, offset: int) -> str:
        end = self.raw.find(b"\0", offset, offset + _LONGEST_NAME) if offset < len(self.raw) else -1
        if end < 0:
            raise FatbinError("a name expected in the table of names", self.start + min(offset, len(self.raw)))
        self.read += end - offset
        if self.read > _MOST_TEXT:
            raise FatbinError(f"at most {_MOST_TEXT} bytes of names expected", self.start)
        return self.raw[offset:end].decode("latin-1")


def _defined_versions(
    image: _Image, tags: Mapping[int, int], names: _Names
) -> tuple[Mapping[int, str], frozenset[int]]:
    """Version index -> name that the file defines, and which of them are the base (the file's own name)."""
    found: dict[int, str] = {}
    bases = set()
    at = tags.get(_VERDEFS, 0)
    for _ in range(_count(tags, _VERDEFNUM) if at else 0):
        _, flags, index, count, _, first, following = image.unpack(_VERDEF, at, "a version that is defined")
        if count:
            name, _ = image.unpack(_VERDAUX, at + first, "the name of a version")
            found[index & ~_HIDDEN_VERSION] = names.at(name)
        if flags & _BASE:
            bases.add(index & ~_HIDDEN_VERSION)
        if not following:
            break
        at += following
    return found, frozenset(bases)


def _needed_versions(
    image: _Image, tags: Mapping[int, int], names: _Names
) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], Mapping[int, tuple[str, str]]]:
    """What is needed of each library, and version index -> (library, version)."""
    needs: list[tuple[str, tuple[str, ...]]] = []
    found: dict[int, tuple[str, str]] = {}
    at, left = tags.get(_VERNEEDS, 0), _MOST_VERSIONS
    for _ in range(_count(tags, _VERNEEDNUM) if at else 0):
        _, count, file, first, following = image.unpack(_VERNEED, at, "a library of which versions are needed")
        library, versions, entry = names.at(file), [], at + first
        for _ in range(count):
            left -= 1
            if left < 0:
                raise FatbinError(f"at most {_MOST_VERSIONS} needed versions expected", 32)
            _, _, index, name, onward = image.unpack(_VERNAUX, entry, "a version that is needed")
            versions.append(names.at(name))
            found[index & ~_HIDDEN_VERSION] = (library, versions[-1])
            if not onward:
                break
            entry += onward
        needs.append((library, tuple(versions)))
        if not following:
            break
        at += following
    return tuple(needs), found


def _count(tags: Mapping[int, int], tag: int) -> int:
    count = tags.get(tag, 0)
    if count > _MOST_VERSIONS:
        raise FatbinError(f"at most {_MOST_VERSIONS} versions expected, not {count}", 32)
    return count


def _symbols(
    image: _Image,
    tags: Mapping[int, int],
    names: _Names,
    versions: Mapping[int, str],
    wanted: Mapping[int, tuple[str, str]],
) -> Iterator[Symbol]:
    if _SYMTAB not in tags:
        return
    if tags.get(_SYMENT, _SYMBOL.size) != _SYMBOL.size:
        raise FatbinError(f"symbols of {_SYMBOL.size} bytes expected, not {tags[_SYMENT]}", 32)
    count = _symbol_count(image, tags)
    if count > _MOST_SYMBOLS:
        raise FatbinError(f"at most {_MOST_SYMBOLS} symbols expected, not {count}", 32)
    table = image.table(_SYMBOL, tags[_SYMTAB], count, f"{count} symbols")
    half = struct.Struct("<H")
    indices = (
        [one for (one,) in image.table(half, tags[_VERSYM], count, f"versions of {count} symbols")]
        if _VERSYM in tags
        else [_BASE] * count
    )
    known = set(versions.values())
    for (name_at, info, other, place, _, size), word in zip(table, indices, strict=True):
        if info >> 4 == _LOCAL:
            continue
        index, defined, name = word & ~_HIDDEN_VERSION, place != 0, names.at(name_at)
        library, version = wanted.get(index, ("", versions.get(index, ""))) if index > _BASE else ("", "")
        kind = _KINDS.get(info & 15, Kind.OTHER)
        yield Symbol(
            name=name,
            version=version,
            library="" if defined else library,
            defined=defined,
            weak=info >> 4 == _WEAK,
            default=defined and not word & _HIDDEN_VERSION,
            visible=other & 3 in (0, 3) and not (defined and index == 0),
            kind=Kind.VERSION if defined and place == _ABSOLUTE and name in known else kind,
            size=size,
        )


def _symbol_count(image: _Image, tags: Mapping[int, int]) -> int:
    """As many as the section says; without sections as many as the hash tables reach."""
    counted = image.dynsym_count(tags[_SYMTAB])
    if counted is not None:
        return counted
    if _HASH in tags:
        _, chains = image.unpack(struct.Struct("<II"), tags[_HASH], "the hash table")
        return chains
    if _GNU_HASH not in tags:
        return 0
    head = struct.Struct("<IIII")
    buckets, first, bloom, _ = image.unpack(head, tags[_GNU_HASH], "the hash table")
    if max(buckets, bloom) > _MOST_SYMBOLS:
        raise FatbinError(f"at most {_MOST_SYMBOLS} buckets of a hash table expected", 32)
    word = struct.Struct("<I")
    at = tags[_GNU_HASH] + head.size + 8 * bloom
    last = max((one for (one,) in image.table(word, at, buckets, "buckets of the hash table")), default=0)
    if last < first:  # nothing is exported: names stand right behind the symbols
        return max(0, tags.get(_STRTAB, 0) - tags[_SYMTAB]) // _SYMBOL.size
    chains = at + word.size * buckets
    while last < _MOST_SYMBOLS:
        (link,) = image.unpack(word, chains + word.size * (last - first), "a chain of the hash table")
        last += 1
        if link & 1:
            break
    return last
