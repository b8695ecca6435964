"""Small shared libraries by the machine's own gcc. The gate has it; elsewhere these tests are skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from images.core.process import run


def needs_gcc() -> None:
    """Skip the test on a machine without gcc."""
    if not shutil.which("gcc"):
        pytest.skip("this machine has no gcc: not run here")


def compiled(path: Path, source: str, *words: str, soname: str = "", versions: str = "") -> Path:
    """``source`` as a shared library at ``path``; ``versions`` is a version script, ``words`` go to gcc as they are."""
    needs_gcc()
    path.parent.mkdir(parents=True, exist_ok=True)
    code = path.with_name(path.name + ".c")
    code.write_text(source)
    script = path.with_name(path.name + ".map")
    script.write_text(versions)
    options = [f"-Wl,-soname,{soname or path.name}", *([f"-Wl,--version-script={script}"] if versions else [])]
    run(["gcc", "-shared", "-fPIC", "-O1", *options, "-o", str(path), str(code), *words])
    code.unlink()
    script.unlink()
    return path
