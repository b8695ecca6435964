"""Building: from chosen variants to jobs, and from jobs to images that are proven, labelled and tagged.

The rule: an image that is not proven has no name that people use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.build import build as build
    from images.build.at_builder import AtBuilder as AtBuilder
    from images.build.at_builder import unpacked_sizes as unpacked_sizes
    from images.build.build import PYTHON_IN_IMAGE as PYTHON_IN_IMAGE
    from images.build.build import RECORDS as RECORDS
    from images.build.build import BuildSettings as BuildSettings
    from images.build.build import BuiltImage as BuiltImage
    from images.build.build import build_images as build_images
    from images.build.build import say_commit as say_commit
    from images.build.build import unlocked_indexes as unlocked_indexes
    from images.build.job import ImageState as ImageState
    from images.build.job import Job as Job
    from images.build.job import describe as describe
    from images.build.job import input_hash as input_hash
    from images.build.job import make_job as make_job
    from images.build.job import state_of_image as state_of_image
    from images.build.plan import Plan as Plan
    from images.build.plan import input_hashes as input_hashes
    from images.build.plan import make_plan as make_plan
else:
    __getattr__ = face(__name__, __file__)
