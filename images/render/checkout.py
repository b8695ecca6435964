"""The files of this checkout: where they are, reading and writing them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import IN_CHECKOUT, INSTALLED, SOURCE, UsageError, settings_folder, write_atomically
from images.matrix import Matrix, load_matrix
from images.render.bakefile import CONTEXT, DEVICE_CODE
from images.render.dockerfile import BAKE_FILE, GENERATED, KERNELS, SCHEMA_FILE

TEMPLATES = "dockerfiles/templates"
LOCKS = "dockerfiles/locks"
# Build scripts that no image runs, only the compiling of its kernel.
KERNEL_SCRIPTS = ("toolkit-packages",)
# What images are made of, from the root of the checkout, as git takes it.
INPUTS = ("matrix.yaml", "dockerfiles", DEVICE_CODE, "images/kernels/inside")


def checkout_at(root: Path) -> Checkout:
    """The checkout at ``root``, or what the package brought there. The one place that decides it.

    The package's lies in the folder of its console script, and has no `inv`.
    """
    return Checkout(root, installed=(root.parent / "__init__.py").is_file() and not (root / "inv").is_file())


@dataclass(frozen=True)
class Checkout:
    """A checkout of this repository at ``root``; ``installed``: the part of one that the package brought."""

    root: Path
    installed: bool = False

    @property
    def settings(self) -> Path:
        """The folder whose site.yaml counts: the checkout's own; of an installed part the user's."""
        return settings_folder() if self.installed else self.root

    def to_write(self, what: str, command: str) -> Path:
        """The root, to write ``what`` (`./inv command` does) below it. Raises UsageError where it is no checkout."""
        if self.installed:
            raise UsageError(
                f"{what} is a file of a checkout, and this is the installed {INSTALLED}",
                do=f"git clone {SOURCE}, and there {IN_CHECKOUT} {command}",
            )
        return self.root

    def matrix(self) -> Matrix:
        """matrix.yaml, checked. Raises UsageError."""
        return load_matrix(self.root / "matrix.yaml")

    def templates(self) -> dict[str, str]:
        """The Dockerfile templates' texts by file name."""
        return {path.name: path.read_text(encoding="utf-8") for path in (self.root / TEMPLATES).glob("*.j2")}

    @property
    def locks(self) -> Path:
        """The folder of the locks."""
        return self.root / LOCKS

    def generated(self) -> dict[str, str]:
        """The generated files as they are on disk: path from the root -> text."""
        dockerfiles = [path for place in (GENERATED, KERNELS) for path in (self.root / place).glob("*/Dockerfile")]
        paths = [*dockerfiles, self.root / BAKE_FILE, self.root / SCHEMA_FILE]
        return {str(p.relative_to(self.root)): p.read_text(encoding="utf-8") for p in paths if p.is_file()}

    def write_generated(self, files: Mapping[str, str]) -> list[str]:
        """Write what changed, remove what is left over; the paths touched."""
        present = self.generated()
        touched = [path for path, text in files.items() if present.get(path) != text]
        for path in touched:
            write_atomically(self.root / path, files[path])
        for path in present.keys() - files.keys():
            (self.root / path).unlink()
            if not any((self.root / path).parent.iterdir()):
                (self.root / path).parent.rmdir()
            touched.append(path)
        return sorted(touched)

    def texts(self, paths: Iterable[str]) -> dict[str, str]:
        """Those files that are there, as they are on disk: path from the root -> text."""
        return {path: (self.root / path).read_text(encoding="utf-8") for path in paths if (self.root / path).is_file()}

    def write_pages(self, pages: Mapping[str, str]) -> list[str]:
        """Write those that changed; their paths."""
        present = self.texts(pages)
        touched = [path for path, text in pages.items() if present.get(path) != text]
        for path in touched:
            write_atomically(self.root / path, pages[path])
        return touched

    def input_files(self, lock: str, plugins: Sequence[str] = ()) -> dict[str, bytes]:
        """What an image is made of beside its Dockerfile and its kernel: files copied in, scripts, its lock's files.

        ``plugins`` are those that it has, by their folders' names.
        """
        context = self.root / CONTEXT
        copied = ("rootfs", "build", *(f"plugins/{name}" for name in plugins))
        folders = [p for name in copied for p in (context / name).rglob("*") if p.is_file()]
        folders = [p for p in folders if p.name not in KERNEL_SCRIPTS]
        locks = [p for p in self.locks.glob("*") if p.name.startswith((f"{lock}.", "tools."))]
        slimming = (self.root / DEVICE_CODE).rglob("*.py")
        paths = sorted(p for p in (*folders, *locks, *slimming) if "__pycache__" not in p.parts)
        return {str(p.relative_to(self.root)): p.read_bytes() for p in paths}
