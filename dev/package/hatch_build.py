"""Chooses the wheel's files, for hatchling: those of contents.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parents[2]))
from dev.package.contents import contents


class Chooser(BuildHookInterface[Any]):
    """Called by hatchling before it writes a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name each file with its place in the wheel."""
        for path, place in contents(Path(self.root)).items():
            build_data["force_include"][str(path)] = place
