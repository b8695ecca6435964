"""Looking at this machine: cards, driver, engine, disk, network: what is wrong and what to do.

The rule: it changes nothing, and one question that fails spoils no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.run.doctor import gather as gather
    from images.run.doctor.advice import advise as advise
    from images.run.doctor.advice import doctor_json as doctor_json
    from images.run.doctor.advice import healthy as healthy
    from images.run.doctor.checks import check_facts as check_facts
    from images.run.doctor.finding import CheckState as CheckState
    from images.run.doctor.gather import gather_facts as gather_facts
else:
    __getattr__ = face(__name__, __file__)
