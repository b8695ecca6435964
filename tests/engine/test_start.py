"""A budget for what the server of the image for the CPU imports before it does anything.

Processor time, as a ratio to what torch alone takes in the same process: so it is the same on any machine.
"""

from __future__ import annotations

import pytest

from bench.start import import_cost
from images.docker import Engine
from tests.engine.cpu_server import image_for_the_cpu
from tests.helpers.matrices import matrix

# Seen with the image of 0.32.0: 3.9 on a quiet machine, up to 4.8 on a busy one, 5126 modules; with Python's collector
# on while modules are imported 4.9 and up to 5.7.
MOST, MODULES = 5.2, 5300


@pytest.mark.engine
def test_the_servers_imports_keep_to_their_budget(engine: Engine) -> None:
    image = f"{matrix().image}:{image_for_the_cpu()}"
    if engine.inspect(image) is None:
        pytest.skip(f"{image} is not built: ./inv build --only 'cpu*'")
    cost = import_cost(engine, image, "vllm")
    assert cost.modules > 3000 and cost.opened > 3000  # it did import a server
    assert cost.modules <= MODULES
    assert cost.ratio <= MOST
