"""What the programs of an image import, followed through the modules beside them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOTFS = Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"
OF_THE_SERVER = {"fastapi", "prometheus_client", "pydantic", "pydantic_core", "starlette", "uvicorn"}


def imported(path: Path) -> set[str]:
    """Top-level names that ``path`` imports, also inside functions, and those that its neighbours do for it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    near = {name for name in found if (ROOTFS / f"{name}.py").is_file()}
    return (found - near).union(*(imported(ROOTFS / f"{name}.py") for name in near))


@pytest.mark.parametrize("program", ["entrypoint", "preflight.py", "healthcheck.py"])
def test_what_starts_and_watches_a_container_needs_the_standard_library_alone(program: str) -> None:
    names = imported(ROOTFS / program)
    assert len(names) > 4 and names <= sys.stdlib_module_names


@pytest.mark.parametrize("module", ["hosts.py", "addresses.py", "fetch.py", "json_shape.py", "checkpoint_files.py"])
def test_what_other_servers_are_guarded_with_needs_the_standard_library_alone(module: str) -> None:
    assert imported(ROOTFS / module) <= sys.stdlib_module_names


@pytest.mark.parametrize("program", ["canary.py", "generate.py"])
def test_what_runs_the_model_needs_nothing_of_the_server(program: str) -> None:
    names = imported(ROOTFS / program)
    assert "torch" in names and not names & OF_THE_SERVER


def test_the_server_needs_all_of_it() -> None:
    assert imported(ROOTFS / "server.py") >= OF_THE_SERVER
