"""The audit: for which cards the libraries of an image hold code, and whether all that they need is there.

The rule: it reads files and runs nothing of what it audits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.audit import gate as gate
    from images.proof.audit import loaded_libraries as loaded_libraries
    from images.proof.audit.closure import Closure as Closure
    from images.proof.audit.closure import Unmet as Unmet
    from images.proof.audit.closure import judge_closure as judge_closure
    from images.proof.audit.compatibility_page import record_wheel as record_wheel
    from images.proof.audit.compatibility_page import with_cards_table as with_cards_table
    from images.proof.audit.loader_tables import ImageTables as ImageTables
    from images.proof.audit.stand_ins import judge_stand_ins as judge_stand_ins
    from images.proof.audit.target import CARDS as CARDS
    from images.proof.audit.target import FromRegistry as FromRegistry
    from images.proof.audit.target import audit_command as audit_command
    from images.proof.audit.target import audit_image as audit_image
    from images.proof.audit.target import audit_path as audit_path
else:
    __getattr__ = face(__name__, __file__)
