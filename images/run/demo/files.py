"""Files that people upload to the page: below its upload folder, of a kind that it reads, not too large.

What a file is, its first bytes decide; its name counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from images.run.demo.settings import Limits, format_size

FileKind = Literal["picture", "video"]
# Longest of the marks below, and where it lies.
_HEAD = 16
# Kinds of pictures, as Pillow calls them, and kinds of videos, as FFmpeg's readers of containers are called.
PICTURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_STILL_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"}
_UNREAD_BRANDS = (b"heic", b"heix", b"mif1", b"msf1")
TAKEN = "PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF pictures, and MP4, MOV, WebM, MKV or AVI videos"


class Refused(Exception):
    """A file or a question was refused; the text is a sentence for the person at the page."""


@dataclass(frozen=True)
class Upload:
    """A file that may be read: its path, ``kind`` ("picture" or "video"), ``form`` (such as "PNG", "mp4"), name."""

    path: Path
    kind: FileKind
    form: str

    @property
    def name(self) -> str:
        """What the person calls it."""
        return self.path.name


def resolve_upload(path: str, folder: Path) -> Path:
    """``path``, links followed, if it is a file below ``folder``. Raises Refused, without telling which it was."""
    refusal = Refused("That file was not uploaded here, so it is not read. Add it with the clip, or drop it in.")
    try:
        file = Path(path).resolve(strict=True)
        if not file.is_file() or not file.is_relative_to(folder.resolve(strict=True)):
            raise refusal
    except (OSError, ValueError, RuntimeError) as error:  # not there, a zero byte in it, a ring of links
        raise refusal from error
    return file


def form_of(head: bytes) -> tuple[FileKind, str] | None:
    """Kind and form of a file that begins with ``head`` (16 bytes or more); None for any other file."""
    for mark, form in PICTURES.items():
        if head.startswith(mark):
            return "picture", form
    if head[:4] == b"RIFF":
        riff: dict[bytes, tuple[FileKind, str]] = {b"WEBP": ("picture", "WEBP"), b"AVI ": ("video", "avi")}
        return riff.get(head[8:12])
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _UNREAD_BRANDS:
            return None
        return ("picture", _STILL_BRANDS[brand]) if brand in _STILL_BRANDS else ("video", "mp4")
    if head[4:8] in (b"moov", b"mdat", b"wide"):
        return "video", "mp4"
    return ("video", "matroska") if head.startswith(b"\x1aE\xdf\xa3") else None


def check_upload(path: str, folder: Path, limits: Limits) -> Upload:
    """The file at ``path``, looked at but not decoded. Raises Refused when it is none of ours, unknown or too large."""
    upload = resolve_upload(path, folder)
    with upload.open("rb") as file:
        form = form_of(file.read(_HEAD))
    if form is None:
        raise Refused(f"{upload.name} is neither a picture nor a video that can be read. Taken are {TAKEN}.")
    kind, limit = form[0], limits.picture_bytes if form[0] == "picture" else limits.video_bytes
    size = upload.stat().st_size
    if size > limit:
        raise Refused(
            f"{upload.name} is too large: it has {format_size(size)}, a {kind} may have {format_size(limit)}."
        )
    return Upload(upload, *form)
