"""Names of files as they are printed."""

from __future__ import annotations


def shown(name: str) -> str:
    """``name``; quoted, with escapes, where it holds what a terminal would obey or hide: a newline, U+202E, a byte."""
    return name if name.isprintable() else repr(name)
