"""How a kernel build ends when it does not end well."""

from __future__ import annotations

FAILED, REFUSED, STOPPED = 1, 2, 75


class Failure(Exception):
    """The message says what happened, and what to do if that is known; ``code`` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def say(text: str) -> None:
    """One line for whoever watches; `images/docker/buildx.py` shows lines that begin like this."""
    print(f"kernel-build: {text}", flush=True)
