"""A web page to ask a server about pictures and videos.

The rule: gradio, Pillow and av are imported in the page's own environment only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.run.demo import messages as messages
    from images.run.demo.answering import answering_at as answering_at
    from images.run.demo.folder import page_folder as page_folder
    from images.run.demo.server import find_model as find_model
    from images.run.demo.server import is_loopback as is_loopback
    from images.run.demo.server import parse_address as parse_address
    from images.run.demo.settings import Answering as Answering
    from images.run.demo.settings import Limits as Limits
    from images.run.demo.settings import Settings as Settings
    from images.run.demo.settings import read_size as read_size
else:
    __getattr__ = face(__name__, __file__)
