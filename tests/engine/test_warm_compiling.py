"""vLLM compiles the tiny model on the CPU, by torch.compile; its code is kept, and serves another start.

It takes a quarter of an hour, and the image of tests/engine/compiling_image.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from images.compiled.inside.archive import members
from images.compiled.store import default_store
from images.docker.engine import Engine
from images.proof.tiny_model.checkpoint import write_checkpoint
from tests.engine import compiling_image
from tests.engine.warmed import Here, left

pytestmark = pytest.mark.timeout(3600)
# As an image for cards starts it: with torch's compiler, without --enforce-eager.
ENV = ("TORCHDYNAMO_DISABLE=0", 'CARDSTOCK_DEFAULT_ARGS=["--disable-fastapi-docs"]')
_INIT = re.compile(r"init engine \(.*\) took ([0-9.]+) s")


@pytest.fixture
def here(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    image = compiling_image.reference()
    if engine.inspect(image) is None:
        pytest.skip(f"{image} is not there: python -m tests.engine.compiling_image")
    engine.cli_env()
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "home"))
    write_checkpoint(tmp_path / "tiny")
    return Here(engine, image, str(tmp_path / "tiny"), ENV, ("--max-model-len 2048",), 1500)


def seconds(log: str) -> float:
    """What the engine's start took, in which it compiles."""
    found = _INIT.search(log)
    assert found, log[-2000:]
    return float(found[1])


def test_tokens_and_logprobs_are_the_same_and_less_is_compiled(here: Here) -> None:
    """Of the artifact that vLLM makes ahead of time nothing is seen here: on a CPU vLLM 0.32 cannot read its own again
    ("'function' object has no attribute 'finalize_loading'"), traces the model once more, and takes inductor's code. Of
    that it made one library anew in one of two tries, and none in the other.
    """
    _, log, cold = here.served()
    here.said("warm")
    assert left(here.engine) == ""
    kept = default_store().entries()[0]
    names = [entry.name for entry, _ in members(kept.archive)]
    assert any(name.startswith("vllm/torch_compile_cache/torch_aot_compile/") for name in names)
    libraries = {f"/cache/{name}" for name in names if name.endswith(".so")}
    assert libraries
    there: set[str] = set()
    said, warm_log, warm = here.served(compiled=there)
    assert "(made here)" in said and "put into" in said
    assert there >= libraries
    assert len(there - libraries) < len(libraries) / 2
    assert (warm.tokens, warm.logprobs, warm.top) == (cold.tokens, cold.logprobs, cold.top)
    print(f"init engine: {seconds(log)} s with empty caches, {seconds(warm_log)} s with compiled code")
    assert seconds(warm_log) < seconds(log)
