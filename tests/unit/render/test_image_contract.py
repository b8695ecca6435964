"""What images promise is what their Dockerfiles say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images.render.image_contract import CACHE, ENTRYPOINT, MODELS, PORT, USER
from tests.helpers.matrices import ROOT

DOCKERFILES = sorted((ROOT / "dockerfiles" / "rendered").glob("*/Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_a_dockerfile_keeps_the_promise(path: Path) -> None:
    said = dict(line.split(" ", 1) for line in path.read_text().splitlines() if line[:1].isupper() and " " in line)
    assert said["EXPOSE"] == str(PORT)
    assert json.loads(said["VOLUME"]) == [MODELS, CACHE]
    assert said["USER"] == f"{USER}:{USER}"
    assert ENTRYPOINT in json.loads(said["ENTRYPOINT"])


def test_there_are_dockerfiles() -> None:
    assert DOCKERFILES
