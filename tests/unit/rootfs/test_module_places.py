"""Where modules are, kept when the image is built: what is found by it is what Python finds; what is left to Python."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from images.core import process

PROGRAM = Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock" / "module_places.py"
FILES = {
    "pack/__init__.py": "'''A package.'''\n",
    "pack/one.py": "def told():\n    return 1\n",
    "pack/both.py": "WHAT = 'module'\n",
    "pack/both/__init__.py": "WHAT = 'package'\n",
    "pack/both/text.txt": "some text",
    "pack/space/inner.py": "WHAT = 'in a namespace'\n",
    "pack/sub/__init__.py": "from pack.sub import deep\n",
    "pack/sub/deep.py": "WHAT = __name__\n",
    "top.py": "WHAT = 'top'\n",
    "pack-1.0.dist-info/METADATA": "Name: pack\n",
}
# Prints, for each name: how it was found, and what import has set; alike but for the loader's name with and without.
ASK = """
import importlib, importlib.resources, inspect, json, runpy, sys
if sys.argv[1] == "kept":
    runpy.run_path(sys.argv[2])["replay"](__import__("pathlib").Path(sys.argv[3]))
told = {}
for name in sys.argv[4:]:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        told[name] = type(error).__name__
        continue
    spec = module.__spec__
    told[name] = [type(spec.loader).__name__, spec.origin, spec.cached, spec.has_location, spec.parent,
                  list(module.__path__) if hasattr(module, "__path__") else None, getattr(module, "__file__", None),
                  module.__package__, getattr(module, "WHAT", None)]
if all(isinstance(told.get(name), list) for name in ("pack.one", "pack.both")):
    told["source"] = inspect.getsource(sys.modules["pack.one"].told)
    told["text"] = importlib.resources.files("pack.both").joinpath("text.txt").read_text()
print(json.dumps(told))
"""
NAMES = ("pack", "pack.one", "pack.both", "pack.space.inner", "pack.sub", "pack.sub.deep", "top", "pack.none")
KEPT = {"pack.one", "pack.both", "pack.sub", "pack.sub.deep"}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages, with bytecode as an image has it."""
    folder = tmp_path / "site"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    compile_all(folder, "unchecked-hash")
    return folder


def compile_all(folder: Path, mode: str) -> None:
    process.run([sys.executable, "-m", "compileall", "-q", "-f", "--invalidation-mode", mode, str(folder)])


def record(folder: Path) -> Path:
    kept = folder.parent / "places.bin"
    process.run([sys.executable, "-c", "import runpy, sys; from pathlib import Path; "
                 "runpy.run_path(sys.argv[1])['record'](Path(sys.argv[2]), Path(sys.argv[3]))",
                 str(PROGRAM), str(folder), str(kept)])  # fmt: skip
    return kept


def ask(folder: Path, kept: Path | None, *names: str, **environment: str) -> dict[str, Any]:
    """What each name was found as."""
    words = ["kept" if kept else "plain", str(PROGRAM), str(kept)]
    env = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    told: dict[str, Any] = json.loads(process.run([sys.executable, "-c", ASK, *words, *names], env=env).out)
    return told


def loaders(told: dict[str, Any]) -> set[str]:
    """The names that were found by what was kept."""
    return {name for name, one in told.items() if isinstance(one, list) and one[0] == "_Loader"}


def test_modules_are_what_they_are_without(packages: Path) -> None:
    plain, kept = ask(packages, None, *NAMES), ask(packages, record(packages), *NAMES)
    assert loaders(kept) == KEPT and loaders(plain) == set()
    assert kept["pack.none"] == plain["pack.none"] == "ModuleNotFoundError"
    assert kept["pack.both"][-1] == "package" and kept["source"] == FILES["pack/one.py"]
    for name in KEPT:
        kept[name][0] = "SourceFileLoader"
    assert kept == plain


def test_bytecode_is_what_is_run(packages: Path) -> None:
    kept = record(packages)
    (packages / "pack/sub/deep.py").write_text("WHAT = 'changed'\n")  # as for Python itself: an image's is not checked
    assert ask(packages, kept, "pack.sub.deep")["pack.sub.deep"][-1] == "pack.sub.deep"
    assert ask(packages, None, "pack.sub.deep")["pack.sub.deep"][-1] == "pack.sub.deep"


def test_other_packages_than_were_kept_are_found_by_python(packages: Path) -> None:
    kept = record(packages)
    (packages / "pack-1.0.dist-info").rename(packages / "pack-1.1.dist-info")
    assert loaders(ask(packages, kept, *NAMES)) == set()


@pytest.mark.parametrize("mode", ["timestamp", "checked-hash"])
def test_bytecode_that_python_checks_is_left_to_it(packages: Path, mode: str) -> None:
    kept = record(packages)
    compile_all(packages, mode)
    (packages / "pack/one.py").write_text("WHAT = 'changed'\ndef told():\n    return 10\n")
    # Found where it was, and then read as Python reads it.
    assert ask(packages, kept, "pack.one", "pack.both")["pack.one"][-1] == "changed"
    assert loaders(ask(packages, record(packages), *NAMES)) == set()


def test_bytecode_that_is_gone_or_cut_is_made_of_the_source(packages: Path) -> None:
    kept = record(packages)
    [one] = (packages / "pack/__pycache__").glob("one.*")
    one.write_bytes(one.read_bytes()[:6])
    assert ask(packages, kept, "pack.one", "pack.both")["pack.one"][0] == "_Loader"
    shutil.rmtree(packages / "pack/sub/__pycache__")
    assert ask(packages, kept, "pack.sub.deep")["pack.sub.deep"][-1] == "pack.sub.deep"


def test_a_module_in_machine_code_goes_before_its_source(packages: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    (packages / f"pack/one{suffix}").write_bytes(b"no library")
    (packages / f"pack/sub/__init__{suffix}").write_bytes(b"no library")
    assert loaders(ask(packages, record(packages), "pack.both", "pack.one", "pack.sub")) == {"pack.both"}


def test_a_folder_that_goes_before_on_the_path_does_so(packages: Path, tmp_path: Path) -> None:
    kept = record(packages)
    own = tmp_path / "own" / "pack"
    own.mkdir(parents=True)
    (own / "__init__.py").touch()
    (own / "one.py").write_text("WHAT = 'own'\ndef told(): ...\n")
    (own / "both").mkdir()
    (own / "both" / "__init__.py").touch()
    (own / "both" / "text.txt").touch()
    path = os.pathsep.join([str(own.parent), str(packages)])
    told = ask(packages, kept, "pack.one", "pack.both", PYTHONPATH=path)
    assert loaders(told) == set() and told["pack.one"][-1] == "own"


@pytest.mark.parametrize("content", [b"", b"nothing of marshal's", None])
def test_without_places_python_looks_for_itself(packages: Path, content: bytes | None) -> None:
    kept = record(packages)
    kept.unlink() if content is None else kept.write_bytes(content)
    assert loaders(ask(packages, kept, *NAMES)) == set()


def test_bytecode_that_lies_elsewhere_is_pythons_matter(packages: Path, tmp_path: Path) -> None:
    kept = record(packages)
    assert loaders(ask(packages, kept, *NAMES, PYTHONPYCACHEPREFIX=str(tmp_path / "else"))) == set()


def test_the_same_packages_are_kept_as_the_same_bytes(packages: Path) -> None:
    assert record(packages).read_bytes() == record(packages).read_bytes()
