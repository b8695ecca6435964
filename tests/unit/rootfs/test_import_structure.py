"""What transformers finds out at an import is kept and given again: by this very transformers alone, and unchanged."""

from __future__ import annotations

import json
import marshal
import sys
from pathlib import Path
from typing import Any

import pytest

from images.core import process

PROGRAM = Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock" / "import_structure.py"
# A transformers of a few lines: it says when it looks at files, and changes what it is given, as the real one does.
UTILS = """
import os
from importlib import metadata

PACKAGES = metadata.packages_distributions()

def define_import_structure(module_path, prefix=None):
    print("looked", flush=True)
    names = {name for name in os.listdir(os.path.dirname(str(module_path))) if name.endswith(".py")}
    return {frozenset(): {f"{prefix}.{name}": {"Model"} for name in sorted(names)}}
"""
PACKAGE = """
import json
from pathlib import Path
from .utils.import_utils import define_import_structure
__version__ = "5.0.0"
structure = define_import_structure(Path(__file__).parent / "models", prefix="models")
structure[frozenset({})].update({"own": {"Base"}})
"""
MODELS = """
from ..utils.import_utils import define_import_structure
structure = define_import_structure(globals()["__file__"])
"""
SHOW = """
import json, runpy, sys
from pathlib import Path
{0}
import transformers, transformers.models, transformers.utils.import_utils
told = [one.structure[frozenset()] for one in (transformers, transformers.models)]
packages = getattr(transformers.utils.import_utils, "PACKAGES", {{}})
print(json.dumps([*(sorted(one) for one in told), packages.get("own_module")]))
"""
ASKED = """
from importlib import metadata
look = metadata.packages_distributions
metadata.packages_distributions = lambda: print("asked", flush=True) or look()
"""
REPLAY = "runpy.run_path(sys.argv[1])['replay'](Path(sys.argv[2]))"
RECORD = "runpy.run_path(sys.argv[1])['record'](Path(sys.argv[2]))"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with that transformers, as an installer leaves it."""
    files = {
        "transformers/__init__.py": PACKAGE,
        "transformers/utils/__init__.py": "",
        "transformers/utils/import_utils.py": UTILS,
        "transformers/models/__init__.py": MODELS,
        "transformers-5.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def imported(site: Path, before: str = "") -> tuple[int, Any]:
    """How often it looked at files, and what its two packages then know."""
    argv = [sys.executable, "-B", "-c", SHOW.format(before), str(PROGRAM), str(site / "kept")]
    lines = process.run(argv, env={"PYTHONPATH": str(site)}).out.splitlines()
    return lines.count("looked"), json.loads(lines[-1])


def asked(site: Path) -> tuple[int, Any]:
    """How often it looked at all packages, though some were kept, and the package of own_module as it then knows it."""
    argv = [sys.executable, "-B", "-c", SHOW.format(ASKED + REPLAY), str(PROGRAM), str(site / "kept")]
    lines = process.run(argv, env={"PYTHONPATH": str(site)}).out.splitlines()
    return lines.count("asked"), json.loads(lines[-1])[2]


def install(site: Path, package: str) -> None:
    """A package with the module own_module."""
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "top_level.txt").write_text("own_module\n")


def test_what_was_kept_is_what_it_would_find_and_it_does_not_look(site: Path) -> None:
    looked, found = imported(site)
    assert looked == 2 and found[0][-1] == "own" and "models.__init__.py" in found[0] and found[2] is None
    assert imported(site, RECORD) == (2, found)
    assert imported(site, REPLAY) == (0, found)


def test_without_what_was_kept_it_looks(site: Path) -> None:
    assert imported(site, REPLAY)[0] == 2


@pytest.mark.parametrize("damage", ["version", "python", "cut", "other", "path", "older"])
def test_what_is_of_another_or_damaged_is_not_taken(site: Path, damage: str) -> None:
    _, found = imported(site, RECORD)
    kept = site / "kept"
    python, version, answers, packages = marshal.loads(kept.read_bytes())  # noqa: S302  (written just now)
    match damage:
        case "version":
            kept.write_bytes(marshal.dumps((python, "4.9.9", answers, packages)))
        case "python":
            kept.write_bytes(marshal.dumps(("3.99", version, answers, packages)))
        case "cut":
            kept.write_bytes(kept.read_bytes()[:40])
        case "older":
            kept.write_bytes(marshal.dumps((python, version, answers)))
        case "other":
            kept.write_bytes(marshal.dumps(7))
        case "path":
            kept.write_bytes(marshal.dumps((python, version, {("/elsewhere",): b""}, packages)))
    assert imported(site, REPLAY) == (2, found)


def test_the_packages_of_modules_are_kept_and_not_looked_for(site: Path) -> None:
    install(site, "own-package")
    imported(site, RECORD)
    assert asked(site) == (0, ["own-package"])


def test_packages_that_came_later_are_found(site: Path) -> None:
    install(site, "own-package")
    imported(site, RECORD)
    install(site, "later-package")
    times, packages = asked(site)
    assert times == 1 and sorted(packages) == ["later-package", "own-package"]


def test_a_transformers_that_knows_no_prefix_is_asked_as_it_was(site: Path) -> None:
    for name in ("utils/import_utils.py", "__init__.py"):
        text = (site / "transformers" / name).read_text()
        (site / "transformers" / name).write_text(text.replace(", prefix=None", "").replace(', prefix="models"', ""))
    utils = site / "transformers/utils/import_utils.py"
    utils.write_text(utils.read_text().replace("{prefix}.", ""))
    _, found = imported(site)
    assert imported(site, RECORD) == (2, found)
    assert imported(site, REPLAY) == (0, found)


def test_a_transformers_that_asks_nothing_is_left_as_it_is(site: Path) -> None:
    (site / "transformers/utils/import_utils.py").write_text("")
    for name in ("__init__.py", "models/__init__.py"):
        text = (site / "transformers" / name).read_text()
        dropped = [line for line in text.splitlines() if "define_import" not in line and "structure" not in line]
        (site / "transformers" / name).write_text("\n".join([*dropped, "structure = {frozenset(): {'old': {}}}", ""]))
    assert imported(site, RECORD) == (0, [["old"], ["old"], None])
    assert not (site / "kept").exists()
    assert imported(site, REPLAY) == (0, [["old"], ["old"], None])
