"""`bench pull` with a small image: a real registry behind the slow line, an empty engine that is gone afterwards."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench import pull
from bench.stages import Workbench
from images.core.home import Layout
from images.docker.embedded import bridge
from images.docker.embedded import daemon as embedded
from images.docker.engine import Engine
from tests.engine.conftest import host_tar, needs_root_on_debian
from tests.helpers.matrices import variants


@pytest.fixture
def image(engine: Engine) -> Iterator[str]:
    """An image of its own, so that no engine has its layer."""
    name = f"cardstock/test-slow:{uuid.uuid4().hex[:12]}"
    engine.import_tar(io.BytesIO(host_tar()), name, [f"LABEL dev.cardstock.test={name}"])
    yield name
    engine.untag(name, force=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Its path is short, as sockets want it."""
    made = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.timeout(900)
def test_an_image_comes_over_the_slow_line_whole_and_nothing_stays(engine: Engine, image: str, folder: Path) -> None:
    needs_root_on_debian()
    tools = cast("Workbench", SimpleNamespace(engine=engine, image_name=lambda _: image))
    card = variants().valid["cu124-vllm0.8.5.post1-xformers-sm75"]
    seen = pull.pull_slowly(tools, card, folder)
    assert seen.packed > 500_000
    assert seen.packed <= seen.received <= seen.packed * 1.05 + 1e6
    assert seen.start is None  # an image for a card, on an engine without one
    assert seen.why
    layout = Layout(folder / "e")
    assert not layout.socket.exists() or embedded.status(layout).running is False
    assert bridge.bridge_address(layout.bridge) is None
    mine = [one for one in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in read_quietly(one)]
    assert [one for one in mine if one.parent.name != str(os.getpid())] == []


def read_quietly(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
