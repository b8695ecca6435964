"""Imports put off: a module that another one imports, and that is read only when something of it is used."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _PutOff(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def put_off(name: str) -> None:
    """Have every later `import name` read nothing until an attribute of it is asked for.

    One that is imported already stays as it is. Whether it is installed is seen when it is used.
    """
    if name not in sys.modules:
        sys.modules[name] = _PutOff(name)
