"""Which names of a library are its own: the C functions of its prefix, and nothing that another library has as well."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from images.device_code.dynamic import Dynamic, Kind, Symbol

# Library -> what its functions begin with, where that is not the library's name. NCCL has a second set of names for
# profilers, NVTX its old and its new name.
_PREFIXES = {"nccl": ("nccl", "pnccl"), "nvtoolsext": ("nvtx",), "nvtx": ("nvtx",)}
_OF_THE_LINKER = ("_init", "_fini", "__bss_start", "_edata", "_end", "_start", "__data_start", "data_start", "_etext")
_SONAME = re.compile(r"lib([A-Za-z]+[0-9]*)[\w.+-]*\.so(\.[\w.]+)?", re.ASCII)
_FUNCTION = re.compile(r"[A-Za-z_]\w{0,199}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z_][\w.+-]{0,99}", re.ASCII)


class StandInError(Exception):
    """What hinders a stand-in: the message names the file or the glob."""


@dataclass(frozen=True)
class Chosen:
    """What a stand-in exports: (function, version) by name, "" without a version; ``left_out`` counts the rest."""

    stem: str
    soname: str
    functions: tuple[tuple[str, str], ...]
    left_out: Mapping[str, int]


def stem_of(soname: str) -> str:
    """The library's bare name in small letters: "cudnn" of libcudnn_ops.so.9. Raises StandInError."""
    found = _SONAME.fullmatch(soname)
    if not found:
        raise StandInError(f"its SONAME is {soname!r}: libNAME.so.NUMBER was expected")
    return re.sub(r"\d+$", "", found[1]).lower()


def choose(dynamic: Dynamic) -> Chosen:
    """The C functions of the library's own prefix.

    C++ names are left out: many libraries export those of the C++ standard library, and a process that finds one in a
    stand-in breaks. Data is left out too: no caller reads it but the library's own parts.

    Raises StandInError for a library without such functions, with data that anybody might use (exported without a
    version), or with several versions of one function.
    """
    stem = stem_of(dynamic.soname)
    prefixes = _PREFIXES.get(stem, (stem,))
    own: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for symbol in dynamic.exports:
        reason = _left_out(symbol, prefixes)
        if reason:
            left_out[reason] += 1
            continue
        if symbol.name in own or not symbol.default:
            raise StandInError(f"{symbol.name} of {dynamic.soname} has several versions: none stands in for it")
        if not _FUNCTION.fullmatch(symbol.name) or (symbol.version and not _VERSION.fullmatch(symbol.version)):
            raise StandInError(f"{dynamic.soname} exports {symbol.name!r} {symbol.version!r}: no names for C")
        own[symbol.name] = symbol.version
    if not own:
        raise StandInError(f"{dynamic.soname} exports no function that begins with {' or '.join(prefixes)}")
    return Chosen(stem, dynamic.soname, tuple(sorted(own.items())), dict(sorted(left_out.items())))


def _left_out(symbol: Symbol, prefixes: tuple[str, ...]) -> str:
    """Why a stand-in does without it, or ""."""
    if symbol.name.startswith("_Z"):
        return "C++"
    if symbol.name in _OF_THE_LINKER:
        return "of the linker"
    if symbol.kind is not Kind.FUNCTION:
        if not symbol.version:
            raise StandInError(f"it exports data without a version, {symbol.name}: a program may hold a copy of it")
        return "data"
    if not symbol.name.lstrip("_").lower().startswith(prefixes):
        return "of another prefix"
    return ""
