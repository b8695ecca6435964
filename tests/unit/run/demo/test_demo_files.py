"""Which files the page reads, and what it says of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.proof.tiny_model import picture
from images.run.demo.files import Refused, check_upload, form_of, resolve_upload
from images.run.demo.settings import Limits

LIMITS = Limits(picture_bytes=200_000, video_bytes=1_000_000)


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    (folder / "ab12").mkdir(parents=True)
    (folder / "ab12/red.png").write_bytes(picture.png("red"))
    (tmp_path / "secret.png").write_bytes(picture.png("blue"))
    (tmp_path / "uploads-of-another").mkdir()
    (tmp_path / "uploads-of-another/red.png").write_bytes(picture.png("red"))
    return folder


def test_an_upload_is_read(uploads: Path) -> None:
    found = check_upload(str(uploads / "ab12/red.png"), uploads, LIMITS)
    assert (found.path, found.kind, found.form, found.name) == (uploads / "ab12/red.png", "picture", "PNG", "red.png")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{uploads}/../secret.png",
        "{uploads}/ab12/../../secret.png",
        "{uploads}-of-another/red.png",
        "{uploads}/ab12",
        "{uploads}/missing.png",
        "{uploads}/ab12/red.png\0.png",
        "https://example.com/red.png",
        "red.png",
        "",
        "x" * 5000,
    ],
)
def test_anything_else_is_refused_alike(uploads: Path, path: str) -> None:
    with pytest.raises(Refused, match=r"^That file was not uploaded here, so it is not read\."):
        resolve_upload(path.format(uploads=uploads), uploads)


def test_links_are_followed_before_it_is_asked_where_they_lead(uploads: Path, tmp_path: Path) -> None:
    (uploads / "out.png").symlink_to(tmp_path / "secret.png")
    (uploads / "in.png").symlink_to(uploads / "ab12/red.png")
    (uploads / "ring.png").symlink_to(uploads / "ring.png")
    (tmp_path / "door").symlink_to(uploads)
    assert resolve_upload(str(uploads / "in.png"), uploads) == uploads / "ab12/red.png"
    assert resolve_upload(str(uploads / "ab12/red.png"), tmp_path / "door") == uploads / "ab12/red.png"
    for name in ("out.png", "ring.png"):
        with pytest.raises(Refused):
            resolve_upload(str(uploads / name), uploads)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (picture.SIGNATURE, ("picture", "PNG")),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", ("picture", "JPEG")),
        (b"RIFF\0\0\0\0WEBPVP8 ", ("picture", "WEBP")),
        (b"\0\0\0\x1cftypavif", ("picture", "AVIF")),
        (b"\0\0\0\x18ftypmp42", ("video", "mp4")),
        (b"\0\0\0\x14ftypqt  ", ("video", "mp4")),
        (b"\0\0\0\x08wide\0\0", ("video", "mp4")),
        (b"\x1aE\xdf\xa3", ("video", "matroska")),
        (b"RIFF\0\0\0\0AVI LIST", ("video", "avi")),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"\0\0\0\x18ftypheic", None),
        (b"#EXTM3U\n", None),
        (b"<svg xmlns=", None),
        (b"%PDF-1.7", None),
        (b"this is no picture", None),
        (b"", None),
    ],
)
def test_the_first_bytes_say_what_it_is(head: bytes, expected: tuple[str, str] | None) -> None:
    assert form_of(head) == expected


def test_a_name_is_not_believed(uploads: Path) -> None:
    (uploads / "notes.png").write_text("this is no picture")
    (uploads / "red.mp4").write_bytes(picture.png("red"))
    assert check_upload(str(uploads / "red.mp4"), uploads, LIMITS).kind == "picture"
    with pytest.raises(Refused, match=r"notes\.png is neither a picture nor a video that can be read\. Taken are PNG"):
        check_upload(str(uploads / "notes.png"), uploads, LIMITS)


@pytest.mark.parametrize(
    ("head", "size", "message"),
    [
        (picture.SIGNATURE, 200_000, None),
        (picture.SIGNATURE, 200_001, "it has 200 kB, a picture may have 200 kB"),
        (picture.SIGNATURE, 100_000_000, "a.png is too large: it has 100 MB, a picture may have 200 kB"),
        (b"\x1aE\xdf\xa3", 1_000_000, None),
        (b"\x1aE\xdf\xa3", 2_500_000, "it has 2.5 MB, a video may have 1 MB"),
    ],
)
def test_each_kind_has_its_limit(uploads: Path, head: bytes, size: int, message: str | None) -> None:
    with (uploads / "a.png").open("wb") as file:
        file.write(head)
        file.truncate(size)
    if message is None:
        check_upload(str(uploads / "a.png"), uploads, LIMITS)
        return
    with pytest.raises(Refused, match=message):
        check_upload(str(uploads / "a.png"), uploads, LIMITS)
