"""Level 1: is everything there that the libraries and programs of an image need before they can be used? Pure.

What a file needs is its DT_NEEDED and its strong undefined symbols. A symbol must be defined by a library that the
loader has in sight: the file's own libraries and theirs, those of Python, or those of a file that loads this one. A
needed library is looked for where the loader does (RPATH, RUNPATH, $ORIGIN, the system's folders), then by SONAME
anywhere in the image, because torch loads NVIDIA's libraries by their paths first, and the loader then knows them by
name. Source: ld.so(8); glibc 2.36, elf/dl-lookup.c and elf/dl-version.c.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from images.device_code.names import shown
from images.proof.audit.loader_tables import ImageTables, Want, below_site

# Of Debian's loader, and of /etc/ld.so.conf.d.
_SYSTEM = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib", "usr/lib", "lib64", "usr/lib64", "usr/local/lib")
_INTERPRETER = re.compile(r"(.*/)?bin/python3?(\.\d+)?")
_TOLD = 4  # symbols in a sentence


@dataclass(frozen=True)
class HostLibrary:
    """A library that comes from the machine: what its symbols begin with, and who puts it into a container."""

    symbols: str
    reason: str


_TOOLKIT = "of the driver: the container toolkit mounts it"
HOST: Mapping[str, HostLibrary] = {
    "libcuda.so.1": HostLibrary(r"cu[A-Z]\w*", _TOOLKIT),
    "libnvidia-ml.so.1": HostLibrary(r"nvml\w+", _TOOLKIT),
    "libnvcuvid.so.1": HostLibrary(r"cuvid\w+", f"{_TOOLKIT}, with the capability video"),
    "libnvidia-encode.so.1": HostLibrary(r"NvEncode\w+", f"{_TOOLKIT}, with the capability video"),
}


@dataclass(frozen=True)
class Unmet:
    """What is known to be missing: in files ``library`` (a glob), libraries or symbols ``wants`` (globs), and why."""

    library: str
    wants: tuple[str, ...]
    reason: str

    def excuses(self, name: str, want: str) -> bool:
        """Whether the file ``name`` may do without a library or a symbol."""
        return fnmatchcase(below_site(name), self.library) and any(fnmatchcase(want, glob) for glob in self.wants)


@dataclass(frozen=True)
class Closure:
    """What is missing and nobody knew (``complaints``), and what is ``known`` to be missing, with the reason."""

    complaints: tuple[str, ...]
    known: tuple[str, ...]
    files: int
    symbols: int


def judge_closure(tables: ImageTables, unmet: Sequence[Unmet]) -> Closure:
    """Everything that the files of an image need and is not there."""
    linked = _Linked(tables, unmet)
    complaints = [f"{_tell(name)}: {shown(why)}" for name, why in sorted(tables.damaged.items())]
    idle = linked.idle
    for name in sorted(tables.files):
        if libraries := [*linked.missing_libraries(name)]:  # then its symbols are missing too: one cause is told once
            complaints += libraries
        elif name not in idle:
            complaints += [*linked.missing_versions(name), *linked.missing_symbols(name)]
    known = [f"{_tell(name)}: without {shown(want)} ({reason})" for name, (want, reason) in sorted(idle.items())]
    known += [f"{_tell(name)}: {text}" for name, text in sorted(linked.excused)]
    return Closure(tuple(complaints), tuple(known), len(tables.files), tables.symbols)


class _Linked:
    """The files of an image, and which of them the loader has in sight from each."""

    def __init__(self, tables: ImageTables, unmet: Sequence[Unmet]) -> None:
        self._tables, self._unmet = tables, unmet
        self._by_name = tables.names()
        self._found = {
            name: {need: self._find(name, need) for need in table.needed} for name, table in tables.files.items()
        }
        self._closures: dict[str, frozenset[str]] = {}
        self.excused: list[tuple[str, str]] = []

    def _find(self, name: str, need: str) -> tuple[str, ...]:
        """The files that can answer for ``need``: the one the loader finds, else all of that name."""
        origin = "/" + posixpath.dirname(name)
        own = [path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for path in self._tables.files[name].paths]
        for folder in (*own, *_SYSTEM):
            at = posixpath.normpath(posixpath.join("/", folder, need)).lstrip("/")
            if found := self._tables.file_at(at):
                return (found,)
        return self._by_name.get(need, ())

    def closure(self, name: str) -> frozenset[str]:
        """The file, the libraries that it needs, and theirs."""
        if name not in self._closures:
            seen, waiting = {name}, [name]
            while waiting:
                for files in self._found[waiting.pop()].values():
                    waiting += [one for one in files if one not in seen]
                    seen.update(files)
            self._closures[name] = frozenset(seen)
        return self._closures[name]

    def _excuse(self, name: str, want: str) -> str:
        return next((row.reason for row in self._unmet if row.excuses(name, want)), "")

    @cached_property
    def _interpreter(self) -> frozenset[str]:
        programs = [name for name in self._tables.files if _INTERPRETER.fullmatch(name)]
        return frozenset().union(*(self.closure(name) for name in programs))

    @cached_property
    def _definers(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, table in self._tables.files.items():
            for symbol in table.exports:
                found.setdefault(symbol, []).append(name)
        return found

    @cached_property
    def _loaders(self) -> Mapping[str, list[str]]:
        """File -> the files that have it among their libraries."""
        found: dict[str, list[str]] = {}
        for name in self._tables.files:
            for one in self.closure(name) - {name}:
                found.setdefault(one, []).append(name)
        return found

    @cached_property
    def idle(self) -> dict[str, tuple[str, str]]:
        """Files that cannot be loaded, which is known: name -> the library that is missing, and why it may be.

        What needs such a file cannot be loaded either, and must be known as well.
        """
        idle: dict[str, tuple[str, str]] = {}
        before = -1
        while len(idle) != before:
            before = len(idle)
            for name, needs in self._found.items():
                for need, files in needs.items() if name not in idle else ():
                    gone = not files and need not in HOST
                    if (gone or (files and idle.keys() >= set(files))) and (reason := self._excuse(name, need)):
                        idle[name] = need, reason
        return idle

    def missing_libraries(self, name: str) -> Iterator[str]:
        """Libraries that are not there, or can themselves not be loaded."""
        for need, files in self._found[name].items():
            if self._excuse(name, need):
                continue
            if not files and need not in HOST:
                yield f"{_tell(name)} needs {shown(need)}, which is not in the image"
            elif files and self.idle.keys() >= set(files):
                yield f"{_tell(name)} needs {shown(need)}, which cannot be loaded without {self.idle[files[0]][0]}"

    def missing_versions(self, name: str) -> Iterator[str]:
        """Versions that a library does not define; one without any version is taken as it is."""
        for library, versions in self._tables.files[name].needs:
            found = [self._tables.files[one] for one in self._found[name].get(library, ())]
            if found and all(one.versions for one in found):
                for version in versions:
                    if not any(version in one.versions for one in found) and not self._excuse(name, library):
                        yield f"{_tell(name)} wants the version {shown(version)} of {shown(library)}, which has it not"

    def missing_symbols(self, name: str) -> Iterator[str]:
        """One sentence, if anything is missing."""
        in_sight = self.closure(name) | self._interpreter
        missing = [want for want in self._tables.files[name].wants if not self._defined(want, in_sight)]
        if missing:
            missing = [want for want in missing if not self._given(name, want)]
        known = {want: self._excuse(name, want.name) for want in missing}
        for reason in dict.fromkeys(reason for reason in known.values() if reason):
            count = sum(one == reason for one in known.values())
            self.excused.append((name, f"without {count} symbols ({reason})"))
        if left := [want for want in missing if not known[want]]:
            yield f"{_tell(name)} wants {_some(left)}{self._elsewhere(left)}"

    def _defined(self, want: Want, among: frozenset[str]) -> bool:
        return any(one in among and self._matches(want, one) for one in self._definers.get(want.name, ()))

    def _matches(self, want: Want, name: str) -> bool:
        """As the loader does: the wanted version, no version in particular, or a library without versions."""
        table = self._tables.files[name]
        if not want.version or not table.versions:
            return True
        return any(version == want.version or (not version and plain) for version, plain in table.exports[want.name])

    def _given(self, name: str, want: Want) -> bool:
        """By the machine's driver, or by what loads this file."""
        hosts = {need for one in self.closure(name) for need in self._tables.files[one].needed} & HOST.keys()
        if any(re.fullmatch(HOST[one].symbols, want.name) for one in hosts):
            return True
        return any(self._defined(want, self.closure(one)) for one in self._loaders.get(name, ()))

    def _elsewhere(self, wants: Sequence[Want]) -> str:
        there = [one for one in self._definers.get(wants[0].name, ()) if self._matches(wants[0], one)]
        return f"; {_tell(there[0])} has the first, out of sight" if there else ""


def _tell(name: str) -> str:
    return shown(below_site(name))


def _some(wants: Sequence[Want]) -> str:
    told = [shown(f"{one.name}@{one.version}" if one.version else one.name) for one in wants[:_TOLD]]
    more = f" and {len(wants) - _TOLD} more" if len(wants) > _TOLD else ""
    return f"{len(wants)} symbol{'s' * (len(wants) > 1)} that nothing in sight defines: {', '.join(told)}{more}"
