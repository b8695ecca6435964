"""fit against vLLM's own checks, in the versions that run here: how a model may be cut, and its flags parsed."""

from __future__ import annotations

import json

import pytest

from images.build.build import PYTHON_IN_IMAGE
from images.core.errors import NoImageFits
from images.docker.connection import connect
from images.docker.container_spec import Mount
from images.run.fit.choose import fit
from images.run.fit.families import SHAPES
from images.run.fit.parallel import obstacles
from images.run.fit.settings import server_flags
from tests.helpers.fits import SM75, ask, model, unpadded
from tests.helpers.matrices import ROOT, matrix

FORMS = ("", "-awq", "-gptq")


def _splits() -> list[dict[str, object]]:
    models = [model(f"{size}{form}") for size in SHAPES for form in FORMS]
    return [
        {
            "tp": tp,
            "heads": one.shape.heads,
            "kv_heads": one.shape.kv_heads,
            "hidden": one.shape.hidden,
            "intermediate": one.shape.intermediate,
            "vision_heads": one.shape.vision.heads,
            "vision_intermediate": one.shape.vision.intermediate,
            "form": one.form,
            "obstacles": [found.why for found in obstacles(one, tp, f"{one.form}_marlin")],
        }
        for one in (*models, unpadded())
        for tp in range(1, 17)
    ]


def _flags(by: str, on: str) -> list[list[str]]:
    """Of every published model on 1 to 16 cards, where it fits."""
    flags = []
    for name in (f"{size}{form}" for size in SHAPES for form in FORMS):
        for count, nodes in ((1, 1), (2, 1), (4, 1), (8, 1), (8, 2)):
            try:
                flags.append(server_flags(fit(ask(name, on, count, nodes, by=by))))
            except NoImageFits:
                continue
    return flags


@pytest.mark.parametrize(
    ("image", "by", "on"),
    [
        (SM75, SM75, "2080 Ti"),
        # The same vLLM where it computes prompts in pieces: it is told its sizes.
        (SM75, "cu124-vllm0.8.5.post1-flash-attn-sm80", "A100 SXM4 80 GB"),
        # vLLM 0.32.0 stands in for 0.33.0, whose image needs a card to be asked anything.
        ("cpu-vllm0.32.0-sdpa", "cu130-vllm0.33.0-flash-attn-sm90", "H200"),
    ],
)
def test_vllm_agrees(image: str, by: str, on: str) -> None:
    engine = connect()
    reference = f"{matrix().image}:{image}"
    if engine.inspect(reference) is None:
        pytest.skip(f"{reference} is not built: ./inv build --only '{image}'")
    splits, words = _splits(), _flags(by, on)
    assert len(words) > 20
    ran = engine.run(
        reference,
        ["-B", "/repository/tests/engine/fit_inside.py", "/tmp/asked.json"],
        entrypoint=[PYTHON_IN_IMAGE],
        mounts=[Mount(str(ROOT), "/repository")],
        files={"/tmp/asked.json": json.dumps({"splits": splits, "flags": words}).encode()},
        env={"HOME": "/tmp"},
        timeout=600,
    )
    said = json.loads(ran.out.strip().splitlines()[-1])
    assert said == {"splits": len(splits), "flags": len(words), "differ": []}
