"""What the wheel `cardstock` holds: the modules that the user's commands reach, and the data that they read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from dev.package.reached import reached

# Started as programs of their own, so that nothing imports them.
PROGRAMS = ("images.commands.installed", "images.run.demo.__main__")
# What a checkout computes from the sources of images stands in records/inputs.json.
WITHOUT = ("bench", "images.build", "images.kernels")
# Read at run time, from the root of a checkout. A pattern that finds nothing is an error.
DATA = (
    "LICENSE",
    "matrix.yaml",
    "advisories.yaml",
    "images/cards/overlay.yaml",
    "dockerfiles/locks/*",  # what images carry, for advisories
    "records/cards/*.json",  # how far images are proven
    "records/inputs.json",
    "records/packages/*.json",
    "images/run/catalogue_page/page.*",
    "images/run/demo/examples/*.png",
    "images/run/demo/page.css",
    "images/run/demo/page.js",
    "dev/demo.lock",
    "dev/modelscope.lock",
)
# The same, where there are any.
PERHAPS = ("records/lookups/*.json",)
# Of what images carry: what the demo page shares with them (images/commands/demo.py), and what advisories look into.
ROOTFS = "dockerfiles/rootfs"
SHARED = ("hosts", "json_shape", "connections")
_LOOKED_INTO = re.compile(r"^ +file: (\S+)$", re.MULTILINE)
PLACE = "cardstock/checkout"


def contents(root: Path) -> dict[Path, str]:
    """File -> its place in the wheel. Raises FileNotFoundError for data that is not there."""
    commands = commands_of(root)
    modules = reached(root, [*PROGRAMS, *(f"images.commands.{name}" for name in commands)], WITHOUT)
    files = {*modules.values(), *shared(root)}
    for pattern in (*DATA, *PERHAPS):
        found = [path for path in root.glob(pattern) if path.is_file()]
        if not found and pattern not in PERHAPS:
            raise FileNotFoundError(f"{pattern}: the wheel needs it")
        files.update(found)
    out = {path: f"{PLACE}/{path.relative_to(root).as_posix()}" for path in sorted(files)}
    start = root / "dev" / "package" / "cardstock"
    return out | {path: f"cardstock/{path.name}" for path in sorted(start.glob("*.py"))}


def commands_of(root: Path) -> tuple[str, ...]:
    """The commands of the user's half, as images/commands/installed.py names them."""
    tree = ast.parse((root / "images/commands/installed.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "COMMANDS":
            return tuple(ast.literal_eval(node.value))
    raise ValueError("images/commands/installed.py names no COMMANDS")


def shared(root: Path) -> set[Path]:
    """The files of images that the user's half reads or runs."""
    rootfs = root / ROOTFS
    protections = _LOOKED_INTO.findall((root / "advisories.yaml").read_text(encoding="utf-8"))
    return {*reached(rootfs / "opt/cardstock", SHARED).values(), *(rootfs / name for name in protections)}
