"""The image with untouched packages: what is built of what."""

from __future__ import annotations

import re

from bench.stages import UNTOUCHED
from bench.untouched import DOCKERFILE, build_arguments
from tests.helpers.nonempty import nonempty


def test_every_argument_of_its_dockerfile_is_given() -> None:
    stages = {stage: f"cardstock/bench:{stage}-ab" for stage in UNTOUCHED}
    words = build_arguments("cardstock/x:light", stages, ("tilelang", "z3"), whole=True)
    given = dict(word.split("=", 1) for word in words[1::2])
    assert set(words[::2]) == {"--build-arg"}
    assert given.keys() == set(nonempty(re.findall(r"^ARG (\w+)", DOCKERFILE.read_text(), re.M)))
    assert (given["LIGHT"], given["VENV"]) == ("cardstock/x:light", "cardstock/bench:venv-ab")
    assert (given["LEFT_OUT"], given["WHOLE"]) == ("tilelang z3", "yes")
