"""Tiny 64-bit shared libraries with device code, written byte by byte: no compiler and no card."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

PTX, SASS = 1, 2
A, F = 0x100000, 0x200000
LZ4, ZSTD = 0x2000, 0x8000
WRAPPER = struct.Struct("<IIQQ")
BASE = 0x1000  # addresses are this much above file offsets in the writable segment, as in real libraries


@dataclass(frozen=True)
class Code:
    """One entry to write: ``arch`` 75, kind, payload of ``size`` bytes (a multiple of 8), filled with ``fill``."""

    arch: int
    kind: int = SASS
    flags: int = 0
    size: int = 64
    header: int = 72
    version: tuple[int, int] = (7, 1)
    fill: int = 0xAB

    def pack(self) -> bytes:
        major, minor = self.version
        head = struct.pack("<HHIQ", self.kind, 0x101, self.header, self.size)
        head += struct.pack("<IIHHIIIQQQ", 0, 0, minor, major, self.arch, 0, 0, 0x11 | self.flags, 0, 0)
        return head.ljust(self.header, b"\0") + bytes([self.fill]) * self.size


def container(*codes: Code) -> bytes:
    """A container of these entries."""
    payload = b"".join(code.pack() for code in codes)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(payload)) + payload


def sm(*archs: int) -> bytes:
    """A container of plain SASS for each number."""
    return container(*(Code(arch) for arch in archs))


def fatbin_section(containers: Sequence[bytes], gap: int = 8) -> tuple[bytes, list[int]]:
    """The section's bytes, with ``gap`` zero bytes between containers, and the offset of each container in it."""
    body, places = b"", []
    for one in containers:
        body += b"\0" * (-len(body) % 8)
        places.append(len(body))
        body += one + b"\0" * gap
    return body, places


def library(
    containers: Sequence[bytes] = (),
    *,
    relr: bool = False,
    section: str = ".nv_fatbin",
    body: bytes | None = None,
    pad: int = 0,
    tail: bytes = b"host code",
) -> bytes:
    """A shared library as a linker lays it out: headers, relocations, device code in a read-only PT_LOAD; then a
    writable PT_LOAD with the wrappers, each filled by a relative relocation (RELA, or RELR with ``relr``).

    Without containers it has no section of device code. ``body`` replaces the section's bytes; ``pad`` puts that many
    bytes before the section; ``tail`` stands behind the device code in the first segment.
    """
    device, places = fatbin_section(containers)
    device = device if body is None else body
    has_code = bool(containers) or body is not None
    count = len(places)
    relocs_at = 64 + 56 * 4
    relocs_size = 8 * count if relr else 24 * count
    code_at = -(-(relocs_at + relocs_size + pad) // 16) * 16
    tail_at = code_at + len(device)
    first_end = tail_at + len(tail)
    data_at = -(-first_end // 0x1000) * 0x1000
    wrappers = b""
    relocs = b""
    for index, place in enumerate(places):
        target, slot = code_at + place, data_at + BASE + WRAPPER.size * index + 8
        wrappers += WRAPPER.pack(0x466243B1, 1, target if relr else 0, 0)
        relocs += struct.pack("<Q", slot) if relr else struct.pack("<QQQ", slot, 8, target)
    tags = [(36, relocs_at), (35, relocs_size), (37, 8)] if relr else [(7, relocs_at), (8, relocs_size), (9, 24)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in [*tags, (0, 0)])
    dynamic_at = data_at + len(wrappers)
    data_end = dynamic_at + len(dynamic)
    headers = [
        (1, 5, 0, 0, first_end, 0x1000),
        (1, 6, data_at, data_at + BASE, data_end - data_at, 0x1000),
        (2, 6, dynamic_at, dynamic_at + BASE, len(dynamic), 8),
        (4, 4, tail_at, tail_at, min(len(tail), 8), 4),
    ]
    program = b"".join(struct.pack("<IIQQQQQQ", k, f, o, v, v, n, n, a) for k, f, o, v, n, a in headers)
    sections: list[tuple[str, int, int, int, int, int, int]] = [("", 0, 0, 0, 0, 0, 0)]
    if has_code:
        sections.append(
            (".relr.dyn" if relr else ".rela.dyn", 19 if relr else 4, 2, relocs_at, relocs_at, len(relocs), 8)
        )
        sections.append((section, 1, 2, code_at, code_at, len(device), 8))
    sections.append((".rodata", 1, 2, tail_at, tail_at, len(tail), 1))
    if count:
        sections.append((".nvFatBinSegment", 1, 3, data_at + BASE, data_at, len(wrappers), 8))
    sections.append((".dynamic", 6, 3, dynamic_at + BASE, dynamic_at, len(dynamic), 8))
    return _finish(program, relocs, relocs_at, code_at, device, tail, data_at, wrappers + dynamic, sections)


def _finish(
    program: bytes,
    relocs: bytes,
    relocs_at: int,
    code_at: int,
    device: bytes,
    tail: bytes,
    data_at: int,
    data: bytes,
    sections: list[tuple[str, int, int, int, int, int, int]],
) -> bytes:
    out = bytearray(64) + program
    out = out.ljust(relocs_at, b"\0") + relocs
    out = out.ljust(code_at, b"\0") + device + tail
    out = out.ljust(data_at, b"\0") + data
    names = b""
    names_at = len(out)
    rows = []
    for name, kind, flags, address, offset, size, align in [*sections, (".shstrtab", 3, 0, 0, names_at, 0, 1)]:
        rows.append([len(names), kind, flags, address, offset, size, 0, 0, align, 0])
        names += name.encode() + b"\0"
    rows[-1][5] = len(names)
    out += names
    out = out.ljust(-(-len(out) // 8) * 8, b"\0")
    shoff = len(out)
    out += b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    out[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0, 64, shoff, 0, 64, 56, 4, 64, len(rows), len(rows) - 1
    )
    return bytes(out)


def debugged(content: bytes, size: int = 20000, *, patched: bytes = b"", tail: bytes = b"") -> bytes:
    """The library with debug information, a table of symbols and its names: ``size`` bytes each that nothing loads.

    ``patched`` is what a tool such as patchelf put behind them, in a PT_LOAD of its own (the PT_NOTE's header is
    taken). ``tail`` stands behind everything, and no header tells of it.
    """
    fields = list(struct.unpack_from("<16sHHIQQQIHHHHHH", content))
    shoff, count, names_index = fields[6], fields[12], fields[13]
    rows = [list(struct.unpack_from("<IIQQQQIIQQ", content, shoff + 64 * index)) for index in range(count)]
    old = content[rows[names_index][4] :][: rows[names_index][5]]
    out = bytearray(content[: rows[names_index][4]])
    names = bytearray(old)

    def add(
        name: str, kind: int, body: bytes, *, flags: int = 0, address: int = 0, link: int = 0, align: int = 8
    ) -> None:
        out.extend(b"\0" * (-len(out) % align))
        rows.append([len(names), kind, flags, address, len(out), len(body), link, 0, align, 0])
        names.extend(name.encode() + b"\0")
        out.extend(body)

    add(".comment", 1, b"made by hand\0", align=1)
    add(".debug_info", 1, b"d" * size)
    add(".symtab", 2, bytes(24) * (size // 24), link=len(rows) + 1)
    add(".strtab", 3, b"\0" + b"s" * (size - 1))
    if patched:
        out.extend(b"\0" * (-len(out) % 0x1000))
        address = len(out) + 0x100000
        struct.pack_into(
            "<IIQQQQQQ", out, 64 + 56 * 3, 1, 4, len(out), address, address, len(patched), len(patched), 4096
        )
        add(".patched", 1, patched, flags=2, address=address, align=1)
    rows[names_index][4], rows[names_index][5] = len(out), len(names) + len(b".shstrtab")
    out.extend(bytes(names).ljust(rows[names_index][5], b"\0"))
    out.extend(b"\0" * (-len(out) % 8))
    fields[6], fields[12] = len(out), len(rows)
    out.extend(b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows))
    out[:64] = struct.pack("<16sHHIQQQIHHHHHH", *fields)
    return bytes(out) + tail


def cubin(arch: int, suffix: str = "", *, size: int = 256) -> bytes:
    """An ELF file for a card, with ``size`` bytes behind its header: of ABI 8 from 10.0 on, else of ABI 7."""
    new = arch >= 100
    flags = arch << 8 | (arch << 16) | 2 | (8 if suffix else 0) if new else arch | arch << 16 | 0x500
    flags |= 0x800 if suffix and not new else 0
    ident = b"\x7fELF\x02\x01\x01" + bytes([0x41 if new else 0x33, 8 if new else 7]) + bytes(7)
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 190, 1, 0, 0, 64, flags, 64, 56, 0, 64, 1, 0)
    return head + bytes(size)


def ptx_text(target: str, version: str = "8.4") -> bytes:
    """PTX as a compiler writes it."""
    return f"//\n// Generated by a compiler\n//\n\n.version {version}\n.target {target}\n.address_size 64\n".encode()


def linked_library(linked: bytes, parts: Sequence[bytes], *, relr: bool = False, version: int = 2) -> bytes:
    """A library of a device linker's: ``linked`` in `.nv_fatbin` with a wrapper of version 2, ``parts`` before it.

    The parts stand in `__nv_relfatbin`, made of the first bytes of the section that `library` writes.
    """
    content = bytearray(library([*parts, linked], relr=relr))
    fields = struct.unpack_from("<16sHHIQQQIHHHHHH", content)
    shoff, count, names_index = fields[6], fields[12], fields[13]
    rows = [list(struct.unpack_from("<IIQQQQIIQQ", content, shoff + 64 * index)) for index in range(count)]
    names = bytes(content[rows[names_index][4] :][: rows[names_index][5]])
    by_name = {names[row[0] : names.find(b"\0", row[0])]: row for row in rows}
    code, wrappers = by_name[b".nv_fatbin"], by_name[b".nvFatBinSegment"]
    split = fatbin_section([*parts, linked])[1][-1]
    relocatable = list(code)
    relocatable[0], relocatable[5] = len(names), split
    code[3], code[4], code[5] = code[3] + split, code[4] + split, code[5] - split
    struct.pack_into("<I", content, wrappers[4] + WRAPPER.size * len(parts) + 4, version)
    rows.insert(rows.index(code), relocatable)
    names_index += 1
    rows[names_index][4], rows[names_index][5] = len(content), len(names) + len(b"__nv_relfatbin\0")
    content += (names + b"__nv_relfatbin\0").ljust(-(-(len(names) + 15) // 8) * 8, b"\0")
    at = -(-len(content) // 8) * 8
    content = content.ljust(at, b"\0") + b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows)
    struct.pack_into("<Q", content, 40, at)
    struct.pack_into("<HH", content, 60, len(rows), names_index)
    return bytes(content)
