"""Run inside an image: load what its server loads, then say which libraries are mapped. Standard library only.

    python served.py MODULE...

Prints one JSON object: ``mapped`` (libraries of site-packages in /proc/self/maps), ``asked`` (extension modules that
an import asked for and that only a missing driver library kept from loading), ``failed`` (module -> error).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import sys
import sysconfig
from pathlib import Path

DRIVER = "libcuda.so.1"
asked: set[str] = set()


def site() -> str:
    """The environment's folder of packages."""
    return sysconfig.get_paths()["platlib"] + "/"


class Watch(importlib.machinery.ExtensionFileLoader):
    """Notes the file of every extension module that is asked for, whether it loads or not."""

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        """As the loader does, noting a library that misses the driver only."""
        try:
            return super().create_module(spec)
        except ImportError as error:
            if DRIVER in str(error):
                asked.add(str(Path(self.path).resolve()).removeprefix(site()))
            raise


def watch() -> None:
    """Have every extension module loaded through `Watch`."""
    endings = importlib.machinery.EXTENSION_SUFFIXES
    hook = importlib.machinery.FileFinder.path_hook(
        (Watch, endings),
        (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
    )
    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


def mapped() -> list[str]:
    """Libraries of the environment that this process maps, by path below site-packages."""
    rows = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    paths = {row[5] for row in rows if len(row) == 6 and ".so" in row[5]}
    return sorted(path.removeprefix(site()) for path in paths if path.startswith(site()))


def main() -> int:
    """Load the modules named; the result on stdout."""
    watch()
    failed = {}
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps({"mapped": mapped(), "asked": sorted(asked), "failed": failed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
