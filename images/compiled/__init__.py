"""Compiled code that travels: what a server's first start compiles, kept by a key, packed, signed, given to others.

The rule: compiled code is code; what this machine did not make is used only when its signature was verified, or the
user says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.compiled import remote as remote
    from images.compiled.cache import PYTHON as PYTHON
    from images.compiled.cache import fill as fill
    from images.compiled.cache import keep as keep
    from images.compiled.key import CompiledKey as CompiledKey
    from images.compiled.key import image_hash as image_hash
    from images.compiled.key import kept_environment as kept_environment
    from images.compiled.key import kept_flags as kept_flags
    from images.compiled.key import model_hash as model_hash
    from images.compiled.record import CompiledRecord as CompiledRecord
    from images.compiled.store import CompiledStore as CompiledStore
    from images.compiled.store import Kept as Kept
    from images.compiled.store import Origin as Origin
    from images.compiled.store import default_store as default_store
    from images.compiled.store import read_file_into as read_file_into
    from images.compiled.store import signer_text as signer_text
    from images.compiled.store import write_file as write_file
else:
    __getattr__ = face(__name__, __file__)
