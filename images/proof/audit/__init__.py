"""The audit: for which cards the libraries that an image's server loads hold code.

The rule: it reads files and runs nothing of what it audits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.audit import gate as gate
    from images.proof.audit import loaded_libraries as loaded_libraries
    from images.proof.audit.compatibility_page import record_wheel as record_wheel
    from images.proof.audit.compatibility_page import with_cards_table as with_cards_table
    from images.proof.audit.target import CARDS as CARDS
    from images.proof.audit.target import Chunks as Chunks
    from images.proof.audit.target import audit_command as audit_command
    from images.proof.audit.target import audit_image as audit_image
    from images.proof.audit.target import audit_path as audit_path
else:
    __getattr__ = face(__name__, __file__)
