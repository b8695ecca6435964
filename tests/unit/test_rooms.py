"""The rooms of the house: each says what it is and its one rule, and others import from its face, not from inside."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.matrices import ROOT

# These run in builder stages or containers, file by file, where nothing else of the project is: they have no face.
WITHOUT_FACE = (
    "images.device_code",
    "images.kernels.inside",
    "images.compiled.inside",
    "images.proof.smoke.inside",
    "images.proof.smoke.levels",
)
PACKAGES = sorted(path.parent for place in ("images", "bench") for path in (ROOT / place).rglob("__init__.py"))
FILES = sorted(path for place in ("images", "bench") for path in (ROOT / place).rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name of a module or a package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


ROOMS = [name_of(package) for package in PACKAGES if name_of(package) != "images"]


def room_of(module: str) -> str:
    """The innermost room that a module is in; "" for one that is in none."""
    inside = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(inside, key=len, default="")


def imports(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """The modules of this project that are imported from, and what."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("images", "bench"):
            yield node.module or "", [alias.name for alias in node.names]


def reached_into(module: str, source: str) -> list[str]:
    """What ``source``, the text of ``module``, imports from inside of other rooms."""
    own = room_of(module)
    found = []
    for target, names in imports(ast.parse(source)):
        room = room_of(target)
        if room in (own, "") or target == room or room.startswith(WITHOUT_FACE):
            continue
        if target in ("images.core.options", "images.core.lazy_import"):  # what faces and options are made with
            continue
        found.append(f"{module}: from {target} import {', '.join(names)}")
    return found


def test_rooms_import_from_each_others_faces() -> None:
    assert len(FILES) > 200
    assert [line for path in FILES for line in reached_into(name_of(path), path.read_text())] == []


def test_nothing_imports_tasks_which_stands_above_all_rooms() -> None:
    users = [name_of(path) for path in FILES if "tasks" in _imported_names(path)]
    assert _imported_names(ROOT / "tests/unit/test_documents.py") >= {"tasks", "pytest"}
    assert users == []


def _imported_names(path: Path) -> set[str]:
    """The first part of every module that a file imports, also inside of functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain} | {
        (node.module or "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)
    }


def test_reaching_into_a_room_is_noticed() -> None:
    inside = "from images.docker.engine import Engine\n"
    assert reached_into("images.build.build", inside) == ["images.build.build: from images.docker.engine import Engine"]
    assert reached_into("images.build.build", "from images.docker import Engine\n") == []
    assert reached_into("images.docker.connection", inside) == []


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_a_room_says_what_it_is(package: Path) -> None:
    said = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert said and len(said) > 20


def offered(package: Path) -> list[str]:
    """The names that a room's face imports for others; none where it has no face."""
    tree = ast.parse((package / "__init__.py").read_text())
    blocks = [block for block in tree.body if isinstance(block, ast.If)]
    lines = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return [alias.name for line in lines for alias in line.names]


@pytest.mark.parametrize("package", [package for package in PACKAGES if offered(package)], ids=name_of)
def test_a_face_offers_what_is_there(package: Path) -> None:
    face = importlib.import_module(name_of(package))
    assert [name for name in offered(package) if not hasattr(face, name)] == []
    assert not hasattr(face, "no_such_name")


def test_every_room_of_the_unit_tests_is_one_of_the_house() -> None:
    folders = [path for path in (ROOT / "tests/unit").rglob("*") if path.is_dir() and any(path.glob("test_*.py"))]
    houses = {ROOT / "tests/unit" / name.replace(".", "/").removeprefix("images/") for name in ROOMS}
    assert folders
    assert set(folders) - houses == {ROOT / "tests/unit/rootfs"}
