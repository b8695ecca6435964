"""The smoke levels: an image's stack, canary and server, tried in containers.

The rule: an image gets no name before its levels have passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.proof.smoke import kernels as kernels
    from images.proof.smoke import prove as prove
    from images.proof.smoke import server as server
    from images.proof.smoke.client import Client as Client
    from images.proof.smoke.client import chat_request as chat_request
    from images.proof.smoke.collector import Collector as Collector
    from images.proof.smoke.collector import level_of as level_of
    from images.proof.smoke.compare_logits import greatest_distance as greatest_distance
    from images.proof.smoke.compare_logits import log_softmax as log_softmax
    from images.proof.smoke.compare_logits import why_degenerate as why_degenerate
    from images.proof.smoke.compare_logits import why_not_golden as why_not_golden
    from images.proof.smoke.compare_logits import why_wrong as why_wrong
    from images.proof.smoke.containers import PROOF as PROOF
    from images.proof.smoke.containers import ProofContainers as ProofContainers
    from images.proof.smoke.containers import is_local as is_local
    from images.proof.smoke.expectation import Expectation as Expectation
    from images.proof.smoke.expectation import expect as expect
    from images.proof.smoke.findings import Findings as Findings
    from images.proof.smoke.findings import command_paths as command_paths
    from images.proof.smoke.findings import required_modules as required_modules
    from images.proof.smoke.health import Health as Health
    from images.proof.smoke.health import likely_cause as likely_cause
    from images.proof.smoke.health import tail as tail
    from images.proof.smoke.health import unhealthy_text as unhealthy_text
    from images.proof.smoke.prove import prove_image as prove_image
    from images.proof.smoke.record import CODE_TOLD as CODE_TOLD
    from images.proof.smoke.record import KERNELS_TOLD as KERNELS_TOLD
    from images.proof.smoke.record import LEVELS as LEVELS
    from images.proof.smoke.record import STAND_INS_CALLED as STAND_INS_CALLED
    from images.proof.smoke.record import LevelName as LevelName
    from images.proof.smoke.record import LevelResult as LevelResult
    from images.proof.smoke.record import ProofRecord as ProofRecord
    from images.proof.smoke.running import Server as Server
    from images.proof.smoke.running import running_server as running_server
    from images.proof.smoke.server import GOLDEN as GOLDEN
    from images.proof.smoke.server import TOLERANCE as TOLERANCE
    from images.proof.smoke.server import read_golden as read_golden
    from images.proof.smoke.server import start_arguments as start_arguments
    from images.proof.smoke.server import why_not_served as why_not_served
    from images.proof.smoke.stack import CHECKS as CHECKS
    from images.proof.smoke.stand_in_calls import COUNT_CALLS as COUNT_CALLS
    from images.proof.smoke.stand_in_calls import Call as Call
    from images.proof.smoke.stand_in_calls import StandInCalls as StandInCalls
    from images.proof.smoke.stand_in_calls import calls_in as calls_in
    from images.proof.smoke.stand_in_calls import said_beyond as said_beyond
    from images.proof.smoke.stand_in_calls import said_in as said_in
else:
    __getattr__ = face(__name__, __file__)
