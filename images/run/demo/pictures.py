"""Pictures as they are sent: decoded once to see that they are whole, turned upright, brought down in size.

What is sent is written anew, so a phone's place and owner, kept in the file, stay here.
"""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from images.run.demo.files import Refused

# As JPEG goes out what came in lossy; the rest goes out as PNG, each pixel as it was.
_LOSSY = {"JPEG", "WEBP", "AVIF", "MPO"}
_QUALITY = 92


@dataclass(frozen=True)
class Picture:
    """An encoded picture: its bytes, media type, width and height in pixels."""

    data: bytes
    media: str
    width: int
    height: int

    def url(self) -> str:
        """As a data: URL."""
        return f"data:{self.media};base64,{base64.b64encode(self.data).decode()}"


def read_picture(path: Path, form: str, pixels: int, side: int) -> Picture:
    """The picture in ``path``, of at most ``pixels``, its longer side at most ``side`` afterwards.

    ``form`` is Pillow's name of the only format that is tried. Raises Refused when it is broken or too large.
    """
    broken = Refused(f"{path.name} begins like a {form} picture but cannot be read: it is broken or cut off.")
    with warnings.catch_warnings():
        # Its own, higher limit only warns; ours is asked before a pixel is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=(form, "MPO") if form == "JPEG" else (form,))
        except Image.DecompressionBombError as error:
            raise _too_many(path, pixels) from error
        except Exception as error:  # a reader of a hostile file may raise anything
            raise broken from error
        with image:
            if image.width * image.height > pixels:
                raise _too_many(path, pixels)
            try:
                image.thumbnail((side, side), Image.Resampling.LANCZOS)
                return encode(ImageOps.exif_transpose(image), lossy=image.format in _LOSSY)
            except Exception as error:
                raise broken from error


def _too_many(path: Path, pixels: int) -> Refused:
    return Refused(f"{path.name} has too many pixels: at most {pixels / 1e6:g} million are opened.")


def encode(image: Image.Image, *, lossy: bool) -> Picture:
    """As JPEG or PNG, in RGB; what is transparent becomes white."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    out = io.BytesIO()
    if lossy:
        image.save(out, "JPEG", quality=_QUALITY)
    else:
        image.save(out, "PNG")
    return Picture(out.getvalue(), "image/jpeg" if lossy else "image/png", image.width, image.height)
