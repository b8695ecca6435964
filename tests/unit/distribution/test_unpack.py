"""Images unpacked without an engine: whiteouts, links, bounds, and nothing outside of the folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from images.core import process
from images.core.errors import CardstockError, Unsafe
from images.core.process import ProcessFailed
from images.distribution import unpack
from images.distribution.unpack import Unpacking, parts_of, unpack_layer
from tests.helpers.nonempty import nonempty

Entry = tuple[str, Any] | tuple[str, Any, dict[str, Any]]
LINK, HARD, FOLDER, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE


def layer(entries: Iterable[Entry]) -> bytes:
    """A tar: (name, content), (name, None) for a folder, (name, (kind, target)) for links and devices."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, what, *more in entries:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            for key, value in more[0].items() if more else ():
                setattr(entry, key, value)
            if isinstance(what, bytes):
                entry.size = len(what)
                tar.addfile(entry, io.BytesIO(what))
                continue
            entry.type, entry.linkname = (FOLDER, "") if what is None else what
            tar.addfile(entry)
    return packed.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "below" / "root"
    made.mkdir(parents=True)
    return made


def unpacked(root: Path, *layers: Iterable[Entry], most: int = 10**6) -> Unpacking:
    made = Unpacking(root, most, owners=False)
    for entries in layers:
        made.layer(io.BytesIO(layer(entries)))
    return made


def seen(root: Path) -> dict[str, str]:
    """Path -> content, "->target" of a link, "/" of a folder."""
    out = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            out[name] = f"->{path.readlink()}"
        else:
            out[name] = "/" if path.is_dir() else path.read_text()
    return out


def test_layers_lie_on_each_other(root: Path) -> None:
    first: list[Entry] = [("./a/", None), ("a/one", b"1"), ("a/two", b"2"), ("b", b"b"), ("c", None), ("c/x", b"x")]
    second: list[Entry] = [("a/one", b"new"), ("b/deep/file", b"now a folder"), ("c", b"now a file")]
    unpacked(root, first, second)
    assert seen(root) == {
        "a": "/",
        "a/one": "new",
        "a/two": "2",
        "b": "/",
        "b/deep": "/",
        "b/deep/file": "now a folder",
        "c": "now a file",
    }


def test_whiteouts_take_away_what_earlier_layers_put_there(root: Path) -> None:
    first: list[Entry] = [("a/one", b"1"), ("a/two", b"2"), ("d/old", b"o"), ("d/sub/old", b"o"), ("e", b"e")]
    second: list[Entry] = [
        ("a/.wh.one", b""),
        ("d/new", b"n"),
        ("d/sub/new", b"n"),
        ("d/.wh..wh..opq", b""),
        (".wh.e", b""),
        (".wh.none", b""),
    ]
    unpacked(root, first, second)
    assert seen(root) == {"a": "/", "a/two": "2", "d": "/", "d/new": "n", "d/sub": "/", "d/sub/new": "n"}


def test_a_whiteout_takes_a_link_away_and_not_what_it_leads_to(root: Path) -> None:
    unpacked(root, [("real/kept", b"k"), ("link", (LINK, "real"))], [(".wh.link", b"")])
    assert seen(root) == {"real": "/", "real/kept": "k"}
    with pytest.raises(Unsafe):
        unpacked(root, [("real/.wh...", b"")])


def test_links_are_followed_from_the_images_own_root(root: Path) -> None:
    unpacked(
        root,
        [("usr/lib", None), ("lib", (LINK, "/usr/lib")), ("up", (LINK, "../../../usr")), ("lib/a", b"a")],
        [("up/lib/b", b"b"), ("hard", (HARD, "lib/a"))],
    )
    found = seen(root)
    assert (found["usr/lib/a"], found["usr/lib/b"], found["lib"], found["hard"]) == ("a", "b", "->/usr/lib", "a")
    assert (root / "hard").stat().st_ino == (root / "usr/lib/a").stat().st_ino
    assert sorted(path.name for path in root.parent.iterdir()) == ["root"]


OUTSIDE: list[list[Entry]] = [
    [("../evil", b"x")],
    [("a/../../evil", b"x")],
    [("a", (LINK, "/../../..")), ("a/evil", b"x")],
    [("a", (LINK, "../../..")), ("a/evil", b"x")],
    [("a", (LINK, "{outside}")), ("a/evil", b"x")],
    [("a", (LINK, "{outside}/evil")), ("a", b"x")],
    [("a", (LINK, "{outside}")), ("a/.wh.there", b"")],
    [("a", (LINK, "{outside}")), ("a/.wh..wh..opq", b"")],
    [("a", (HARD, "../../there"))],
    [("a", (HARD, "{outside}/there"))],
    [("l", (LINK, "{outside}/there")), ("a", (HARD, "l"))],
    [("/evil", b"inside, from the root on")],
]


@pytest.mark.parametrize("entries", OUTSIDE)
def test_nothing_outside_is_touched(root: Path, entries: list[Entry]) -> None:
    outside = root.parent.parent
    (outside / "there").write_text("kept")
    told: list[Any] = [
        (name, (what[0], what[1].format(outside=outside)) if isinstance(what, tuple) else what)
        for name, what, *_ in entries
    ]
    before = {path for path in outside.rglob("*") if root not in path.parents}
    with suppress(Unsafe):
        unpacked(root, told)
    assert {path for path in outside.rglob("*") if root not in path.parents} == before
    assert (outside / "there").read_text() == "kept"
    for path in root.rglob("*"):
        assert path.is_symlink() or not path.is_file() or path.stat().st_nlink == 1 or "there" not in path.read_text()


def test_links_without_end_and_bad_names_are_refused(root: Path) -> None:
    with pytest.raises(Unsafe, match="without end"):
        unpacked(root, [("a", (LINK, "b")), ("b", (LINK, "a")), ("a/file", b"x")])
    for name in nonempty(["..", "a/..", "x" * 5000]):
        with pytest.raises(Unsafe):
            parts_of(name)
    assert parts_of("./a//b/") == ("a", "b")
    assert parts_of("/") == ()


def test_devices_are_left_out_and_no_file_gets_anothers_rights(root: Path) -> None:
    made = unpacked(root, [("dev/null", (DEVICE, "")), ("su", b"x", {"mode": 0o6755}), ("tmp", None, {"mode": 0o1777})])
    assert made.skipped == 1
    assert not (root / "dev/null").exists()
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777


def test_bounds_of_size_and_number(root: Path) -> None:
    with pytest.raises(Unsafe, match="more than its catalogue says"):
        unpacked(root, [("a", b"x" * 600), ("b", b"x" * 600)], most=1000)
    few = Unpacking(root, 10**6, owners=False, members_left=3)
    with pytest.raises(Unsafe, match="more than its catalogue says"):
        few.layer(io.BytesIO(layer([(f"f{number}", b"") for number in range(5)])))


def _file(folder: Path, tar: bytes, pack: Callable[[bytes], bytes] = gzip.compress) -> tuple[Path, str]:
    path = folder / "layer"
    path.write_bytes(pack(tar))
    return path, f"sha256:{hashlib.sha256(tar).hexdigest()}"


def test_a_layer_must_unpack_to_what_its_image_says(root: Path, tmp_path: Path) -> None:
    tar = layer([("a", b"1")])
    packings: list[Callable[[bytes], bytes]] = [gzip.compress, bytes]
    for pack in nonempty(packings):
        path, diff = _file(tmp_path, tar, pack)
        unpack_layer(path, diff, Unpacking(root, 10**6, owners=False))
        assert seen(root) == {"a": "1"}
        with pytest.raises(Unsafe, match="something else than its image says"):
            unpack_layer(path, f"sha256:{'0' * 64}", Unpacking(root, 10**6, owners=False))
    # what stands behind the tar's end counts as well
    path, _ = _file(tmp_path, tar + b"more")
    with pytest.raises(Unsafe, match="something else"):
        unpack_layer(path, diff, Unpacking(root, 10**6, owners=False))


def test_a_damaged_or_endless_layer_is_refused(root: Path, tmp_path: Path) -> None:
    path, diff = _file(tmp_path, layer([("a", b"1" * 5000)]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Unsafe, match="no tar"):
        unpack_layer(path, diff, Unpacking(root, 10**6, owners=False))
    path.write_bytes(b"\x1f\x8b" + b"junk")
    with pytest.raises(Unsafe, match="no tar"):
        unpack_layer(path, diff, Unpacking(root, 10**6, owners=False))
    path, diff = _file(tmp_path, layer([("a", b"\0" * 10_000_000)]))
    small = Unpacking(root, 10_000, owners=False, members_left=10)
    with pytest.raises(Unsafe):
        unpack_layer(path, diff, small)
    assert sum(one.stat().st_size for one in root.rglob("*") if one.is_file()) < 10_000_000


def test_layers_packed_by_zstd(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = layer([("a", b"1")])
    path, diff = _file(tmp_path, tar, lambda raw: b"\x28\xb5\x2f\xfd" + raw)
    ran: list[list[str]] = []

    def run(argv: list[str], **_: object) -> None:
        ran.append(argv)
        Path(argv[argv.index("-o") + 1]).write_bytes(tar)

    monkeypatch.setattr(process, "run", run)
    unpack_layer(path, diff, Unpacking(root, 10**6, owners=False))
    assert seen(root) == {"a": "1"}
    assert ran[0][0] == "prlimit"  # its output is bounded by the kernel
    assert not (tmp_path / "layer.tar").exists()

    def fail(argv: list[str], **_: object) -> None:
        raise ProcessFailed(argv, 127, "no such file")

    monkeypatch.setattr(process, "run", fail)
    with pytest.raises(CardstockError, match="packed by zstd") as caught:
        unpack_layer(path, diff, Unpacking(root, 10**6, owners=False))
    assert "apt-get install zstd" in caught.value.do


def test_a_root_with_closed_folders_is_dropped(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "link").symlink_to("/")
    os.chmod(root / "a", 0o500)  # noqa: PTH101
    unpack._drop(root)
    assert not root.exists()
