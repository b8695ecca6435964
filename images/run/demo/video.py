"""A video as the pictures that are sent of it: frames at even distances, decoded here, so any server takes them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from images.run.demo.files import Refused
from images.run.demo.pictures import Picture, encode


@dataclass(frozen=True)
class Frame:
    """A frame and its time, in seconds from the video's beginning."""

    seconds: float
    picture: Picture


def read_frames(path: Path, form: str, count: int, pixels: int, side: int) -> list[Frame]:
    """At most ``count`` frames, one of the middle of each of as many equal parts, of at most ``pixels`` each.

    The file is handed to FFmpeg open, with its format (``form``) named: a playlist that would have it read other files
    or addresses is not taken for one. Frames are sought, so a long video costs no more than a short one. Raises
    Refused for a file that cannot be decoded.
    """
    try:
        with path.open("rb") as file, av.open(file, format=form) as container:
            if not container.streams.video:
                raise Refused(f"{path.name} has no pictures in it, only sound.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.width * stream.height > pixels:
                raise Refused(f"{path.name} has too many pixels: at most {pixels / 1e6:g} million are opened.")
            frames = [
                Frame(round(float(time), 2), _picture(frame, side))
                for time, frame in _sampled(container, stream, count)
            ]
    except Refused:
        raise
    except Exception as error:  # a reader of a hostile file may raise anything
        raise Refused(f"{path.name} begins like a video but cannot be read: {type(error).__name__}.") from error
    if not frames:
        raise Refused(f"{path.name} begins like a video, but not one picture can be decoded.")
    return frames


def _sampled(
    container: av.container.InputContainer, stream: av.VideoStream, count: int
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """Time from the beginning, and frame, of each middle; a video of fewer frames gives each of them once."""
    # The times of all packets, nothing decoded: headers may lack a length, or lie.
    times = sorted({packet.pts for packet in container.demux(stream) if packet.pts is not None})
    if stream.time_base is None:
        return
    for wanted in frame_times(times, count):
        container.seek(wanted, stream=stream)
        for frame in container.decode(stream):
            if frame.pts is not None and frame.pts >= wanted:
                yield (frame.pts - times[0]) * stream.time_base, frame
                break


def frame_times(times: Sequence[int], count: int) -> list[int]:
    """Which of the frames that begin at ``times`` (sorted) are seen in the middle of each of ``count`` equal parts."""
    if not times:
        return []
    # The last frame is seen as long as the others are on average.
    length = times[-1] - times[0] + (times[-1] - times[0]) / max(1, len(times) - 1)
    middles = (times[0] + length * (2 * at + 1) / (2 * count) for at in range(count))
    return list(dict.fromkeys(times[bisect_right(times, middle) - 1] for middle in middles))


def _picture(frame: av.VideoFrame, side: int) -> Picture:
    """Upright: FFmpeg's rotation and Pillow's both count degrees against the clock."""
    image = frame.to_image().rotate(frame.rotation, expand=True)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode(image, lossy=True)
