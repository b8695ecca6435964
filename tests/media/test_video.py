"""What is sent of a video."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image, ImageStat

from images.run.demo.files import Refused, form_of
from images.run.demo.video import Frame, frame_times, read_frames

PIXELS, SIDE, RATE = 1_000_000, 160, 10
KINDS = {"mp4": ("mp4", "mpeg4"), "mov": ("mov", "mpeg4"), "mkv": ("matroska", "mpeg4"), "webm": ("webm", "libvpx"),
         "avi": ("avi", "mpeg4")}  # fmt: skip


def video(
    path: Path, frames: int, form: str = "mp4", codec: str = "mpeg4", width: int = 320, height: int = 240
) -> Path:
    """Frame number n is grey of brightness 40 + 2 n; ten of them a second."""
    with av.open(str(path), "w", format=form) as out:
        stream = out.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 12
        for at in range(frames):
            grey = Image.new("RGB", (width, height), (40 + 2 * at,) * 3)
            out.mux(stream.encode(av.VideoFrame.from_image(grey)))
        out.mux(stream.encode())
    return path


def read(path: Path, count: int = 8) -> list[Frame]:
    kind = form_of(path.read_bytes()[:16])
    assert kind is not None
    assert kind[0] == "video"
    return read_frames(path, kind[1], count, PIXELS, SIDE)


def brightness(frame: Frame) -> float:
    return float(ImageStat.Stat(Image.open(io.BytesIO(frame.picture.data)).convert("L")).mean[0])


@pytest.mark.parametrize("ending", KINDS)
def test_frames_lie_at_even_distances(tmp_path: Path, ending: str) -> None:
    frames = read(video(tmp_path / f"a.{ending}", 80, *KINDS[ending]), 4)
    assert [round(frame.seconds, 1) for frame in frames] == pytest.approx([1.0, 3.0, 5.0, 7.0], abs=0.01)
    numbers = [(brightness(frame) - 40) / 2 for frame in frames]
    assert numbers == pytest.approx([frame.seconds * RATE for frame in frames], abs=2.5)
    assert {(frame.picture.width, frame.picture.height) for frame in frames} == {(160, 120)}


@pytest.mark.parametrize(
    ("times", "count", "expected"),
    [
        ([], 4, []),
        ([7], 4, [7]),
        ([0, 10, 20, 30], 2, [10, 30]),
        ([0, 10, 20, 30], 4, [0, 10, 20, 30]),
        ([0, 10, 20, 30], 9, [0, 10, 20, 30]),
        ([0, 1, 2, 90], 3, [2, 90]),  # one that stands still for long is shown in two of the parts
        ([100, 110, 120], 1, [110]),
    ],
)
def test_the_middles_of_equal_parts(times: list[int], count: int, expected: list[int]) -> None:
    assert frame_times(times, count) == expected


@pytest.mark.parametrize("count", [1, 3])
def test_a_short_video_gives_each_frame_once(tmp_path: Path, count: int) -> None:
    assert len(read(video(tmp_path / "a.mp4", count))) == count


def test_a_video_cut_off_gives_what_is_there_or_is_refused(tmp_path: Path) -> None:
    whole = video(tmp_path / "a.mkv", 80, "matroska").read_bytes()
    (tmp_path / "a.mkv").write_bytes(whole[: len(whole) // 2])
    frames = read(tmp_path / "a.mkv")
    assert 1 <= len(frames) <= 8
    assert frames[-1].seconds < 6
    (tmp_path / "b.mp4").write_bytes(video(tmp_path / "b.mp4", 20).read_bytes()[:500])
    with pytest.raises(Refused, match=r"b.mp4 begins like a video but cannot be read"):
        read(tmp_path / "b.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.planes[0].update(bytes(4 * 1024))
        frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(Refused, match="only sound"):
        read(tmp_path / "a.mp4")


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="too many pixels"):
        read(video(tmp_path / "a.mp4", 2, width=1200, height=900))


def test_a_playlist_that_calls_itself_a_video_reads_no_other_file(tmp_path: Path) -> None:
    secret = video(tmp_path / "secret.mp4", 5)
    (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n")
    assert form_of((tmp_path / "a.mp4").read_bytes()[:16]) is None
    with pytest.raises(Refused):
        read_frames(tmp_path / "a.mp4", "mp4", 8, PIXELS, SIDE)
