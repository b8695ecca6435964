"""A layer's tar out of its packing, as it comes: gzip, zstd or neither, by its first bytes. Bounded in size."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

from images.device_code.zip_bounds import FREE_BYTES, MOST_BYTES, MOST_RATIO
from images.proof.audit.remote.faults import LayerFault

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

GZIP, ZSTD, PLAIN = "gzip", "zstd", "not packed"
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 20
_WINDOW_LOG = 27  # 128 MB: what `zstd` itself unpacks without being told that more is allowed
_LEAST_SAID = 4


class _Unpacker(Protocol):
    """One gzip member or zstd frame: at most so many bytes of it at a time."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def more(self, data: bytes) -> bytes: ...
    @property
    def hungry(self) -> bool: ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._left = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail and not self._full

    _full = False

    def more(self, data: bytes) -> bytes:
        found = self._inner.decompress(self._inner.unconsumed_tail + data, _CHUNK)
        self._full = len(found) == _CHUNK  # it may hold more, though it has taken all that it was given
        return found


class _Zstd:
    def __init__(self) -> None:
        self._inner = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def hungry(self) -> bool:
        return self._inner.needs_input

    def more(self, data: bytes) -> bytes:
        return self._inner.decompress(data, _CHUNK)


def packing_of(head: bytes) -> str:
    """How a layer is packed, by its first four bytes."""
    if head[:2] == _GZIP_MAGIC:
        return GZIP
    skippable = head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F
    return ZSTD if head[:4] == _ZSTD_MAGIC or skippable else PLAIN


def most_of(packed: int) -> int:
    """Bytes that a layer of ``packed`` bytes may unpack to: no image's layer is packed tighter."""
    return min(MOST_BYTES, max(FREE_BYTES, packed * MOST_RATIO))


def unpacked(pieces: Iterator[bytes], packed: int) -> Iterator[bytes]:
    """The bytes of a layer's tar, at most 1 MB at once. Raises LayerFault for what cannot be unpacked."""
    head = b""
    while len(head) < _LEAST_SAID and (piece := next(pieces, b"")):
        head += piece
    kind = packing_of(head)
    source = chain([head], pieces)
    left = most_of(packed)
    for chunk in source if kind == PLAIN else _members(source, kind):
        left -= len(chunk)
        if left < 0:
            raise LayerFault(f"it unpacks from {packed} bytes to more than {most_of(packed)}")
        yield chunk


def _members(source: Iterator[bytes], kind: str) -> Iterator[bytes]:
    """What one member or frame after the other holds; gzip may have zeros behind the last one."""
    one = _unpacker(kind)
    begun = False
    try:
        for data in source:
            while data:
                if one.eof:
                    one, begun = _unpacker(kind), False
                if not begun and kind == GZIP and not data.strip(b"\0"):
                    break
                begun = True
                if chunk := one.more(data):
                    yield chunk
                while not one.eof and not one.hungry:
                    yield one.more(b"")
                data = one.unused_data if one.eof else b""
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise LayerFault(f"it cannot be unpacked: {error}") from error
    if begun and not one.eof:
        raise LayerFault("it is cut short")


def _unpacker(kind: str) -> _Unpacker:
    return _Gzip() if kind == GZIP else _Zstd()


def unpack_whole(data: bytes, kind: str, most: int) -> bytes:
    """All that one member or frame at the begin of ``data`` holds, ``most`` bytes at most; what follows is passed over.

    Raises LayerFault for one that is cut short, longer, or none.
    """
    one = _unpacker(kind)
    found = bytearray()
    try:
        found += one.more(data)
        while not one.eof and not one.hungry and len(found) < most:
            found += one.more(b"")
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise LayerFault(f"a part of it cannot be unpacked: {error}") from error
    if len(found) < most and not one.eof:
        raise LayerFault("a part of it is cut short")
    return bytes(found[:most])
