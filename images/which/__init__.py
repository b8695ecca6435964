"""The small program `which`: one static file that says which published image this machine's cards and driver want.

The rule: what it knows is rendered of the matrix, the card list and the catalogue's own form (`tables`); what it
decides is what `invoke pull` decides, and tests hold the two against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.which.build import TAG as TAG
    from images.which.build import BuiltIn as BuiltIn
    from images.which.build import build_which as build_which
    from images.which.build import read_program as read_program
    from images.which.publish import publish_which as publish_which
    from images.which.questions import differences as differences
    from images.which.questions import usual_questions as usual_questions
    from images.which.tables import program_tables as program_tables
else:
    __getattr__ = face(__name__, __file__)
