"""Compile a stand-in, and hold the product against the real library."""

from __future__ import annotations

import subprocess
from pathlib import Path

from images.device_code.dynamic import Dynamic, read_dynamic
from images.device_code.elf import FatbinError
from images.device_code.stand_ins.names import Chosen, StandInError

# The same bytes from the same words: no identity, no path, no name of the compiler, nothing for debuggers.
_FLAGS = (
    *("-shared", "-fPIC", "-Os", "-std=gnu11", "-nostartfiles", "-fno-ident", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fcf-protection=none"),
    *("-Wl,--build-id=none", "-Wl,-s", "-Wl,--hash-style=gnu", "-Wl,-z,noseparate-code", "-Wl,-z,defs"),
    *("-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"),
)
PROGRAM = "gcc"
_SECONDS = 120
_NEEDED = frozenset({"libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"})


def compile_stand_in(work: Path, name: str, source: str, script: str) -> Path:
    """``work``/``name``, of this source and version script, with the SONAME ``name``. Raises StandInError."""
    (work / "stand_in.c").write_text(source)
    (work / "stand_in.map").write_text(script)
    words = [PROGRAM, *_FLAGS, f"-Wl,-soname,{name}", "-Wl,--version-script=stand_in.map", "-o", name, "stand_in.c"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        done = subprocess.run(
            words,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise StandInError("there is no gcc: install gcc and libc6-dev") from error
    except subprocess.TimeoutExpired as error:
        raise StandInError(f"gcc did not end within {_SECONDS} s with {name}") from error
    if done.returncode:
        raise StandInError(f"gcc failed with {name}: {done.stderr.strip()[-2000:]}")
    return work / name


def check_product(product: Path, real: Dynamic, chosen: Chosen) -> None:
    """Raises StandInError unless it exports what was chosen, as the real one does, and needs the C library alone."""
    try:
        found = read_dynamic(product.read_bytes())
    except FatbinError as error:
        raise StandInError(f"gcc made a damaged {product.name}: {error}") from error
    if found is None:
        raise StandInError(f"gcc made a {product.name} that no loader takes")
    exported = {(one.name, one.version, one.default) for one in found.exports}
    offered = {(one.name, one.version, one.default) for one in real.exports}
    wrong = [
        f"SONAME {found.soname!r} instead of {real.soname!r}" * (found.soname != real.soname),
        f"exports beyond the real library's: {_some(exported - offered)}" * bool(exported - offered),
        f"exports that differ from the choice: {_some({one[:2] for one in exported} ^ set(chosen.functions))}"
        * ({one[:2] for one in exported} != set(chosen.functions)),
        f"needs {found.needed}" * (not set(found.needed) <= _NEEDED),
    ]
    if any(wrong):
        raise StandInError(f"the stand-in for {real.soname} is wrong: {'; '.join(filter(None, wrong))}")


def _some(names: set[tuple[str, str, bool]] | set[tuple[str, str]]) -> str:
    return ", ".join(sorted(one[0] for one in names)[:5])
