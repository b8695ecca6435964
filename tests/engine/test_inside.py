"""Tests that need torch, which the development environment leaves out: they run inside the image for the CPU."""

from __future__ import annotations

import re
import site
from pathlib import Path

import pytest

from images.build.build import PYTHON_IN_IMAGE
from images.docker.connection import connect
from images.docker.container_spec import Mount
from tests.helpers.matrices import ROOT, matrix, variants

# The image's own packages come first; pytest and what it needs come from the development environment behind them.
SCRIPT = """
import sys
sys.path.append("/development")
sys.path.insert(0, "/repository")
import pytest
sys.exit(pytest.main(["-c", "/dev/null", "--noconftest", "-p", "no:cacheprovider", "-q", *sys.argv[1:]]))
"""


FILES = [
    ("test_awq.py", 29),
    ("test_cpu_int4.py", 30),
    ("test_left_out.py", 15),
    ("test_server.py", 17),
    ("test_server_attacks.py", 22),
]
MEMORY = 6 * 2**30  # attacks that get through end here, and not with the machine


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("file", "least"), FILES)
def test_inside_the_image_for_the_cpu(file: str, least: int) -> None:
    engine = connect()
    identifier = next(v.id for v in variants().valid.values() if v.cuda is None)
    image = f"{matrix().image}:{identifier}"
    if engine.inspect(image) is None:
        pytest.skip(f"{image} is not built: ./inv build --only 'cpu*'")
    ran = engine.run(
        image,
        ["-B", "-c", SCRIPT, f"/repository/tests/inside/{file}"],
        entrypoint=[PYTHON_IN_IMAGE],
        mounts=[
            Mount(str(ROOT), "/repository"),
            Mount(next(path for path in site.getsitepackages() if Path(path, "pytest").is_dir()), "/development"),
        ],
        env={"HOME": "/tmp"},
        memory=MEMORY,
        timeout=540,
    )
    passed = re.search(r"(\d+) passed", ran.out)
    assert passed, ran.out
    assert int(passed[1]) >= least
    assert "skipped" not in ran.out
