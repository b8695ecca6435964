"""What every run on a card is made of: a record that grows step by step, the host, its processes, a server under test.

The rule: a step ends with a verdict, whatever happens in it, and the record is written after each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.on_card.runs.host import INPUT as INPUT
    from images.proof.on_card.runs.host import NO_CARD as NO_CARD
    from images.proof.on_card.runs.host import NO_MULTICAST as NO_MULTICAST
    from images.proof.on_card.runs.host import PACKAGES as PACKAGES
    from images.proof.on_card.runs.host import VARIANT as VARIANT
    from images.proof.on_card.runs.host import env_of as env_of
    from images.proof.on_card.runs.host import gpus_of as gpus_of
    from images.proof.on_card.runs.host import labels_of as labels_of
    from images.proof.on_card.runs.host import nvidia_smi as nvidia_smi
    from images.proof.on_card.runs.host import own_checkout as own_checkout
    from images.proof.on_card.runs.host import versions_in as versions_in
    from images.proof.on_card.runs.processes import process_tree as process_tree
    from images.proof.on_card.runs.run import IN_IMAGE as IN_IMAGE
    from images.proof.on_card.runs.run import ROOT as ROOT
    from images.proof.on_card.runs.run import ROOTFS as ROOTFS
    from images.proof.on_card.runs.run import Failed as Failed
    from images.proof.on_card.runs.run import NotRun as NotRun
    from images.proof.on_card.runs.run import Run as Run
    from images.proof.on_card.runs.run import read_env as read_env
    from images.proof.on_card.runs.server import MARKS as MARKS
    from images.proof.on_card.runs.server import ServerFailed as ServerFailed
    from images.proof.on_card.runs.server import StartedServer as StartedServer
    from images.proof.on_card.runs.server import Streamed as Streamed
    from images.proof.on_card.runs.server import run_server as run_server
    from images.proof.on_card.runs.server import stream as stream
else:
    __getattr__ = face(__name__, __file__)
