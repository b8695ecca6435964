"""What is sent of a picture."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from images.proof.tiny_model import picture as drawn
from images.run.demo.files import PICTURES, Refused, form_of
from images.run.demo.pictures import Picture, read_picture

PIXELS, SIDE = 1_000_000, 512
RED, GREEN = (220, 20, 30), (20, 190, 40)


def opened(found: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(found.data))
    assert (image.width, image.height, f"image/{(image.format or '').lower()}") == (
        found.width,
        found.height,
        found.media,
    )
    return image


def saved(folder: Path, image: Image.Image, form: str, **options: object) -> Path:
    path = folder / f"a.{form.lower()}"
    image.save(path, form, **options)
    return path


def read(path: Path, side: int = SIDE) -> Picture:
    kind = form_of(path.read_bytes()[:16])
    assert kind is not None
    assert kind[0] == "picture"
    return read_picture(path, kind[1], PIXELS, side)


@pytest.mark.parametrize("form", sorted({*PICTURES.values(), "WEBP", "AVIF"}))
def test_each_form_that_is_taken_is_read(tmp_path: Path, form: str) -> None:
    image = opened(read(saved(tmp_path, Image.new("RGB", (60, 40), RED), form)))
    assert image.size == (60, 40)
    assert all(abs(a - b) < 8 for a, b in zip(image.convert("RGB").getpixel((30, 20)), RED, strict=True))


def test_a_png_goes_out_with_each_pixel_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(drawn.png("blue"))
    assert opened(read(path)).tobytes() == drawn.pixels("blue")


def test_a_large_picture_is_brought_down_and_keeps_its_shape(tmp_path: Path) -> None:
    assert opened(read(saved(tmp_path, Image.new("RGB", (900, 300), RED), "PNG"))).size == (512, 171)


def test_a_phones_picture_is_turned_upright_and_loses_its_place(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), RED)
    image.paste(GREEN, (0, 0, 20, 20))
    marks = Image.Exif()
    marks[0x0112], marks[0x010F] = 6, "a maker"  # orientation: to be turned a quarter clockwise
    found = read(saved(tmp_path, image, "JPEG", exif=marks, quality=100))
    upright = opened(found)
    assert upright.size == (20, 40)
    top, bottom = upright.getpixel((10, 5)), upright.getpixel((10, 35))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[1] > 150 > top[0]
    assert bottom[0] > 150 > bottom[1]
    assert b"a maker" not in found.data


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((0, 0), (*RED, 255))
    found = opened(read(saved(tmp_path, image, "PNG")))
    assert (found.mode, found.getpixel((0, 0)), found.getpixel((5, 5))) == ("RGB", RED, (255, 255, 255))


def test_a_picture_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(drawn.png("red")[:2000])
    with pytest.raises(Refused, match=r"a.png begins like a PNG picture but cannot be read"):
        read(path)


def test_a_picture_of_another_form_than_it_begins_with_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"BM" + drawn.png("red"))
    with pytest.raises(Refused, match="BMP"):
        read(path)


@pytest.mark.parametrize("side", [20_000, 5_000], ids=["beyond Pillow's limit", "beyond ours only"])
def test_few_bytes_of_many_pixels_are_refused_undecoded(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (side * (side // 8 + 1)), 9)
    path = tmp_path / "bomb.png"
    path.write_bytes(drawn.SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    assert path.stat().st_size < 100_000
    with pytest.raises(Refused, match=r"bomb.png has too many pixels: at most 1 million"):
        read(path)
