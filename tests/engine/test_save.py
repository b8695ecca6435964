"""Images saved from one engine and loaded into another: whole, in part, killed half-way, damaged, and by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from images.core import process
from images.core.errors import CardstockError, CheckFailed, Unsafe
from images.core.home import Layout, default_layout
from images.distribution.have import Have
from images.distribution.load import LOADING, list_layers, load
from images.distribution.save import ToSave, Wish, make_wish, save
from images.distribution.saved import SAVED_FILE, SUMS, read_saved
from images.docker.connection import connect
from images.docker.embedded import daemon as embedded
from images.docker.embedded.daemon_config import render_config
from images.docker.embedded.packages import cli_env, installed
from images.docker.engine import Engine
from images.render.labels import VARIANT
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty
from tests.helpers.small_images import archive, configuration, diff_id, layer

NAME = "cardstock/test-save"
SPLIT = 1_000_000
BASE = [layer("base", 20_000_000), layer("stack", 20_000_000)]
FIRST, SECOND = [*BASE, layer("first", 9_000_000)], [*BASE, layer("second", 3_000_000), layer("top", 1000)]


@dataclass(frozen=True)
class Engines:
    """One with the two images, and one that is to get them."""

    here: Engine
    there: Engine
    layout: Layout

    def clear(self) -> None:
        """Take all images from the other one."""
        for label in (VARIANT, LOADING):
            for facts in self.there.images(label):
                self.there.untag(facts.id, force=True)

    def by_hand(self, folder: Path) -> process.Finished:
        """What the documents say for a machine without `./inv`."""
        env = {**cli_env(self.layout), "DOCKER_HOST": self.layout.endpoint}
        line = f"sha256sum -c --quiet {SUMS} && cat piece-*.part | docker load"
        return process.run(["sh", "-c", line], cwd=folder, env=env, check=False, timeout=120)


@pytest.fixture(scope="module")
def engines(engine: Engine, second: Layout) -> Iterator[Engines]:
    if engine.keeps_what_came():
        pytest.skip("the engine here has the containerd store, from which nothing can be saved: not run")
    if installed(default_layout()):
        shutil.copytree(default_layout().prefix, second.prefix, symlinks=True)
    embedded.start(second, firewall=False, say=print)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = second.endpoint
    there = connect(second)
    os.environ.pop("DOCKER_HOST")
    if before is not None:
        os.environ["DOCKER_HOST"] = before
    for tag, layers in (("first", FIRST), ("second", SECOND)):
        engine.load(iter([archive(layers, {VARIANT: tag}, f"{NAME}:{tag}")]))
    yield Engines(engine, there, second)
    there.close()
    for tag in ("first", "second"):
        engine.untag(f"{NAME}:{tag}", force=True)


@pytest.fixture(autouse=True)
def nothing_there(engines: Engines) -> None:
    engines.clear()


def asked(*tags: str) -> list[ToSave]:
    return [ToSave(tag, f"{NAME}:{tag}", (f"{NAME}:{tag}",), ("9.0",), "canary: passed") for tag in tags]


def wish(engines: Engines, *tags: str, have: Have | None = None) -> Wish:
    return make_wish(engines.here, asked(*tags), SPLIT, have)


def image_id(layers: list[bytes], tag: str) -> str:
    return diff_id(configuration(layers, {VARIANT: tag}))


def test_two_images_that_share_layers_go_over_in_pieces(engines: Engines, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    written = save(engines.here, wish(engines, "first", "second"), folder, print)
    assert written.size < 54_000_000  # the shared layers are there once
    assert {path.stat().st_size for path in folder.glob("piece-*.part")} == {SPLIT, written.size % SPLIT}
    assert sorted(path.name for path in folder.iterdir())[0] == SUMS
    told: list[str] = []
    first, second = load(engines.there, folder, read_saved(folder), NAME, told.append)
    assert [first.image.id, second.image.id] == [image_id(FIRST, "first"), image_id(SECOND, "second")]
    assert (first.given, second.given) == (3, 2)
    for tag, layers in nonempty({"first": FIRST, "second": SECOND}.items()):
        facts = engines.there.inspect(f"{NAME}:{tag}")
        assert facts is not None
        assert (facts.id, facts.layers) == (image_id(layers, tag), tuple(map(diff_id, layers)))
    assert engines.there.images(LOADING) == ()
    assert [one.given for one in load(engines.there, folder, read_saved(folder), NAME, print)] == [0, 0]
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != SUMS}
    assert save(engines.here, wish(engines, "first", "second"), folder, print) == written
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != SUMS}


def test_standard_tools_are_enough_there(engines: Engines, tmp_path: Path) -> None:
    save(engines.here, wish(engines, "first"), tmp_path, print)
    listed = process.run(["sh", "-c", "cat piece-*.part | tar -tv"], cwd=tmp_path)
    assert listed.err == ""
    names = [line.split()[-1] for line in listed.out.splitlines()]
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert len(names) == 8
    assert all(name.startswith("blobs/sha256/") for name in names[3:])
    done = engines.by_hand(tmp_path)
    assert (done.code, done.out.strip()) == (0, f"Loaded image: {NAME}:first"), done.err
    facts = engines.there.inspect(f"{NAME}:first")
    assert facts is not None
    assert facts.id == image_id(FIRST, "first")
    piece = tmp_path / "piece-0007.part"
    piece.write_bytes(piece.read_bytes()[:-1] + b"x")
    done = engines.by_hand(tmp_path)
    assert done.code != 0
    assert "piece-0007.part: FAILED" in done.out


def test_layers_that_the_other_side_has_stay_at_home(engines: Engines, tmp_path: Path) -> None:
    whole = save(engines.here, wish(engines, "first"), tmp_path / "first", print)
    load(engines.there, tmp_path / "first", whole, NAME, print)
    have = list_layers(engines.there)
    assert have.chains == (tuple(map(diff_id, FIRST)),)
    folder = tmp_path / "second"
    written = save(engines.here, wish(engines, "second", have=have), folder, print)
    assert written.size < 4_000_000
    assert [layer.sent for layer in written.layers.values()] == [False, False, True, True]
    (loaded,) = load(engines.there, folder, read_saved(folder), NAME, print)
    assert (loaded.image.id, loaded.given) == (image_id(SECOND, "second"), 2)
    # by hand too, as the layers that were left out are there
    engines.there.untag(image_id(SECOND, "second"), force=True)
    assert engines.by_hand(folder).code == 0
    assert engines.there.inspect(image_id(SECOND, "second")) is not None
    # and where they are not, it is told before anything is given
    engines.clear()
    with pytest.raises(CardstockError, match="2 layers were left out that this engine has not") as caught:
        load(engines.there, folder, read_saved(folder), NAME, print)
    assert "--list" in caught.value.do
    assert engines.there.images(VARIANT) == ()


def test_a_damaged_piece_is_named_and_a_missing_one_too_and_nothing_is_loaded(engines: Engines, tmp_path: Path) -> None:
    written = save(engines.here, wish(engines, "first"), tmp_path, print)
    pieces = [tmp_path / piece.name for piece in written.pieces]
    good = {path: path.read_bytes() for path in pieces}
    pieces[3].write_bytes(good[pieces[3]][:500] + b"\0" + good[pieces[3]][501:])
    pieces[5].unlink()
    with pytest.raises(Unsafe) as damaged:
        load(engines.there, tmp_path, written, NAME, print)
    assert damaged.value.exit_code == 7
    assert "bring again: piece-0004.part piece-0006.part;" in damaged.value.do
    pieces[3].write_bytes(good[pieces[3]])
    with pytest.raises(CheckFailed, match="1 of 50 pieces are missing") as missing:
        load(engines.there, tmp_path, written, NAME, print)
    assert missing.value.exit_code == 1
    assert missing.value.do.startswith("bring them: piece-0006.part;")
    assert engines.there.images(VARIANT) == engines.there.images(LOADING) == ()
    # where it was saved, the same again writes these anew, and no other
    stamps = {path: path.stat().st_mtime_ns for path in pieces if path.exists()}
    pieces[3].write_bytes(good[pieces[3]][:100])
    assert save(engines.here, wish(engines, "first"), tmp_path, print) == written
    assert {path: path.read_bytes() for path in pieces} == good
    changed = [path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp]
    assert changed == [pieces[3]]


def test_an_engine_with_the_containerd_store_takes_the_whole_at_once_and_by_hand(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(layout: Layout, *, mtu: int, firewall: bool) -> str:
        settings = json.loads(render_config(layout, mtu=mtu, firewall=firewall))
        return json.dumps({**settings, "features": {"containerd-snapshotter": True}, "storage-driver": "overlayfs"})

    monkeypatch.setattr(embedded, "render_config", render)
    layout = Layout(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    shutil.copytree(engines.layout.prefix, layout.prefix, symlinks=True)
    written = save(engines.here, wish(engines, "first", "second"), tmp_path, print)
    try:
        embedded.start(layout, firewall=False, say=print)
        monkeypatch.setenv("DOCKER_HOST", layout.endpoint)
        other = Engines(engines.here, connect(layout), layout)
        assert other.there.keeps_what_came()
        assert list_layers(other.there).chains == ()
        assert [one.given for one in load(other.there, tmp_path, written, NAME, print)] == [3, 4]
        assert [one.given for one in load(other.there, tmp_path, written, NAME, print)] == [0, 0]
        names = {tag for facts in other.there.images(VARIANT) for tag in facts.tags}
        assert names == {f"{NAME}:first", f"{NAME}:second"}
        other.clear()
        assert other.there.images(VARIANT) == ()
        done = other.by_hand(tmp_path)
        assert done.code == 0, done.err
        facts = other.there.inspect(f"{NAME}:second")
        assert facts is not None
        assert facts.layers == tuple(map(diff_id, SECOND))
        with pytest.raises(CardstockError, match="does not come out of the engine whole"):
            make_wish(other.there, asked("first"), SPLIT, None)
        other.there.close()
    finally:
        embedded.stop(layout)
        shutil.rmtree(layout.home)


SAVE = """
from tests.engine.test_save import *
engine = connect()
save(engine, make_wish(engine, asked("first", "second"), SPLIT, None), Path(sys.argv[1]), print)
"""
LOAD = """
from tests.engine.test_save import *
load(connect(), Path(sys.argv[1]), read_saved(Path(sys.argv[1])), NAME, print)
"""


def killed(script: str, folder: Path, endpoint: str, log: Path, when: Callable[[], bool]) -> None:
    """Start a script of its own, and kill it as soon as something is so."""
    env = {"DOCKER_HOST": endpoint, "PYTHONPATH": str(ROOT)}
    pid = process.start_daemon([sys.executable, "-c", script, str(folder)], log, env=env)
    end = time.monotonic() + 120
    while not when():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_save_that_was_killed_goes_on(engines: Engines, tmp_path: Path) -> None:
    whole = save(engines.here, wish(engines, "first", "second"), tmp_path / "whole", print)
    folder = tmp_path / "killed"

    def packed() -> int:
        return len(list((folder / ".save").glob("*.zst")))

    def written() -> int:
        return len(list(folder.glob("piece-*.part")))

    killed(SAVE, folder, engines.here.endpoint, tmp_path / "log", lambda: packed() >= 1)
    before = {path: path.stat().st_mtime_ns for path in (folder / ".save").glob("*.zst")}
    assert 1 <= len(before) < 5
    killed(SAVE, folder, engines.here.endpoint, tmp_path / "log", lambda: written() >= 5)
    assert before == {path: path.stat().st_mtime_ns for path in before}  # what was packed was not packed again
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("piece-*.part")}
    assert 5 <= len(stamps) < len(whole.pieces)
    assert not (folder / SAVED_FILE).exists()
    assert save(engines.here, wish(engines, "first", "second"), folder, print) == whole
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_a_load_that_was_killed_goes_on(engines: Engines, tmp_path: Path) -> None:
    written = save(engines.here, wish(engines, "first", "second"), tmp_path / "out", print)
    folder = tmp_path / "out"
    killed(LOAD, folder, engines.there.endpoint, tmp_path / "log", lambda: bool(engines.there.images(LOADING)))
    assert engines.there.images(VARIANT) == ()
    first, second = load(engines.there, folder, written, NAME, print)
    assert first.given < 3
    assert second.given == 2
    assert engines.there.images(LOADING) == ()
    assert {facts.id for facts in engines.there.images(VARIANT)} == {first.image.id, second.image.id}
