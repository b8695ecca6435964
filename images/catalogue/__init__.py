"""The catalogue of published images, and which of them a card should have.

The rule: what is read is checked, and a tag is written last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.catalogue import readme_table as readme_table
    from images.catalogue.acted import acted_cell as acted_cell
    from images.catalogue.acted import with_acted as with_acted
    from images.catalogue.answer import CardQuery as CardQuery
    from images.catalogue.answer import answer_json as answer_json
    from images.catalogue.answer import answer_lines as answer_lines
    from images.catalogue.answer import reference_of as reference_of
    from images.catalogue.answer import uuids_of as uuids_of
    from images.catalogue.card_table import EVIDENCE_HEADER as EVIDENCE_HEADER
    from images.catalogue.card_table import IMAGES_HEADER as IMAGES_HEADER
    from images.catalogue.card_table import CardRow as CardRow
    from images.catalogue.card_table import card_rows as card_rows
    from images.catalogue.card_table import cells_with_evidence as cells_with_evidence
    from images.catalogue.card_table import choice_json as choice_json
    from images.catalogue.card_table import choice_lines as choice_lines
    from images.catalogue.card_table import image_cells as image_cells
    from images.catalogue.card_table import one_by_one as one_by_one
    from images.catalogue.card_table import published_rows as published_rows
    from images.catalogue.card_table import row_json as row_json
    from images.catalogue.card_table import with_records as with_records
    from images.catalogue.evidence import Seen as Seen
    from images.catalogue.evidence import image_evidence as image_evidence
    from images.catalogue.evidence import records_evidence as records_evidence
    from images.catalogue.inputs import INPUTS_FILE as INPUTS_FILE
    from images.catalogue.inputs import inputs_json as inputs_json
    from images.catalogue.inputs import read_inputs as read_inputs
    from images.catalogue.model import FILE as FILE
    from images.catalogue.model import KIND as KIND
    from images.catalogue.model import SCHEMA as SCHEMA
    from images.catalogue.model import TAG as TAG
    from images.catalogue.model import Catalogue as Catalogue
    from images.catalogue.model import ImageAdvisories as ImageAdvisories
    from images.catalogue.model import PublishedImage as PublishedImage
    from images.catalogue.model import image_of_tag as image_of_tag
    from images.catalogue.model import immutable_tag as immutable_tag
    from images.catalogue.model import proofs_of as proofs_of
    from images.catalogue.model import read_catalogue as read_catalogue
    from images.catalogue.model import with_evidence as with_evidence
    from images.catalogue.model import with_image as with_image
    from images.catalogue.model import without_image as without_image
    from images.catalogue.model import without_newest as without_newest
    from images.catalogue.readme_table import CATALOGUE as CATALOGUE
    from images.catalogue.readme_table import FAMILIES as FAMILIES
    from images.catalogue.readme_table import group_by_image as group_by_image
    from images.catalogue.readme_table import with_images_table as with_images_table
    from images.catalogue.resolve import CardMatch as CardMatch
    from images.catalogue.resolve import MatchResult as MatchResult
    from images.catalogue.resolve import image_by_name as image_by_name
    from images.catalogue.resolve import match_images as match_images
    from images.catalogue.resolve import require_match as require_match
    from images.catalogue.store import ImageGone as ImageGone
    from images.catalogue.store import SigningKeys as SigningKeys
    from images.catalogue.store import attach_file as attach_file
    from images.catalogue.store import change_catalogue as change_catalogue
    from images.catalogue.store import check_content as check_content
    from images.catalogue.store import check_image as check_image
    from images.catalogue.store import fetch_catalogue as fetch_catalogue
    from images.catalogue.store import repair_tags as repair_tags
    from images.catalogue.store import set_tag as set_tag
    from images.catalogue.store import utc_now as utc_now
else:
    __getattr__ = face(__name__, __file__)
