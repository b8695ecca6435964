"""Files that are nothing but device code: cubins (ELF files for a card), fat binaries, and PTX as text."""

from __future__ import annotations

import re
import struct

from images.device_code.containers import read_containers
from images.device_code.elf import MAGIC, FatbinError, Span, UnknownForm, View
from images.device_code.model import CUBIN, FATBIN, PTX, PTX_TEXT, SASS, Container, Entry, Library, Section

_CUDA = 190  # EM_CUDA
# In e_flags (LLVM's BinaryFormat/ELF.h): up to ABI 7 the card's number is the low byte and bit 11 says "this card
# alone"; from ABI 8 on, of CUDA 12.8 and newer, the number is the second byte, and bit 3 says so.
_NEW_ABI = 8
_OLD_ALONE, _NEW_ALONE = 0x800, 0x8
_FIRST_ALONE = 90  # older cards' files have that bit for something else: libcupti has such cubins for 6.0
_PTX_HEAD = 1 << 16  # comments may come first
_PTX_VERSION = re.compile(rb"^[ \t]*\.version[ \t]+([0-9]{1,2})\.([0-9]{1,2})", re.MULTILINE)
_PTX_TARGET = re.compile(rb"^[ \t]*\.target[ \t]+(?:[a-z_0-9]+,[ \t]*)*?sm_([0-9]{2,3})([af]?)", re.MULTILINE)
_FATBIN = struct.pack("<I", 0xBA55ED50)
_LTO = b"\xed\x43\x4e\x7f"  # NVIDIA's intermediate code for linking


def is_cubin(head: View) -> bool:
    """Whether the first 64 bytes of a file are those of an ELF file for a card."""
    return (
        len(head) >= 52 and bytes(head[:4]) == MAGIC and head[5] == 1 and struct.unpack_from("<H", head, 18)[0] == _CUDA
    )


def cubin_code(head: View) -> tuple[int, str]:
    """The compiler's number (90) and suffix ("a" or "") by a cubin's header. ``head`` must be `is_cubin`."""
    wide = head[4] == 2
    (flags,) = struct.unpack_from("<I", head, 48 if wide else 36)
    if head[8] >= _NEW_ABI:
        return flags >> 8 & 0xFF, "a" if flags & _NEW_ALONE else ""
    number = flags & 0xFF
    return number, "a" if number >= _FIRST_ALONE and flags & _OLD_ALONE else ""


def read_cubin(view: View) -> Library:
    """A cubin as one container of one entry. Raises FatbinError for one that is cut short."""
    return _one(view, cubin_entry(view, 0, len(view)), CUBIN)


def cubin_entry(view: View, at: int, end: int) -> Entry:
    """The cubin at ``at``, which may reach to ``end``. Raises FatbinError where its tables lie behind that."""
    head = bytes(view[at : at + 64])
    number, suffix = cubin_code(head)
    if not 10 <= number < 1000:
        raise UnknownForm(f"a cubin for a card expected, not for {number}", at + 48)
    return Entry(SASS, number, suffix, (1, 7), 0, "", 0, cubin_size(head, end - at, at), at, at)


def cubin_size(head: bytes, room: int, at: int) -> int:
    """The bytes of a cubin up to the end of its tables. Raises FatbinError if that is more than ``room``."""
    wide = head[4] == 2
    if len(head) < (64 if wide else 52):
        raise FatbinError(f"a cubin's header expected, {len(head)} bytes are left", at)
    phoff, shoff = struct.unpack_from("<QQ" if wide else "<II", head, 32 if wide else 28)
    phentsize, phnum, shentsize, shnum = struct.unpack_from("<HHHH", head, 54 if wide else 42)
    size = max(phoff + phentsize * phnum, shoff + shentsize * shnum, 64 if wide else 52)
    if size > room:
        raise FatbinError(f"the tables of a cubin expected inside its {room} bytes, not at {size:#x}", at)
    return int(size)


def read_fatbin(view: View) -> Library:
    """A fat binary, as ``nvcc --fatbin`` writes it. Raises FatbinError."""
    span = Span("", 0, 0, len(view))
    containers = tuple(read_containers(view, span))
    return Library(False, len(view), (Section("", 0, 0, len(view), containers),), form=FATBIN)


def read_ptx(view: View) -> Library | None:
    """PTX as text; None for what is none. The newest of its targets counts: there may be several modules."""
    head = bytes(view[:_PTX_HEAD])
    version, target = _PTX_VERSION.search(head), _PTX_TARGET.search(head)
    if version is None or target is None:
        return None
    entry = Entry(
        PTX, int(target[1]), target[2].decode(), (int(version[1]), int(version[2])), 0, "", 0, len(view), 0, 0
    )
    return _one(view, entry, PTX_TEXT)


def _one(view: View, entry: Entry, form: str) -> Library:
    container = Container(0, 0, 0, len(view), (entry,))
    return Library(False, len(view), (Section("", 0, 0, len(view), (container,)),), form=form)


def read_bare(view: View, name: str) -> Library | None:
    """A file of device code, by its first bytes, or by its ``name`` where those say nothing; None for another file.

    Raises FatbinError for a damaged one, UnknownForm for one that by its name is device code and cannot be read.
    """
    head = bytes(view[:64])
    if is_cubin(head):
        return read_cubin(view)
    if head[:4] == _FATBIN:
        return read_fatbin(view)
    if head[:4] == _LTO:
        raise UnknownForm("intermediate code for linking (LTO): compiled for a card when it is linked", 0)
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    if suffix == "ptx":
        found = read_ptx(view)
        if found is None:
            raise UnknownForm("PTX with .version and .target expected", 0)
        return found
    if suffix in ("cubin", "fatbin"):
        raise UnknownForm(f"a {suffix} expected by its name", 0)
    return None
