"""Known holes in what images carry: read from advisories.yaml, judged for each variant, and looked up.

The rule: pure, but for `checkout`, which reads the files of this checkout, and `lookup`, which asks the services.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.advisories import gate as gate
    from images.advisories import table as table
    from images.advisories.checkout import Assessments as Assessments
    from images.advisories.judge import Assessment as Assessment
    from images.advisories.judge import Finding as Finding
    from images.advisories.lookup import Services as Services
    from images.advisories.lookups import Coverage as Coverage
    from images.advisories.lookups import Lookup as Lookup
    from images.advisories.lookups import exact as exact
    from images.advisories.lookups import lookup_file as lookup_file
    from images.advisories.model import Advisories as Advisories
    from images.advisories.model import json_schema as json_schema
    from images.advisories.packages import DEBIAN_FILE as DEBIAN_FILE
    from images.advisories.packages import READ_DEBIAN_PACKAGES as READ_DEBIAN_PACKAGES
    from images.advisories.packages import debian_record as debian_record
    from images.advisories.proposal import PROPOSAL_HEADER as PROPOSAL_HEADER
    from images.advisories.proposal import packages_to_ask as packages_to_ask
    from images.advisories.proposal import propose as propose
    from images.advisories.proposal import with_proposal as with_proposal
    from images.advisories.reader import FILE as FILE
    from images.advisories.reader import SCHEMA_FILE as SCHEMA_FILE
    from images.advisories.reader import parse_advisories as parse_advisories
else:
    __getattr__ = face(__name__, __file__)
