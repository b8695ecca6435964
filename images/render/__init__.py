"""What is made of the matrix and committed: Dockerfiles, the bake file, labels, locks.

The rule: the same matrix and locks give the same bytes; `./inv render --check` compares them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.render import bakefile as bakefile
    from images.render import document as document
    from images.render import lock as lock
    from images.render.bakefile import STAGING as STAGING
    from images.render.bakefile import Pushing as Pushing
    from images.render.bakefile import bake_plan as bake_plan
    from images.render.bakefile import bake_target as bake_target
    from images.render.bakefile import registry_reference as registry_reference
    from images.render.bakefile import target_name as target_name
    from images.render.checkout import INPUTS as INPUTS
    from images.render.checkout import Checkout as Checkout
    from images.render.checkout import checkout_at as checkout_at
    from images.render.dockerfile import BAKE_FILE as BAKE_FILE
    from images.render.dockerfile import GENERATED as GENERATED
    from images.render.dockerfile import Templates as Templates
    from images.render.dockerfile import compile_templates as compile_templates
    from images.render.dockerfile import differences as differences
    from images.render.dockerfile import render as render
    from images.render.dockerfile import render_dockerfile as render_dockerfile
    from images.render.document import DOCUMENTS as DOCUMENTS
    from images.render.image_contract import CACHE as CACHE
    from images.render.image_contract import ENTRYPOINT as ENTRYPOINT
    from images.render.image_contract import MODELS as MODELS
    from images.render.image_contract import PORT as PORT
    from images.render.image_contract import USER as USER
    from images.render.labels import ADVISORIES as ADVISORIES
    from images.render.labels import BACKEND as BACKEND
    from images.render.labels import DIRTY as DIRTY
    from images.render.labels import EVIDENCE as EVIDENCE
    from images.render.labels import INPUT as INPUT
    from images.render.labels import LAYERS as LAYERS
    from images.render.labels import OPEN_ADVISORIES as OPEN_ADVISORIES
    from images.render.labels import PROVEN as PROVEN
    from images.render.labels import READ_CONTENTS_SCRIPT as READ_CONTENTS_SCRIPT
    from images.render.labels import REVISION as REVISION
    from images.render.labels import VARIANT as VARIANT
    from images.render.labels import make_labels as make_labels
    from images.render.labels import parse_contents as parse_contents
    from images.render.lock_files import LockState as LockState
    from images.render.lock_files import lock_file_name as lock_file_name
    from images.render.lock_files import read_lock as read_lock
    from images.render.lock_files import source_digest as source_digest
    from images.render.lock_inputs import normalize_name as normalize_name
    from images.render.lock_state import KERNEL_GROUP as KERNEL_GROUP
    from images.render.lock_state import LockRequest as LockRequest
    from images.render.lock_state import all_locks as all_locks
    from images.render.lock_state import lock_indexes as lock_indexes
    from images.render.lock_state import lock_requests as lock_requests
    from images.render.lock_state import lock_states as lock_states
    from images.render.lock_state import why_unlocked as why_unlocked
else:
    __getattr__ = face(__name__, __file__)
