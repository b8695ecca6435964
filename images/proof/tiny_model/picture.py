"""Test pictures, the same bytes on every machine: a coloured square on a pale ground, as an 8-bit RGB PNG."""

from __future__ import annotations

import base64
import struct
import zlib

COLOURS = {
    "red": (220, 20, 30),
    "green": (20, 190, 40),
    "blue": (30, 50, 225),
    "yellow": (240, 225, 20),
    "black": (10, 10, 10),
    "white": (250, 250, 250),
}
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pixels(colour: str, width: int = 140, height: int = 112) -> bytes:
    """RGB bytes, rows from the top, ``width * height * 3`` of them. Raises KeyError for an unknown colour."""
    red, green, blue = COLOURS[colour]
    rows = bytearray()
    for y in range(height):
        for x in range(width):
            inside = width <= 8 * x < 7 * width and height <= 8 * y < 7 * height
            ground = 150 + 60 * x // width - 40 * y // height
            rows += bytes((red, green, blue) if inside else (ground, ground, ground))
    return bytes(rows)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks: compressors differ between zlib builds, this does not."""
    blocks = [data[at : at + 65535] for at in range(0, len(data), 65535)]
    out = bytearray(b"\x78\x01")
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        out += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    return bytes(out + struct.pack(">I", zlib.adler32(data)))


def encode(raw: bytes, width: int, height: int) -> bytes:
    """RGB bytes, rows from the top, as a PNG file (uncompressed inside, about ``3 * width * height`` bytes)."""
    row = 3 * width
    lines = b"".join(b"\0" + raw[at : at + row] for at in range(0, len(raw), row))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", _stored(lines)) + _chunk(b"IEND", b"")


def png(colour: str, width: int = 140, height: int = 112) -> bytes:
    """The picture as a PNG file."""
    return encode(pixels(colour, width, height), width, height)


def as_data_url(file: bytes) -> str:
    """A PNG file as a ``data:`` URL, as an OpenAI ``image_url`` part takes it."""
    return "data:image/png;base64," + base64.b64encode(file).decode()


def data_url(colour: str, width: int = 140, height: int = 112) -> str:
    """The picture as a ``data:`` URL."""
    return as_data_url(png(colour, width, height))
