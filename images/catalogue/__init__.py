"""The catalogue of published images, and which of them a card should have.

The rule: what is read is checked, and a tag is written last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.catalogue import readme_table as readme_table
    from images.catalogue.answer import CardQuery as CardQuery
    from images.catalogue.answer import answer_json as answer_json
    from images.catalogue.answer import answer_lines as answer_lines
    from images.catalogue.answer import reference_of as reference_of
    from images.catalogue.answer import uuids_of as uuids_of
    from images.catalogue.card_table import IMAGES_HEADER as IMAGES_HEADER
    from images.catalogue.card_table import SEEN_HEADER as SEEN_HEADER
    from images.catalogue.card_table import Row as Row
    from images.catalogue.card_table import choice_json as choice_json
    from images.catalogue.card_table import choice_lines as choice_lines
    from images.catalogue.card_table import image_cells as image_cells
    from images.catalogue.card_table import published_rows as published_rows
    from images.catalogue.card_table import row_json as row_json
    from images.catalogue.card_table import rows as rows
    from images.catalogue.card_table import seen_cells as seen_cells
    from images.catalogue.card_table import with_records as with_records
    from images.catalogue.evidence import of_records as of_records
    from images.catalogue.model import SCHEMA as SCHEMA
    from images.catalogue.model import Catalogue as Catalogue
    from images.catalogue.model import PublishedImage as PublishedImage
    from images.catalogue.model import added as added
    from images.catalogue.model import immutable_tag as immutable_tag
    from images.catalogue.model import proofs as proofs
    from images.catalogue.model import proven_again as proven_again
    from images.catalogue.model import read_catalogue as read_catalogue
    from images.catalogue.model import rolled_back as rolled_back
    from images.catalogue.readme_table import pages as pages
    from images.catalogue.resolve import CardMatch as CardMatch
    from images.catalogue.resolve import Resolved as Resolved
    from images.catalogue.resolve import by_name as by_name
    from images.catalogue.resolve import match_images as match_images
    from images.catalogue.resolve import refuse_all as refuse_all
    from images.catalogue.store import Keys as Keys
    from images.catalogue.store import attach as attach
    from images.catalogue.store import change_catalogue as change_catalogue
    from images.catalogue.store import check_image as check_image
    from images.catalogue.store import fetch_catalogue as fetch_catalogue
    from images.catalogue.store import now as now
    from images.catalogue.store import point as point
else:
    __getattr__ = face(__name__, __file__)
