"""Preflight in the real image for 7.5: a stand-in for the driver's library, compiled by the image's own gcc, answers.

In these containers torch says that it was imported, and vLLM that it was started, and both end there.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import pytest

from images.docker.engine import Engine
from images.docker.facts import Ran
from tests.helpers.matrices import matrix
from tests.helpers.nvml_answers import RECORDED

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SOURCE = Path(__file__).with_name("stand_in_nvml.c")
COMPILE = "gcc -Wall -Wextra -Werror -shared -fPIC -o /tmp/nvml.so /tmp/nvml.c && base64 /tmp/nvml.so"
LIBRARY, ANSWERS = "/driver/libnvidia-ml.so.1", "/driver/answers.txt"
CUDA = "/driver/libcuda.so.1"  # preflight only loads it
IMPORTED, STARTED = "torch was imported", "the server was started"
# What Python finds first: beside preflight.py, and in the folder that the server's PYTHONPATH begins with.
FIRST = {"/opt/cardstock/torch.py": IMPORTED, "/opt/cardstock/middleware/vllm/__init__.py": STARTED}


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The image for 7.5; it is not built for these tests."""
    name = f"{matrix().image}:{SM75}"
    if engine.inspect(name) is None:
        pytest.skip(f"{name} is not built: ./inv build --arch 7.5")
    return name


@pytest.fixture(scope="module")
def library(engine: Engine, image: str) -> bytes:
    """The stand-in, compiled in the image."""
    ran = engine.run(image, ["sh", "-c", COMPILE], files={"/tmp/nvml.c": SOURCE.read_bytes()})
    return base64.b64decode(ran.out)


def start(
    engine: Engine,
    image: str,
    library: bytes | None,
    answers: str,
    env: Mapping[str, str] | None = None,
    command: tuple[str, ...] = ("--model", "/models"),
) -> Ran:
    """The image as its users start it, without --gpus, on the machine of a recording."""
    files = {path: f"raise SystemExit({text!r})".encode() for path, text in FIRST.items()}
    if library is not None:
        files |= {LIBRARY: library, CUDA: library, ANSWERS: (RECORDED / f"{answers}.txt").read_bytes()}
    environment = {"LD_LIBRARY_PATH": "/driver", "NVML_ANSWERS": ANSWERS, **(env or {})}
    return engine.run(image, command, files=files, env=environment, check=False, timeout=60)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("t4-driver-470", ("driver 470.82.01 (CUDA 11.4) is too old", "cu118-vllm0.8.5.post1-xformers-sm75")),
        ("v100", ("no code for Tesla V100-SXM2-16GB (7.0)", "cu124-vllm0.8.5.post1-xformers-sm70")),
        ("rtx-4090", ("no code for NVIDIA GeForce RTX 4090 (8.9)", "cu129-vllm0.19.1-flash-attn-sm89")),
        ("rtx-3090-and-t4", ("it fits Tesla T4 (7.5)", "CUDA_VISIBLE_DEVICES=1", "xformers-sm70_75_80_86_89_90")),
        ("library-of-another-version", ("of two versions", "restart the host")),
    ],
)
def test_a_machine_that_does_not_fit_is_refused_before_torch(
    answers: str, words: tuple[str, ...], engine: Engine, image: str, library: bytes
) -> None:
    ran = start(engine, image, library, answers)
    assert ran.code == 4, ran
    text = ran.out + ran.err
    # The entry point tells first where it found the driver's library.
    said = [line for line in text.splitlines() if not line.startswith("entrypoint: the driver's library")]
    assert said[0].startswith("preflight: ")
    assert all(word in text for word in words), text
    assert IMPORTED not in text and STARTED not in text and "Traceback" not in text


def test_without_a_card_or_a_driver_it_says_what_is_missing(engine: Engine, image: str) -> None:
    ran = start(engine, image, None, "no-card")
    assert ran.code == 4
    assert "--gpus all" in ran.out + ran.err and IMPORTED not in ran.out + ran.err


@pytest.mark.parametrize(
    ("answers", "env", "message"),
    [
        ("one-of-two-lost", {}, f"{SM75} fits Tesla T4 (7.5)"),
        ("unknown-error", {}, "NVML does not start: error 999 (unknown error, as after systemctl daemon-reload"),
        ("rtx-4090", {"CARDSTOCK_SKIP_PREFLIGHT": "1"}, "CARDSTOCK_SKIP_PREFLIGHT"),
    ],
)
def test_the_server_starts_where_it_fits_and_where_nobody_can_tell(
    answers: str, env: dict[str, str], message: str, engine: Engine, image: str, library: bytes
) -> None:
    ran = start(engine, image, library, answers, env)
    text = ran.out + ran.err
    assert message in text and STARTED in text, text


def test_another_program_is_not_held_up(engine: Engine, image: str, library: bytes) -> None:
    ran = start(engine, image, library, "rtx-4090", command=("sh", "-c", "echo there"))
    assert (ran.code, ran.out.strip()) == (0, "there")
