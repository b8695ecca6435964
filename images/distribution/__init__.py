"""Publishing to a registry, and pulling from it.

The rule: digest first, tags last; whatever breaks on the way, old tags stay as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.distribution import publish as publish
    from images.distribution import publish_checks as publish_checks
    from images.distribution import pull as pull
    from images.distribution import rollback as rollback
    from images.distribution.publish import Press as Press
    from images.distribution.publish import prover as prover
    from images.distribution.pull_layers import check_disk_space as check_disk_space
    from images.distribution.push import Packed as Packed
else:
    __getattr__ = face(__name__, __file__)
