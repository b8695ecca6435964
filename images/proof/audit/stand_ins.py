"""Level 1: are an image's stand-ins what the matrix and their own list say, and in nobody's way? Pure.

A stand-in is known by the sentence that it says when it is called, and listed with its digest in `stand_ins.json` of
the distribution `cardstock-stand-ins`. Its maker has held it against the real library, which no image has any more;
here it must be listed, be one of those that the matrix names, and define nothing that another library defines as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from images.device_code.names import shown
from images.proof.audit.loader_tables import SITE, ImageTables, below_site

_TOLD = 4


def judge_stand_ins(tables: ImageTables, wanted: Sequence[str], gone: Sequence[str] = ()) -> tuple[str, ...]:
    """What is wrong; ``wanted`` and ``gone`` are globs below site-packages of what is stood in for, and deleted."""
    complaints = [tables.list_problem] if tables.list_problem else []
    complaints += _against_the_list(tables)
    complaints += _against_the_matrix(tables, wanted, gone)
    complaints += _in_the_way(tables)
    return tuple(complaints)


def _against_the_list(tables: ImageTables) -> Iterator[str]:
    for name in sorted(tables.listed.keys() | tables.stand_ins.keys()):
        if name not in tables.files:
            yield f"{_tell(name)} is listed as a stand-in, and is not there"
        elif name not in tables.stand_ins:
            yield f"{_tell(name)} is listed as a stand-in, and is none"
        elif name not in tables.listed:
            yield f"{_tell(name)} is a stand-in, and no list of the image's has it"
        elif tables.listed[name] != tables.stand_ins[name]:
            yield f"{_tell(name)} is not the stand-in that its list has: its SHA-256 differs"


def _against_the_matrix(tables: ImageTables, wanted: Sequence[str], gone: Sequence[str]) -> Iterator[str]:
    for name in sorted(tables.stand_ins):
        if not any(fnmatchcase(below_site(name), glob) for glob in wanted):
            yield f"{_tell(name)} is a stand-in, and the matrix names none there"
    for glob in wanted:
        if not any(fnmatchcase(below_site(name), glob) for name in tables.stand_ins):
            yield f"nothing stands in for {glob}, which the matrix names"
    for name in sorted(tables.files):
        below = below_site(name)
        if SITE in name and name not in tables.stand_ins:
            for glob in (*wanted, *gone):
                if fnmatchcase(below, glob):
                    yield f"{_tell(name)} is there, and the matrix leaves it out ({glob})"


def _in_the_way(tables: ImageTables) -> Iterator[str]:
    """C names alone, and none that a library beside the stand-ins defines: the loader takes the first that it finds."""
    defined: Mapping[str, list[str]] = _definers(tables)
    for name in sorted(tables.stand_ins):
        exports = tables.files[name].exports
        if foreign := sorted(symbol for symbol in exports if symbol.startswith("_Z") or not _own(tables, name, symbol)):
            yield f"{_tell(name)} defines what is not its own library's: {_some(foreign)}"
        if taken := sorted(symbol for symbol in exports if symbol in defined):
            yield f"{_tell(name)} defines what {_tell(defined[taken[0]][0])} defines as well: {_some(taken)}"


def _definers(tables: ImageTables) -> Mapping[str, list[str]]:
    offered = {symbol for name in tables.stand_ins for symbol in tables.files[name].exports}
    found: dict[str, list[str]] = {}
    for name, table in tables.files.items():
        if name not in tables.stand_ins:
            for symbol in offered & table.exports.keys():
                found.setdefault(symbol, []).append(name)
    return found


def _own(tables: ImageTables, name: str, symbol: str) -> bool:
    """Whether it begins as the library's functions do: "cudnn" for libcudnn_ops.so.9."""
    stem = tables.files[name].soname.removeprefix("lib").partition(".")[0].partition("_")[0].lower()
    return symbol.lower().lstrip("_").startswith((stem, f"p{stem}"))


def _tell(name: str) -> str:
    return shown(below_site(name))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(map(shown, names[:_TOLD])) + more
