"""How a model is served on cards: settings with reasons, memory added up line by line.

The rule: pure but for `find`; every constant has its source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.run.fit.backends import check_on_cpu as check_on_cpu
    from images.run.fit.beside_the_cards import cpu_memory as cpu_memory
    from images.run.fit.beside_the_cards import host_memory as host_memory
    from images.run.fit.beside_the_cards import memory_limit as memory_limit
    from images.run.fit.choose import Ask as Ask
    from images.run.fit.choose import Fit as Fit
    from images.run.fit.choose import fit as fit
    from images.run.fit.choose import with_load as with_load
    from images.run.fit.config import from_config as from_config
    from images.run.fit.families import SHAPES as SHAPES
    from images.run.fit.find import FitOptions as FitOptions
    from images.run.fit.find import find_fit as find_fit
    from images.run.fit.find import find_variant as find_variant
    from images.run.fit.find import read_config_file as read_config_file
    from images.run.fit.find import read_model as read_model
    from images.run.fit.fit_table import fit_json as fit_json
    from images.run.fit.fit_table import fit_lines as fit_lines
    from images.run.fit.memory import MemoryLine as MemoryLine
    from images.run.fit.model import Model as Model
    from images.run.fit.model import model_by_name as model_by_name
    from images.run.fit.names import by_name_alone as by_name_alone
    from images.run.fit.names import is_repository as is_repository
    from images.run.fit.names import not_understood as not_understood
    from images.run.fit.names import published as published
    from images.run.fit.names import refuse_others as refuse_others
    from images.run.fit.names import typed_name as typed_name
    from images.run.fit.parallel import Split as Split
    from images.run.fit.settings import environment as environment
    from images.run.fit.settings import server_flags as server_flags
    from images.run.fit.settings import shm_gigabytes as shm_gigabytes
    from images.run.fit.settings import unverified as unverified
    from images.run.fit.start import aot_check as aot_check
    from images.run.fit.start import start_settings as start_settings
    from images.run.fit.typed import cluster_words as cluster_words
    from images.run.fit.typed import plan_words as plan_words
    from images.run.fit.usable_memory import GIB as GIB
    from images.run.fit.usable_memory import sold_bytes as sold_bytes
    from images.run.fit.usable_memory import usable as usable
    from images.run.fit.visible_devices import check_visible as check_visible
    from images.run.fit.visible_devices import shell_note as shell_note
    from images.run.fit.weights import kv_bytes as kv_bytes
    from images.run.fit.weights import stage_weights as stage_weights
    from images.run.fit.weights import vision_weights as vision_weights
else:
    __getattr__ = face(__name__, __file__)
