"""Imports that wait until something of them is used: of a slow library, and of the modules behind a room's face."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class _PutOff(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def import_when_used(name: str) -> None:
    """Have every later `import name` read nothing until an attribute of it is asked for.

    One that is imported already stays as it is. Whether it is installed is seen when it is used. Not by importlib's
    LazyLoader: until Python 3.12 its modules are read by the `import` statement itself, which looks at `__spec__`.
    """
    if name not in sys.modules:
        sys.modules[name] = _PutOff(name)


def face(package: str, file: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package that offers names of its modules, each imported when it is first asked for.

    The names are those that ``file``, the package's `__init__.py`, imports below `if TYPE_CHECKING:`, so that they
    stand there once, as plain imports that type checkers follow (PEP 562 has the way).
    """

    def attribute(name: str) -> Any:
        module = _offered(file).get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if module == package:
            return import_module(f"{package}.{name}")
        return getattr(import_module(module), name)

    return attribute


@cache
def _offered(file: str) -> dict[str, str]:
    """Name -> the module it is imported from; the package itself for a module of its own."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in imports for alias in node.names}
