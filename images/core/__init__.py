"""What every room may use: errors, what people are told, processes, files, the state folder.

The rule: it knows nothing of images, cards or models, and imports no other room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.core import debian as debian
    from images.core import process as process
    from images.core import toml as toml
    from images.core.chunks import Chunks as Chunks
    from images.core.closest_match import closest as closest
    from images.core.errors import CardstockError as CardstockError
    from images.core.errors import CheckFailed as CheckFailed
    from images.core.errors import EngineUnreachable as EngineUnreachable
    from images.core.errors import NoImageFits as NoImageFits
    from images.core.errors import NothingSelected as NothingSelected
    from images.core.errors import RegistryFailure as RegistryFailure
    from images.core.errors import Unsafe as Unsafe
    from images.core.errors import UsageError as UsageError
    from images.core.files import write_atomically as write_atomically
    from images.core.home import Layout as Layout
    from images.core.home import default_layout as default_layout
    from images.core.lazy_import import import_when_used as import_when_used
    from images.core.locked_environment import provide_environment as provide_environment
    from images.core.locks import LockTimeout as LockTimeout
    from images.core.locks import hold as hold
    from images.core.locks import hold_all as hold_all
    from images.core.locks import lock_path as lock_path
    from images.core.os_failure import os_failure as os_failure
    from images.core.outside_input import not_a_file as not_a_file
    from images.core.outside_input import parse_json as parse_json
    from images.core.outside_input import read_file as read_file
    from images.core.outside_input import read_json as read_json
    from images.core.outside_input import refuse_newer as refuse_newer
    from images.core.outside_input import to_text as to_text
    from images.core.outside_input import unreadable as unreadable
    from images.core.python310 import UTC as UTC
    from images.core.python310 import TextEnum as TextEnum
    from images.core.python310 import sha256_of as sha256_of
    from images.core.report import PrintLine as PrintLine
    from images.core.report import Report as Report
    from images.core.report import discard_stdout as discard_stdout
    from images.core.report import human_bytes as human_bytes
    from images.core.report import human_seconds as human_seconds
    from images.core.report import print_error as print_error
    from images.core.report import print_out as print_out
    from images.core.report import shown as shown
    from images.core.signals import Ended as Ended
    from images.core.signals import ends_as_interrupts as ends_as_interrupts
    from images.core.signals import exit_code_of as exit_code_of
    from images.core.site import SiteSettings as SiteSettings
    from images.core.site import read_site as read_site
    from images.core.site import settings_folder as settings_folder
    from images.core.typed import IN_CHECKOUT as IN_CHECKOUT
    from images.core.typed import INSTALLED as INSTALLED
    from images.core.typed import SOURCE as SOURCE
    from images.core.typed import as_typed as as_typed
    from images.core.typed import program_name as program_name
    from images.core.typed import started_as as started_as
    from images.core.work import bytes_below as bytes_below
    from images.core.work import can_write as can_write
    from images.core.work import sweep as sweep
    from images.core.work import work_folder as work_folder
    from images.core.work import work_root as work_root
    from images.core.yaml_input import compose_yaml as compose_yaml
    from images.core.yaml_model import Location as Location
    from images.core.yaml_model import YamlFile as YamlFile
    from images.core.yaml_model import line_of as line_of
    from images.core.yaml_model import parse_model as parse_model
    from images.core.yaml_model import plain_values as plain_values
    from images.core.yaml_model import read_text as read_text
    from images.core.yaml_text import to_yaml as to_yaml
else:
    __getattr__ = face(__name__, __file__)
