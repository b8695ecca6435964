"""What images leave out on purpose, for people: lines of `explain`, and the tables of docs/build.md. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from images.matrix.model import StandIn, UnusedPackage
from images.matrix.variants import Variant, Variants

_MARKS = "ASDU"


def library_name(glob: str) -> str:
    """A library by its plain name: libcufft of "nvidia/*/lib/libcufft.so.*"."""
    return PurePosixPath(glob).name.partition(".so")[0]


def left_out_lines(variants: Iterable[Variant]) -> list[str]:
    """Stack by stack: each library that these images leave out, and each package, with the reason and its source."""
    out: list[str] = []
    among = list(variants)
    packages = _packages_by_lock(among)
    for one in {variant.lock: variant for variant in among}.values():
        if not one.stand_ins and not packages[one.lock]:
            continue
        whole = "; ./inv build --whole has NVIDIA's libraries as they are" if one.stand_ins else ""
        out.append(f"left out of images of {one.lock}{whole}")
        for row in one.stand_ins:
            what = "gone" if row.gone else "a stand-in"
            out.append(f"  {library_name(row.library)}, {row.used_for}: {what}")
            out.append(f"    why: {row.reason}\n    source: [{row.mark}] {row.source}")
        for unused in packages[one.lock]:
            where = f" ({there})" if (there := unused.only_in) else ""
            out.append(f"  {', '.join((*unused.packages, *unused.files))}: not there{where}")
            out.append(f"    why: {unused.reason}\n    source: [{unused.mark}] {unused.source}")
    return out


def _packages_by_lock(variants: Iterable[Variant]) -> dict[str, list[UnusedPackage]]:
    """What any image of a lock leaves out, in the file's order where one image has all of it."""
    found: dict[str, list[UnusedPackage]] = {}
    for variant in variants:
        rows = found.setdefault(variant.lock, [])
        rows += [row for row in variant.unused_packages if row not in rows]
    return found


def left_out_page(variants: Variants) -> str:
    """The tables of docs/build.md: libraries that have stand-ins or are gone, then packages."""
    by_lock = {variant.lock: variant for variant in variants.valid.values()}
    libraries: dict[tuple[str, str, bool], list[tuple[Variant, StandIn]]] = {}
    packages: dict[tuple[tuple[str, ...], str], list[tuple[Variant, UnusedPackage]]] = {}
    unused_of = _packages_by_lock(variants.valid.values())
    for variant in by_lock.values():
        for row in variant.stand_ins:
            libraries.setdefault((row.library, row.used_for, row.gone), []).append((variant, row))
        for unused in unused_of[variant.lock]:
            names = (*unused.packages, *unused.files)
            reason = f"{unused.reason} ({there})" if (there := unused.only_in) else unused.reason
            packages.setdefault((names, reason), []).append((variant, unused))
    lines = [
        "| Library | Used for | In its place | MB as installed | Of images of |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (library, used_for, gone), rows in libraries.items():
        measured = {one.stack: row.mb[one.stack] for one, row in rows if one.stack in row.mb}
        sizes = ", ".join(f"{mb} ({stack})" for stack, mb in measured.items())
        place = "nothing" if gone else "a stand-in"
        where = _places(by_lock, [(one, row.mark) for one, row in rows])
        lines.append(f"| `{library_name(library)}` | {used_for} | {place} | {sizes or '-'} | {where} |")
    if packages:
        lines += ["", "| Package or file | Why no server needs it | Of images of |", "| --- | --- | --- |"]
    for (names, reason), found in packages.items():
        where = _places(by_lock, [(one, row.mark) for one, row in found])
        told = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {told} | {reason.replace('|', '/')} | {where} |")
    return "\n".join(lines)


def _places(by_lock: dict[str, Variant], rows: Sequence[tuple[Variant, str]]) -> str:
    """ "cu124, cu130 [A]; cu118 [U]": a stack where all of its backends leave it out, else its lock's name."""
    backends: dict[str, set[str]] = {}
    for variant in by_lock.values():
        backends.setdefault(variant.stack, set()).add(variant.lock)
    out = []
    for mark in _MARKS:
        locks = {variant.lock for variant, own in rows if own == mark}
        stacks = dict.fromkeys(variant.stack for variant, own in rows if own == mark)
        names = [n for s in stacks for n in ([s] if backends[s] <= locks else sorted(locks & backends[s]))]
        if names:
            out.append(f"{', '.join(names)} [{mark}]")
    return "; ".join(out)
