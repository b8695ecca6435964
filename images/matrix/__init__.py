"""The build matrix: what `matrix.yaml` says, which variants follow from it, which of them the user chose.

The rule: pure. It reads `matrix.yaml` and nothing else of this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.matrix import drivers as drivers
    from images.matrix import selection as selection
    from images.matrix.arch import KNOWN_ARCHS as KNOWN_ARCHS
    from images.matrix.arch import Arch as Arch
    from images.matrix.arch import covers as covers
    from images.matrix.arch import join_sm as join_sm
    from images.matrix.arch import parse_arch as parse_arch
    from images.matrix.by_driver import driver_lines as driver_lines
    from images.matrix.by_driver import for_older_drivers as for_older_drivers
    from images.matrix.by_driver import is_recommended as is_recommended
    from images.matrix.by_driver import recommended_for as recommended_for
    from images.matrix.drivers import LAST_FOR_VOLTA as LAST_FOR_VOLTA
    from images.matrix.drivers import Driver as Driver
    from images.matrix.drivers import driver_branches as driver_branches
    from images.matrix.drivers import driver_suffices as driver_suffices
    from images.matrix.drivers import driver_supports as driver_supports
    from images.matrix.drivers import parse_driver as parse_driver
    from images.matrix.judged import Judged as Judged
    from images.matrix.judged import judge_selection as judge_selection
    from images.matrix.kernel import Kernel as Kernel
    from images.matrix.kernel import duplicate_ids as duplicate_ids
    from images.matrix.left_out import left_out_lines as left_out_lines
    from images.matrix.left_out import left_out_page as left_out_page
    from images.matrix.load import check_matrix as check_matrix
    from images.matrix.load import load_matrix as load_matrix
    from images.matrix.model import Attention as Attention
    from images.matrix.model import Backend as Backend
    from images.matrix.model import Base as Base
    from images.matrix.model import Budget as Budget
    from images.matrix.model import CudaText as CudaText
    from images.matrix.model import Mark as Mark
    from images.matrix.model import Matrix as Matrix
    from images.matrix.model import MatrixPart as MatrixPart
    from images.matrix.model import Name as Name
    from images.matrix.model import PackageName as PackageName
    from images.matrix.model import RangeText as RangeText
    from images.matrix.model import StandIn as StandIn
    from images.matrix.model import UnmetNeed as UnmetNeed
    from images.matrix.model import UnusedPackage as UnusedPackage
    from images.matrix.model import When as When
    from images.matrix.model import json_schema as json_schema
    from images.matrix.no_image import driver_does_not_serve as driver_does_not_serve
    from images.matrix.no_image import driver_too_old as driver_too_old
    from images.matrix.notes import note_lines as note_lines
    from images.matrix.reader import parse_matrix as parse_matrix
    from images.matrix.recommended import NOT_LISTED as NOT_LISTED
    from images.matrix.recommended import Recommendation as Recommendation
    from images.matrix.recommended import ranking as ranking
    from images.matrix.recommended import recommendations as recommendations
    from images.matrix.rules import Judge as Judge
    from images.matrix.rules import in_range as in_range
    from images.matrix.rules import when_matches as when_matches
    from images.matrix.selection import explain as explain
    from images.matrix.selection import select as select
    from images.matrix.selectors import Selectors as Selectors
    from images.matrix.selectors import read_selectors as read_selectors
    from images.matrix.sizes import FIRST_IMAGE as FIRST_IMAGE
    from images.matrix.sizes import budget_of as budget_of
    from images.matrix.variant_table import excluded_json as excluded_json
    from images.matrix.variant_table import excluded_lines as excluded_lines
    from images.matrix.variant_table import recommended_lines as recommended_lines
    from images.matrix.variant_table import variant_json as variant_json
    from images.matrix.variants import WHOLE as WHOLE
    from images.matrix.variants import Variant as Variant
    from images.matrix.variants import Variants as Variants
    from images.matrix.variants import extra_kernels as extra_kernels
    from images.matrix.variants import make_variants as make_variants
else:
    __getattr__ = face(__name__, __file__)
