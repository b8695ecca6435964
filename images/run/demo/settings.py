"""What the page is started with: where the server is, where the page listens, what it takes. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from images.core import UsageError

MB = 1000**2
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": MB, "GB": 1000**3}


@dataclass(frozen=True)
class Limits:
    """What is taken, and how much of it is sent on.

    ``picture_bytes`` and ``video_bytes`` of one file; ``pixels`` of a picture as it is opened; ``side``, in pixels, to
    which a picture's longer side is brought down before it is sent, and ``frame_side`` that of a video's frame;
    ``pictures`` in one question and in one request, a video counted as its ``frames``; ``letters`` of a question.
    """

    picture_bytes: int = 10 * MB
    video_bytes: int = 60 * MB
    pixels: int = 50_000_000
    side: int = 2048
    frame_side: int = 640
    pictures: int = 8
    frames: int = 8
    letters: int = 20_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise UsageError(f"{name} is {value}", do="say at least 1")
        if self.frames > self.pictures:
            raise UsageError(
                f"a video of {self.frames} frames is more than the {self.pictures} pictures of one question",
                do=f"--max-frames {self.pictures}, or more --max-pictures",
            )

    def told(self) -> str:
        """In a line, for who runs the page."""
        return (
            f"pictures up to {format_size(self.picture_bytes)} and {self.pixels / 1e6:g} million pixels; videos up to "
            f"{format_size(self.video_bytes)}, of which {self.frames} frames are sent; {self.pictures} pictures in a "
            "question"
        )

    @property
    def upload_bytes(self) -> int:
        """The largest file that is taken in at all; which limit it falls under is known when its content is seen."""
        return max(self.picture_bytes, self.video_bytes)


@dataclass(frozen=True)
class Answering:
    """What is known of what answers: its ``image`` (a variant's id), its ``card``; "" for what is not known."""

    image: str = ""
    card: str = ""

    def __str__(self) -> str:
        return " on ".join(filter(None, (self.image, self.card)))


@dataclass(frozen=True)
class Settings:
    """Of one page: the ``server``'s address without /v1, its ``model``, where to listen, the folder of its uploads.

    ``answering`` is what is known of the image and the card behind that address.
    """

    server: str
    model: str
    host: str
    port: int
    uploads: Path
    limits: Limits = field(default_factory=Limits)
    answering: Answering = Answering()

    def to_json(self) -> str:
        """As `read_settings` takes it."""
        return json.dumps(asdict(self) | {"uploads": str(self.uploads)})


def read_settings(text: str) -> Settings:
    """The reverse of `Settings.to_json`."""
    data = json.loads(text)
    read = {
        "uploads": Path(data["uploads"]),
        "limits": Limits(**data["limits"]),
        "answering": Answering(**data["answering"]),
    }
    return Settings(**(data | read))


def read_size(text: str) -> int:
    """Bytes of "10MB", "500 kB" or "1.5 GB", decimal units. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B|)", text.strip().upper())
    if match is None:
        raise UsageError(f"{text!r} is not a size", do="write it as 10MB, 500kB or 1.5GB")
    return round(float(match[1]) * _UNITS[match[2]])


def format_size(count: int) -> str:
    """Bytes as a person reads them: "10 MB", "12.5 MB", "340 kB"."""
    for size, unit in ((1000**3, "GB"), (MB, "MB"), (1000, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
