"""Which modules some modules reach: their imports, and what those import, through the faces of rooms.

Read from the text alone, by the standard library: a wheel is built where nothing of the project is installed. An import
inside of a function counts as well. A name that a room's face offers (images/core/lazy_import.py) is followed into the
module that has it.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path


def reached(root: Path, modules: Iterable[str], without: Collection[str] = ()) -> dict[str, Path]:
    """Module -> its file below ``root``, for ``modules`` and all that they reach; ``without`` these rooms."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or any(name == one or name.startswith(f"{one}.") for one in without):
            continue
        path = file_of(root, name)
        if path is None:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0]] if "." in name else []
        waiting += imports(root, path)
    return found


def file_of(root: Path, name: str) -> Path | None:
    """The file of a module or package; None for one that is not the project's."""
    place = root.joinpath(*name.split("."))
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def imports(root: Path, path: Path) -> Iterator[str]:
    """The modules that a file imports; those that a face only offers are not imported by it."""
    tree = parsed(path)
    skipped = {id(node) for node in offers(tree)} if path.name == "__init__.py" else set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                yield from target(root, node.module, alias.name)


def target(root: Path, module: str, name: str) -> Iterator[str]:
    """The modules behind `from module import name`: a module of that name, or the one that the face has it from."""
    if file_of(root, f"{module}.{name}"):
        yield f"{module}.{name}"
    path = file_of(root, module)
    if path is None or path.name != "__init__.py":
        return
    for node in offers(parsed(path)):
        if any(alias.name == name for alias in node.names) and node.module:
            yield node.module
            if node.module != module:
                yield from target(root, node.module, name)


def offers(tree: ast.Module) -> list[ast.ImportFrom]:
    """What a face offers: the imports below `if TYPE_CHECKING:`."""
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    return [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))
