"""What Python 3.11 brought and this code uses, for 3.10 as well: UTC, a text enum, a file's SHA-256."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from datetime import timezone
from enum import Enum
from typing import Any, BinaryIO

UTC = timezone.utc
# A new group of processes, for `subprocess.Popen`; until 3.10 only a new session is had, whose first process leads one.
NEW_GROUP: Mapping[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
_CHUNK = 1 << 20


class TextEnum(str, Enum):
    """An enum whose members are their texts, also where they are printed: `enum.StrEnum`."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, how: str) -> str:
        return format(str(self), how)


def sha256_of(file: BinaryIO) -> str:
    """64 hex digits over the rest of an open file, read in pieces."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
