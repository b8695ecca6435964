"""Publishing to a registry, and pulling from it; saving images in pieces, and loading them, where there is none.

The rule: digest first, tags last; whatever breaks on the way, old tags stay as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.distribution import disk_space as disk_space
    from images.distribution import load as load
    from images.distribution import provenance as provenance
    from images.distribution import publish as publish
    from images.distribution import publish_checks as publish_checks
    from images.distribution import pull as pull
    from images.distribution import push as push
    from images.distribution import save as save
    from images.distribution import sbom as sbom
    from images.distribution.have import read_have as read_have
    from images.distribution.pieces import parse_size as parse_size
    from images.distribution.publish import Publisher as Publisher
    from images.distribution.publish import prover as prover
    from images.distribution.publish import remember as remember
    from images.distribution.pull_layers import PULLED as PULLED
    from images.distribution.pull_layers import check_disk_space as check_disk_space
    from images.distribution.pull_layers import drop_left as drop_left
    from images.distribution.push import Packed as Packed
    from images.distribution.rollback import Destination as Destination
    from images.distribution.rollback import print_what_would_be_done as print_what_would_be_done
    from images.distribution.rollback import roll_back as roll_back
    from images.distribution.save import ToSave as ToSave
    from images.distribution.saved import SAVED_FILE as SAVED_FILE
    from images.distribution.saved import SUMS as SUMS
    from images.distribution.saved import Saved as Saved
    from images.distribution.saved import read_saved as read_saved
    from images.distribution.unpack import UNPACKED as UNPACKED
    from images.distribution.unpack import bring_unpacked as bring_unpacked
else:
    __getattr__ = face(__name__, __file__)
