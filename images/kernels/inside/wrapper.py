"""Stands in a compiler's place: `python wrapper.py nvcc|c++ COMPILER ARGUMENTS...`. One file, standard library.

It starts the compiler through the compiler cache (CARDSTOCK_CCACHE, a program's path), and starts nothing any more once
the file CARDSTOCK_STOP exists: ninja then lets the running compilers finish and ends.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STOPPED = 75


def nvcc_arguments(arguments: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """nvcc's arguments in a form that the compiler cache understands, with the flags that nvcc takes from ``env``.

    - ccache 4.7 knows -MD and -MF, not their long forms, and does not hash NVCC_PREPEND_FLAGS and NVCC_APPEND_FLAGS.
    - Threads inside nvcc would take memory beyond what the number of jobs was worked out from.
    """
    prepended, appended = (shlex.split(env.get(f"NVCC_{name}_FLAGS", "")) for name in ("PREPEND", "APPEND"))
    out: list[str] = []
    waiting = iter([*prepended, *arguments, *appended])
    for argument in waiting:
        if argument == "--generate-dependencies-with-compile":
            out.append("-MD")
        elif argument == "--dependency-output":
            out += ["-MF", next(waiting, "")]
        elif argument in ("--threads", "-t"):
            next(waiting, None)
        elif not argument.startswith(("--threads=", "-t=")):
            out.append(argument)
    return out


def cxx_arguments(arguments: Sequence[str]) -> list[str]:
    """A C++ compiler's arguments. -MMD leaves system headers out of what the cache compares, which torch's may be."""
    return ["-MD" if argument == "-MMD" else argument for argument in arguments]


def command(kind: str, compiler: str, arguments: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The command that does the work."""
    cache = env.get("CARDSTOCK_CCACHE")
    words = nvcc_arguments(arguments, env) if kind == "nvcc" else cxx_arguments(arguments)
    return [*([cache] if cache else []), compiler, *words]


def main(words: Sequence[str], env: dict[str, str]) -> None:
    """Become the compiler; or end, with the exit code of a build that is to stop."""
    kind, compiler, *arguments = words
    stop = env.get("CARDSTOCK_STOP")
    if stop and Path(stop).exists():
        print("stopped: the time is up", file=sys.stderr)
        raise SystemExit(STOPPED)
    argv = command(kind, compiler, arguments, env)
    for name in ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"):
        env.pop(name, None)
    os.execve(argv[0], argv, env)  # noqa: S606  an argument list, no shell


if __name__ == "__main__":
    main(sys.argv[1:], dict(os.environ))
