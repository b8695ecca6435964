"""The package `cardstock` for real: built as a wheel, installed into empty environments, typed as people type it.

For this Python and each other one of 3.10 to 3.14 that is on PATH. What is installed comes from the package index.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from images.core import process
from images.docker.engine import Engine
from images.proof.tiny_model.checkpoint import write_checkpoint
from images.proof.tiny_model.picture import png
from tests.engine.cpu_server import LIGHT, docker, free_port, image_for_the_cpu
from tests.helpers.matrices import ROOT, matrix
from tests.helpers.nonempty import nonempty
from tests.helpers.small_publisher import CPU, SmallPublisher

UV = str(Path(sys.executable).parent / "uv")


def pythons() -> dict[int, str]:
    """Minor version -> program. One of PATH may be a stand-in that starts none."""
    found = {minor: shutil.which(f"python3.{minor}") for minor in range(10, 15)}
    works = {
        minor: path
        for minor, path in found.items()
        if path and process.run([path, "--version"], check=False).out.startswith(f"Python 3.{minor}.")
    }
    return works | {sys.version_info.minor: sys.executable}


PYTHONS = pythons()
pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Installed:
    """An environment that has the package and nothing else of ours; commands are typed in an empty folder."""

    program: Path
    home: Path

    def typed(self, *words: str, code: int | None = 0, there: Mapping[str, str] | None = None) -> process.Finished:
        """What a command prints. Its exit code must be ``code``; None for any."""
        folder = self.home / "empty"
        folder.mkdir(parents=True, exist_ok=True)
        env = {"CARDSTOCK_HOME": str(self.home), **(there or {})}
        done = process.run([str(self.program), *words], cwd=folder, env=env, check=False, timeout=900)
        assert code is None or done.code == code, done.out + done.err
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, by the build backend of dev/package.lock."""
    out = tmp_path_factory.mktemp("dist")
    lock = ["--build-constraints", "dev/package.lock", "--require-hashes"]
    process.run([UV, "build", "--quiet", "--wheel", *lock, "--out-dir", str(out)], cwd=ROOT, timeout=300)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module", params=nonempty(sorted(PYTHONS)), ids=lambda minor: f"3.{minor}")
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    python = folder / "venv/bin/python"
    process.run([UV, "venv", "--quiet", "--python", PYTHONS[request.param], str(folder / "venv")])
    process.run([UV, "pip", "install", "--quiet", "--python", str(python), str(wheel)], timeout=600)
    assert f"3.{request.param}." in process.run([str(python), "--version"]).out
    return Installed(python.parent / "cardstock", folder / "home")


def test_site_packages_get_one_name(installed: Installed) -> None:
    (site,) = installed.program.parents[1].glob("lib/python3.*/site-packages")
    assert (site / "cardstock").is_dir()
    assert not (site / "images").exists()
    assert not (site / "dev").exists()


def test_what_asks_nobody(installed: Installed) -> None:
    assert "doctor" in installed.typed("--list").out
    assert "cu124-vllm0.8.5.post1-xformers-sm75" in installed.typed("cards", "--card", "T4").out
    fitted = installed.typed("fit", "--model", "3b-awq", "--card", "T4")
    assert "key-value cache" in fitted.out
    assert "next: cardstock serve --model 3b-awq --card T4" in fitted.err
    assert "is a command of a checkout" in installed.typed("build", "--arch", "7.5", code=2).err


def test_doctor_asks_for_nothing_that_only_builds_need(installed: Installed, engine: Engine) -> None:
    told = json.loads(
        installed.typed("doctor", "--json", code=None, there={"DOCKER_HOST": engine.endpoint}).out
    )  # its disk may be full
    assert {one["name"] for one in told["checks"]}.isdisjoint({"buildx", "package index"})
    assert told["command"].startswith("cardstock pull --from REPO")


def test_pull_from_a_registry(
    installed: Installed, small_publisher: SmallPublisher, repository: str, empty_engine: Engine
) -> None:
    (published,) = small_publisher.publish(repository, CPU)
    there = {"DOCKER_HOST": empty_engine.endpoint, "CARDSTOCK_REPOSITORY": repository}
    done = installed.typed("pull", "--name", CPU, there=there)
    name = f"{matrix().image}:{CPU}"
    assert "docker run" in done.out
    assert f"next: cardstock serve --variant {CPU}" in done.err
    facts = empty_engine.inspect(name)
    assert facts is not None
    assert facts.id == published.config
    again = installed.typed("pull", "--name", CPU, "--json", there=there)
    assert json.loads(again.out)["images"][0]["reference"] == f"{repository}@{published.digest}"


@pytest.fixture
def server(installed: Installed, engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The address of the tiny model's server, started by `cardstock serve`, stopped by `cardstock serve --stop`."""
    if engine.inspect(f"{matrix().image}:{image_for_the_cpu()}") is None:
        pytest.skip(f"{image_for_the_cpu()} is not built: ./inv build --only 'cpu*'")
    write_checkpoint(tmp_path / "tiny")
    name, port = f"cardstock-test-{uuid.uuid4().hex[:8]}", free_port()
    words = ["--variant", image_for_the_cpu(), "--name", name, "--port", str(port), "--cache", name, "--wait", "840"]
    light = [word for setting in LIGHT for word in ("--env", setting)]
    here = {"DOCKER_HOST": engine.endpoint}
    try:
        done = installed.typed("serve", "--model", str(tmp_path / "tiny"), *words, *light, there=here)
        assert done.out.strip() == f"http://127.0.0.1:{port}/v1"
        assert f"stop: cardstock serve --stop {name}" in done.err
        yield f"http://127.0.0.1:{port}"
        assert "ended by itself" in installed.typed("serve", "--stop", name, there=here).err
    finally:
        if engine.containers.find(name):
            engine.containers.remove(name)
        docker(engine, ["volume", "rm", "--force", name])


def test_serve_answers_and_demo_shows_its_page(installed: Installed, server: str) -> None:
    picture = base64.b64encode(png("red", 140, 112)).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": "What colour is the square?"},
    ]
    asked = {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 8, "temperature": 0}
    answer = requests.post(f"{server}/v1/chat/completions", json=asked, timeout=120)
    assert answer.json()["choices"][0]["message"]["content"] == "red"

    port = free_port()
    log = installed.home / "demo.log"
    words = [str(installed.program), "demo", "--server", server, "--port", str(port)]
    pid = process.start_daemon(words, log)
    try:
        assert "gradio" in wait_for_page(f"http://127.0.0.1:{port}/", pid, log)
    finally:
        os.kill(pid, signal.SIGINT)
        os.waitpid(pid, 0)
    assert "what was uploaded is removed" in log.read_text()


def wait_for_page(url: str, pid: int, log: Path) -> str:
    """The page, once it is there; its environment is made first, which takes minutes on a busy machine."""
    end = time.monotonic() + 900
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < end:
            assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, log.read_text()
            try:
                return session.get(url, timeout=10).text
            except requests.ConnectionError:
                time.sleep(1)
    raise AssertionError(log.read_text())
