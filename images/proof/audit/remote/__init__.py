"""The audit of an image that lies in a registry: its layers are read as they come, or in part, and never stored.

The rule: a finding counts when the layer that it is from was read to its end and has its digest, or when what was read
of it was named by a digest of its own; where neither is possible, the report says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.audit.remote.from_registry import RemoteAudit as RemoteAudit
    from images.proof.audit.remote.from_registry import audit_remote as audit_remote
    from images.proof.audit.remote.reference import ImageName as ImageName
    from images.proof.audit.remote.reference import parse_image_name as parse_image_name
else:
    __getattr__ = face(__name__, __file__)
