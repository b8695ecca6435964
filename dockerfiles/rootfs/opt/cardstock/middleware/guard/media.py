"""Pictures of a request: looked at, or fetched by the guard itself, so that vLLM fetches and opens nothing odd."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import fetch  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from guard_settings import MEGABYTE, GuardSettings  # type: ignore[import-not-found,unused-ignore]

from .content import Medium

WORKERS, FETCHERS = 2, 8
_DATA = re.compile(r"data:([\w.+-]{1,40}/[\w.+-]{1,80})?;base64,", re.ASCII)


@dataclass(frozen=True)
class Picture:
    """What a picture's header says: Pillow's name of its format, and its size."""

    format: str
    pixels: int


Opener = Callable[[bytes, tuple[str, ...]], Picture]


def open_header(data: bytes, formats: tuple[str, ...]) -> Picture:
    """By Pillow, which decodes nothing yet. Raises an exception of any kind for what is no picture of these formats."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=formats) as image:
        width, height = image.size
        return Picture(str(image.format), width * height)


def limit_pillow(pixels: int) -> None:
    """Whatever is decoded past the guard: Pillow refuses twice as many, in vLLM without a limit of its own as well."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = pixels


def _bad(message: str, status: int = 400) -> ApiError:
    return ApiError(status, message, param="image_url", code="invalid_image_url")


class Media:
    """The media of all requests. ``opener`` stands in for Pillow."""

    def __init__(self, settings: GuardSettings, opener: Opener = open_header) -> None:
        self.settings = settings
        self._open = opener
        # Fetching waits for fetching alone; and neither takes the threads of vLLM's own pictures and tokenizers.
        self.workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="guard")
        self._fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="guard-fetch")

    def check_count(self, media: list[Medium]) -> None:
        """Raises ApiError 400 for more pictures than are taken."""
        pictures = sum(not one.video for one in media)
        if pictures > self.settings.images:
            raise ApiError(
                400,
                f"the request has {pictures} pictures; {self.settings.images} are taken (CARDSTOCK_MAX_IMAGES)",
                param="image_url",
                code="too_many_images",
            )

    async def bring(self, media: list[Medium]) -> int:
        """Fetch those that are elsewhere and put them into the request; pixels of all. Raises ApiError 400, 413."""
        fetched = [one for one in media if not one.url.startswith("data:")]
        loop = asyncio.get_running_loop()
        loads = [loop.run_in_executor(self._fetchers, fetch.load, one.url, self.settings.fetch) for one in fetched]
        try:
            raws = await asyncio.gather(*loads)
        finally:
            for load in loads:
                load.cancel()
        pixels = 0
        for one, raw in zip(fetched, raws, strict=True):
            url, size = await loop.run_in_executor(self.workers, self._as_data, raw, one.video)
            pixels += size
            one.holder[one.key] = url
        for one in media:
            if one.url.startswith("data:"):
                pixels += await loop.run_in_executor(self.workers, self._look, one)
            if pixels > self.settings.request_pixels:
                most = self.settings.request_pixels // 10**6
                raise _bad(f"the pictures have more than {most} megapixels (CARDSTOCK_MAX_REQUEST_MEGAPIXELS)", 413)
        return pixels

    def _as_data(self, raw: bytes, video: bool) -> tuple[str, int]:
        found = Picture("mp4", 0) if video else self._picture(raw)
        kind = f"{'video' if video else 'image'}/{found.format.lower()}"
        return f"data:{kind};base64,{base64.b64encode(raw).decode()}", found.pixels

    def _look(self, one: Medium) -> int:
        match = _DATA.match(one.url)
        if match is None:
            raise _bad("a picture's data: URL must be data:image/…;base64,…")
        if one.video:
            return 0
        if len(one.url) - match.end() > self.settings.fetch.bytes * 4 // 3 + 4:
            raise self._too_large()
        try:
            raw = base64.b64decode(one.url[match.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise _bad("the data: URL is not base64") from error
        return self._picture(raw).pixels

    def _too_large(self) -> ApiError:
        return _bad(
            f"a picture is larger than {self.settings.fetch.bytes // MEGABYTE} MB (CARDSTOCK_MAX_IMAGE_MB)", 413
        )

    def _picture(self, raw: bytes) -> Picture:
        try:
            found = self._open(raw, self.settings.formats)
        except Exception as error:
            formats = ", ".join(self.settings.formats)
            raise _bad(f"a picture cannot be read, or is none of {formats} (CARDSTOCK_IMAGE_FORMATS)") from error
        if found.pixels > self.settings.image_pixels:
            raise _bad(
                f"a picture has {found.pixels} pixels; {self.settings.image_pixels} are taken "
                "(CARDSTOCK_MAX_IMAGE_MEGAPIXELS)",
                413,
            )
        return found
