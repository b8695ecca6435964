"""Attention kernels compiled from source: their keys, the store of wheels, compiling, fetching.

The rule: pure but for `store`, `remote` and `compiler`; a wheel is audited whenever it comes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.kernels import remote as remote
    from images.kernels.choose import choose_kernels as choose_kernels
    from images.kernels.choose import users as users
    from images.kernels.compiler import Compiler as Compiler
    from images.kernels.compiler import build_arguments as build_arguments
    from images.kernels.compiler import empty_cache as empty_cache
    from images.kernels.make import Compiles as Compiles
    from images.kernels.make import provide as provide
    from images.kernels.needs import Need as Need
    from images.kernels.needs import WheelPlace as WheelPlace
    from images.kernels.needs import find_wheels as find_wheels
    from images.kernels.needs import needs_of as needs_of
    from images.kernels.needs import wheel_line as wheel_line
    from images.kernels.record import FILE as FILE
    from images.kernels.record import WheelRecord as WheelRecord
    from images.kernels.record import read_record as read_record
    from images.kernels.store import Store as Store
    from images.kernels.store import Stored as Stored
    from images.kernels.store import default_store as default_store
else:
    __getattr__ = face(__name__, __file__)
