"""Layers out of their packing, piece by piece, whatever the pieces."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator

import pytest

from images.proof.audit.remote import packing
from images.proof.audit.remote.faults import LayerFault
from images.proof.audit.remote.packing import GZIP, PLAIN, ZSTD, packing_of, unpack_whole, unpacked, zstd

TEXT = b"".join(b"%d " % number for number in range(400_000))
SKIPPED = struct.pack("<II", 0x184D2A50, 5) + b"notes"


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [7, 1000, 1 << 22])
@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (GZIP, gzip.compress(TEXT), TEXT),
        (GZIP, gzip.compress(TEXT[:10]) + gzip.compress(TEXT[10:]) + bytes(100), TEXT),
        (ZSTD, zstd.compress(TEXT), TEXT),
        (ZSTD, SKIPPED + zstd.compress(TEXT[:10]) + SKIPPED + zstd.compress(TEXT[10:]) + SKIPPED, TEXT),
        (PLAIN, TEXT, TEXT),
        (PLAIN, b"", b""),
    ],
)
def test_it_unpacks_the_whole(kind: str, data: bytes, expected: bytes, size: int) -> None:
    assert packing_of(data[:4].ljust(4, b" ")) == kind
    chunks = list(unpacked(in_pieces(data, size), len(data)))
    assert b"".join(chunks) == expected
    assert max(map(len, chunks), default=0) <= max(size, 1 << 20)


CHECKED: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}


@pytest.mark.parametrize("data", [gzip.compress(TEXT), zstd.compress(TEXT, options=CHECKED)])
def test_what_is_cut_or_damaged_is_told(data: bytes) -> None:
    with pytest.raises(LayerFault, match="cut short"):
        list(unpacked(in_pieces(data[:-20], 1000), len(data)))
    with pytest.raises(LayerFault, match="cannot be unpacked"):
        list(unpacked(in_pieces(data[:200] + bytes(200) + data[400:], 1000), len(data)))
    with pytest.raises(LayerFault, match="cannot be unpacked"):
        list(unpacked(in_pieces(data + b"rubbish behind it", 1000), len(data)))


def test_it_ends_where_a_layer_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "FREE_BYTES", 1 << 20)
    data = gzip.compress(bytes(64 << 20))
    held = 0
    with pytest.raises(LayerFault, match="unpacks from"):
        for chunk in unpacked(in_pieces(data, 1000), len(data)):
            held += len(chunk)
    assert held <= packing.most_of(len(data))


def test_a_window_larger_than_zstd_itself_takes_is_refused() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 28,
        zstd.CompressionParameter.compression_level: 1,
    }
    packer = zstd.ZstdCompressor(options=options)
    data = packer.compress(bytes(300 << 20)) + packer.flush()
    with pytest.raises(LayerFault, match="cannot be unpacked"):
        list(unpacked(iter([data]), 300 << 20))


@pytest.mark.parametrize("kind", [GZIP, ZSTD])
def test_one_member_alone(kind: str) -> None:
    pack = gzip.compress if kind == GZIP else zstd.compress
    data = pack(TEXT)
    assert unpack_whole(data + data, kind, len(TEXT) * 2) == TEXT
    assert unpack_whole(data, kind, 1000) == TEXT[:1000]
    for bad in (data[: len(data) // 2], b"none of it"):
        with pytest.raises(LayerFault):
            unpack_whole(bad, kind, len(TEXT))
