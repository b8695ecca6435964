"""Where the modules of the image's packages are, kept when the image is built.

Importing vLLM's server is importing some 6000 modules. For each, Python looks through the folder of its package, at the
times of folders and files, for three kinds of files; a tenth of the processor time of the import. `record` keeps what
it would find in FILE, and `replay` finds by that, where the packages are still those that were kept, and only inside
of packages: names at the top are looked for along sys.path as ever.

Of a module that is kept the bytecode is taken as it is: an image's is not checked against its source by Python either
(compileall's unchecked-hash; any other is left to Python). Source: importlib/_bootstrap_external.py, FileFinder,
SourceFileLoader, of 3.11.
"""

from __future__ import annotations

import marshal
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType
from typing import Any

FILE = Path(__file__).with_name("module_places.bin")
TAG = f".{sys.implementation.cache_tag}.pyc"
# A bytecode file's first bytes where Python does not check its source: the version, then PEP 552's flags.
UNCHECKED = MAGIC_NUMBER + b"\x01\x00\x00\x00"
HEADER = 16
# By a package's folder, the names of its modules, and whether each is a package.
Places = dict[str, dict[str, bool]]


class _Loader(SourceFileLoader):
    """Python's own, but for where the bytecode comes from."""

    def __init__(self, name: str, path: str, cached: str) -> None:
        super().__init__(name, path)
        self._cached = cached

    def get_code(self, fullname: str) -> CodeType | None:
        try:
            data = Path(self._cached).read_bytes()
        except OSError:
            data = b""
        if not data.startswith(UNCHECKED):
            return super().get_code(fullname)
        code: CodeType = marshal.loads(memoryview(data)[HEADER:])  # noqa: S302  (as Python itself does)
        return code


class _Finder:
    """Finds modules of packages whose folder is known."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        folders = () if path is None else tuple(path)
        known = self._places.get(folders[0]) if len(folders) == 1 else None
        tail = name.rpartition(".")[2]
        if known is None or tail not in known:
            return None
        folder, package = folders[0], known[tail]
        if package:
            folder, tail = f"{folder}/{tail}", "__init__"
        source, cached = f"{folder}/{tail}.py", f"{folder}/__pycache__/{tail}{TAG}"
        spec = ModuleSpec(name, _Loader(name, source, cached), origin=source, is_package=package)
        spec.has_location, spec.cached = True, cached
        if package:
            spec.submodule_search_locations = [folder]
        return spec


def record(packages: Path, file: Path = FILE) -> None:
    """Keep the places of all modules below ``packages``, a folder of sys.path. Raises OSError."""
    places: Places = {}
    for folder, folders, files in os.walk(packages):
        folders[:] = sorted(name for name in folders if (Path(folder) / name / "__init__.py").is_file())
        modules = _modules(Path(folder), folders, files)
        if Path(folder) != packages and modules:
            places[folder] = modules
    file.write_bytes(marshal.dumps((sys.version, str(packages), _installed(packages), places)))


def _modules(folder: Path, packages: Iterable[str], files: Iterable[str]) -> dict[str, bool]:
    """What Python finds in a package's folder: packages first, then modules in machine code, which are left to it."""
    files = sorted(files)
    machine = {name[: -len(suffix)] for name in files for suffix in EXTENSION_SUFFIXES if name.endswith(suffix)}
    trusted = {name.removesuffix(".py") for name in files if name.endswith(".py")} - machine
    found = {name: False for name in sorted(trusted) if _unchecked(folder / "__pycache__" / f"{name}{TAG}")}
    found.pop("__init__", None)
    for name in packages:
        found.pop(name, None)
        inside = {one.name for one in (folder / name).glob("__init__.*")}
        if inside == {"__init__.py"} and _unchecked(folder / name / "__pycache__" / f"__init__{TAG}"):
            found[name] = True
    return found


def _unchecked(bytecode: Path) -> bool:
    try:
        with bytecode.open("rb") as file:
            return file.read(len(UNCHECKED)) == UNCHECKED
    except OSError:
        return False


def replay(file: Path = FILE) -> None:
    """Have modules found where they were, if this is the Python, and these are the packages, that were kept."""
    if places := _read(file):
        at = next((at for at, one in enumerate(sys.meta_path) if getattr(one, "__name__", "") == "PathFinder"), 0)
        sys.meta_path.insert(at, _Finder(places))  # type: ignore[arg-type]


def _read(file: Path) -> Mapping[str, Mapping[str, bool]]:
    try:
        python, packages, installed, places = marshal.loads(file.read_bytes())  # noqa: S302  (the image's own file)
        if python == sys.version and not sys.pycache_prefix and installed == _installed(Path(packages)):
            return dict(places)
    except (OSError, ValueError, EOFError, TypeError):
        pass
    return {}


def _installed(folder: Path) -> list[str]:
    """The packages that are installed in a folder, with their versions: the names of what tells of them."""
    return sorted(one.name for one in folder.iterdir() if one.suffix in {".dist-info", ".egg-info"})


if __name__ == "__main__":
    record(Path(sys.argv[1]))
