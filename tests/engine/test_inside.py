"""Tests that need torch, which the development environment leaves out: they run inside images, without a card."""

from __future__ import annotations

import re
import site
from fnmatch import fnmatch
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


CPU, TURING = "cpu-*", "cu124-vllm0.8.*-xformers-sm75"
FILES = [
    ("test_awq.py", CPU, 29),
    ("test_cpu_int4.py", CPU, 30),
    ("test_left_out.py", CPU, 15),
    ("test_server.py", CPU, 17),
    ("test_server_attacks.py", CPU, 22),
    ("test_text_positions.py", TURING, 11),
]
MEMORY = 6 * 2**30  # attacks that get through end here, and not with the machine


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("file", "variant", "least"), FILES)
def test_inside_an_image(file: str, variant: str, least: int) -> None:
    engine = connect()
    (identifier,) = (name for name in variants().valid if fnmatch(name, variant))
    image = f"{matrix().image}:{identifier}"
    if engine.inspect(image) is None:
        pytest.skip(f"{image} is not built: ./inv build --only '{identifier}'")
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
