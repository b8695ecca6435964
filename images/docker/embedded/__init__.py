"""The Docker engine that Cardstock brings to a machine that has none, from Debian's packages.

The rule: it leaves every other engine alone, and all it writes lies in the state folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.docker.embedded import bridge as bridge
    from images.docker.embedded import daemon as daemon
    from images.docker.embedded import mounts as mounts
    from images.docker.embedded import packages as packages
    from images.docker.embedded import space as space
else:
    __getattr__ = face(__name__, __file__)
