"""A server for a model on this machine: planned, started, waited for, stopped.

The rule: what is printed is what is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.run.serve import hub as hub
    from images.run.serve import kubernetes as kubernetes
    from images.run.serve import modelscope as modelscope
    from images.run.serve import pick as pick
    from images.run.serve import start as start
    from images.run.serve import warm as warm
    from images.run.serve.asked import asked_model as asked_model
    from images.run.serve.by_hand import serve_words as serve_words
    from images.run.serve.by_hand import spec_without_model as spec_without_model
    from images.run.serve.compiled import Place as Place
    from images.run.serve.compiled import bring as bring
    from images.run.serve.compiled import bring_all as bring_all
    from images.run.serve.hub import read_config as read_config
    from images.run.serve.judge import check_count as check_count
    from images.run.serve.judge import judge_flags as judge_flags
    from images.run.serve.make import CACHE_VOLUME as CACHE_VOLUME
    from images.run.serve.make import SERVED as SERVED
    from images.run.serve.make import Options as Options
    from images.run.serve.make import cpu_length as cpu_length
    from images.run.serve.make import make_spec as make_spec
    from images.run.serve.make import merged as merged
    from images.run.serve.make import model_name as model_name
    from images.run.serve.make import on_cpu as on_cpu
    from images.run.serve.make import read_flags as read_flags
    from images.run.serve.opened import NOTHING as NOTHING
    from images.run.serve.opened import Opened as Opened
    from images.run.serve.opened import memory_of as memory_of
    from images.run.serve.opened import video_flag as video_flag
    from images.run.serve.pick import WAIT as WAIT
    from images.run.serve.pick import ServeOptions as ServeOptions
    from images.run.serve.pick import check_here as check_here
    from images.run.serve.pick import plan as plan
    from images.run.serve.pick import refuse_cards_elsewhere as refuse_cards_elsewhere
    from images.run.serve.source import PLACES as PLACES
    from images.run.serve.source import Source as Source
    from images.run.serve.source import find_source as find_source
    from images.run.serve.source import printed_source as printed_source
    from images.run.serve.start import PREFLIGHT as PREFLIGHT
    from images.run.serve.start import Clock as Clock
    from images.run.serve.start import died as died
    from images.run.serve.start import steps as steps
else:
    __getattr__ = face(__name__, __file__)
