"""Pictures of strangers, opened with Pillow: of known formats, whole, not too large, in RGB. It needs no torch."""

from __future__ import annotations

import io
from typing import Any

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO")
MAX_SOURCE_PIXELS = (
    64_000_000  # of a picture as sent, before it is made smaller: a guard against tiny files that unpack huge
)


def _unreadable(error: Exception) -> ApiError:
    message = f"the picture cannot be read: {type(error).__name__}"
    return ApiError(400, message, param="messages", code="invalid_image")


def begin_picture(data: bytes) -> Any:
    """A picture of which nothing but the header is read. Raises ApiError 400 for what is no picture or too large."""
    from PIL import Image as Pillow

    try:
        Pillow.init()  # registers the formats; a Pillow may be built without some
        picture: Any = Pillow.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Pillow.OPEN])
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise _unreadable(error) from error
    width, height = picture.size
    if width * height > MAX_SOURCE_PIXELS:
        raise ApiError(400, f"the picture has {width} x {height} pixels", param="messages", code="image_too_large")
    if not width * height:
        raise ApiError(400, "the picture has no pixels", param="messages", code="invalid_image")
    return picture


def open_picture(data: bytes) -> Any:
    """An RGB picture; see-through parts become white. Raises ApiError 400 for what is no picture or too large."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    picture = begin_picture(data)
    try:
        ImageOps.exif_transpose(picture, in_place=True)
        if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA"):
            picture = picture.convert("RGBA")
            ground = Pillow.new("RGB", picture.size, (255, 255, 255))
            ground.paste(picture, mask=picture.getchannel("A"))
            return ground
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError) as error:
        raise _unreadable(error) from error
