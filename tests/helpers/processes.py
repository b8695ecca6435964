"""Processes of a test's own."""

from __future__ import annotations

import os


def ended_process() -> int:
    """The id of a process that has ended a moment ago."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
