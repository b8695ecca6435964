"""NVIDIA cards: their names, capabilities and memory, those of this machine, and the image that each should have.

The rule: `this_machine` alone asks NVML; a machine without a card is a value, not an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.cards.asked import AskedCards as AskedCards
    from images.cards.asked import Selection as Selection
    from images.cards.asked import asked_cards as asked_cards
    from images.cards.choose import OLDEST_ARCH as OLDEST_ARCH
    from images.cards.choose import SMALLEST_WEIGHTS as SMALLEST_WEIGHTS
    from images.cards.choose import ImageChoice as ImageChoice
    from images.cards.choose import Refusal as Refusal
    from images.cards.choose import choose_images as choose_images
    from images.cards.choose import why_no_image as why_no_image
    from images.cards.data import Card as Card
    from images.cards.data import all_cards as all_cards
    from images.cards.data import plain_name as plain_name
    from images.cards.limits import LIMITS as LIMITS
    from images.cards.limits import REGISTERS_A_THREAD as REGISTERS_A_THREAD
    from images.cards.limits import SHARED_WITHOUT_ASKING as SHARED_WITHOUT_ASKING
    from images.cards.limits import KernelLimits as KernelLimits
    from images.cards.limits import limits_of as limits_of
    from images.cards.named import archs_of as archs_of
    from images.cards.named import named_cards as named_cards
    from images.cards.names import match_card as match_card
    from images.cards.nvml_errors import NO_DRIVER as NO_DRIVER
    from images.cards.nvml_errors import NVML_FAULTS as NVML_FAULTS
    from images.cards.nvml_errors import NVML_WSL as NVML_WSL
    from images.cards.nvml_errors import NvmlFault as NvmlFault
    from images.cards.pci import SWITCHES as SWITCHES
    from images.cards.pci import addresses as addresses
    from images.cards.this_machine import WSL as WSL
    from images.cards.this_machine import LocalCard as LocalCard
    from images.cards.this_machine import LocalMachine as LocalMachine
    from images.cards.this_machine import LostCard as LostCard
    from images.cards.this_machine import MigInstance as MigInstance
    from images.cards.this_machine import read_driver as read_driver
    from images.cards.this_machine import read_machine as read_machine
    from images.cards.vgpu import SHARED as SHARED
    from images.cards.written import MOST_CARDS as MOST_CARDS
    from images.cards.written import counted_name as counted_name
else:
    __getattr__ = face(__name__, __file__)
