"""The catalogue as a page: answers of `pull` and `fit` worked out beforehand, so that a browser only looks them up.

The rule: pure; a string from outside is data in the page, never markup, and the page asks nobody for anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.run.catalogue_page.facts import Known as Known
    from images.run.catalogue_page.page import Sources as Sources
    from images.run.catalogue_page.page import page_data as page_data
    from images.run.catalogue_page.page import page_text as page_text
else:
    __getattr__ = face(__name__, __file__)
