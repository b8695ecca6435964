"""`invoke serve` for real: the image for the CPU serves the tiny AWQ checkpoint as people would have it served."""

from __future__ import annotations

import http.server
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import requests

from images import process
from images.errors import CheckFailed, UsageError
from images.report import Report
from images.serve import command
from images.smoke.health import Health
from images.smoke.picture import png
from tests.engine.cpu_server import MODEL, CpuServer, free_port, image_for_the_cpu, shop
from tests.unit.matrices import ROOT

EXAMPLES = ROOT / "images" / "serve" / "examples"
COLOUR = "What colour is the square?"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the golden pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for colour, width in (("red", 140), ("blue", 140), ("green", 140), ("yellow", 112)):
        (folder / f"{colour}.png").write_bytes(png(colour, width, 112))
    return folder


def example(server: CpuServer, name: str, *words: str) -> str:
    """What an example prints, run as its first lines say."""
    env = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none", "MODEL": server.model}
    program = "sh" if name.endswith(".sh") else sys.executable
    return process.run([program, str(EXAMPLES / name), *words], env=env, timeout=120).out.strip()


def get(url: str) -> str:
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 200
    return answer.text


def counter(server: CpuServer, name: str) -> float:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(f"{server.url}/metrics"), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_a_healthy_server_that_lists_its_model(cpu_server: CpuServer) -> None:
    assert Health.of(cpu_server.container.attributes).verdict is True
    get(f"{cpu_server.url}/health")
    assert [model["id"] for model in json.loads(get(f"{cpu_server.url}/v1/models"))["data"]] == [MODEL]


def test_the_container_is_as_locked_as_it_says(cpu_server: CpuServer) -> None:
    attributes = cpu_server.container.attributes
    host = attributes["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(cpu_server.port)}]}
    mounts = {one["Destination"]: (one.get("Name") or one["Source"], one["RW"]) for one in attributes["Mounts"]}
    assert mounts == {"/models": (str(cpu_server.folder), False), "/cache": (cpu_server.cache, True)}
    assert "VLLM_WORKER_MULTIPROC_METHOD=spawn" in attributes["Config"]["Env"]


LOOK = """
import json, os
def tried(path):
    try:
        open(path + "/written", "w").close()
    except OSError as error:
        return error.strerror
    os.remove(path + "/written")
    return "yes"
places = ("/cache", "/tmp", "/models", "/opt/cardstock", "/home/cardstock", "/etc", "/opt/venv")
told = {"uid": os.getuid(), "server": os.stat("/proc/1").st_uid}
print(json.dumps(told | {path: tried(path) for path in places}))
"""


def test_it_runs_as_nobody_special_and_writes_where_it_should(cpu_server: CpuServer) -> None:
    closed = "Read-only file system"
    assert json.loads(cpu_server.run(["python", "-c", LOOK])) == {
        "uid": 10001, "server": 10001, "/cache": "yes", "/tmp": "yes", "/models": closed, "/opt/cardstock": closed,
        "/home/cardstock": closed, "/etc": closed, "/opt/venv": closed,
    }  # fmt: skip


def test_the_examples_that_send_a_picture(cpu_server: CpuServer, pictures: Path) -> None:
    assert example(cpu_server, "data_url.py", str(pictures / "red.png"), COLOUR) == "red"
    many = [str(pictures / f"{name}.png") for name in ("green", "yellow")]
    assert example(cpu_server, "pictures.py", "What are these?", *many) == "green and yellow"
    answer = json.loads(example(cpu_server, "curl.sh", str(pictures / "blue.png"), COLOUR))
    assert answer["choices"][0]["message"]["content"] == "blue"


def test_the_example_whose_picture_the_server_fetches(cpu_server: CpuServer, pictures: Path) -> None:
    gateway = cpu_server.container.attributes["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(pictures))
    with http.server.ThreadingHTTPServer((gateway, 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        address = f"http://{gateway}:{web.server_port}/blue.png"
        assert example(cpu_server, "one_picture.py", address, COLOUR) == "blue"
        web.shutdown()


def test_the_example_that_streams(cpu_server: CpuServer) -> None:
    assert example(cpu_server, "stream.py", "Say hello", "You are a tiny model.") == "Hello from a tiny model"


def test_the_example_of_a_batch(cpu_server: CpuServer, pictures: Path) -> None:
    paths = [str(pictures / f"{name}.png") for name in ("red", "blue")] * 3
    lines = example(cpu_server, "batch.py", COLOUR, *paths).splitlines()
    assert lines == [f"{path}\t{Path(path).stem}" for path in paths]
    with pytest.raises(process.ProcessFailed, match=r"No such file") as failed:
        example(cpu_server, "batch.py", COLOUR, str(pictures / "none.png"))
    assert failed.value.code == 1


def test_metrics_rise_with_what_is_asked(cpu_server: CpuServer, pictures: Path) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [counter(cpu_server, name) for name in names]
    example(cpu_server, "data_url.py", str(pictures / "red.png"), COLOUR)
    # The golden prompt with one picture has 36 tokens; the answer is a word and the end.
    assert [counter(cpu_server, name) - was for name, was in zip(names, before, strict=True)] == [36, 2]


def test_what_is_in_use_is_refused(cpu_server: CpuServer) -> None:
    words = command.ServeWords(model=str(cpu_server.folder), variant=image_for_the_cpu(), port=cpu_server.port)
    with pytest.raises(UsageError, match=r"port \d+ of 127\.0\.0\.1 is in use"):
        command.serve(shop(), words, Report())
    with pytest.raises(UsageError, match=r"already \(running\)") as told:
        command.serve(shop(), replace(words, name=cpu_server.name), Report())
    assert told.value.do.startswith(f"./inv serve --stop {cpu_server.name}")


def test_a_server_that_ends_while_it_starts_is_told_and_removed(cpu_server: CpuServer) -> None:
    name = f"{cpu_server.name}-dies"
    words = command.ServeWords(
        model=str(cpu_server.folder),
        variant=image_for_the_cpu(),
        name=name,
        port=free_port(),
        cache=cpu_server.cache,
        env=("CARDSTOCK_ENGINE=none",),
    )
    with pytest.raises(CheckFailed, match="exit code 2") as told:
        command.serve(shop(), words, Report())
    assert "CARDSTOCK_ENGINE must be vllm or transformers" in told.value.cause
    assert cpu_server.engine.containers.find(name) is None


def test_the_log_is_shown(cpu_server: CpuServer, capsys: pytest.CaptureFixture[str]) -> None:
    command.logs(cpu_server.name, 400, Report())
    assert "Application startup complete" in capsys.readouterr().out


KILL = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    if (folder / "stat").read_text().rpartition(")")[2].split()[1] == "1":
        os.kill(int(folder.name), signal.SIGKILL)
        break
"""


@pytest.fixture
def patience() -> Iterator[float]:
    """Seconds that a second start may take on a busy machine."""
    yield float(os.environ.get("CARDSTOCK_TEST_PATIENCE", "600"))


def test_a_killed_server_is_started_again_by_its_policy(cpu_server: CpuServer, pictures: Path, patience: float) -> None:
    """The last one: what came before needs a server, and this takes a second start."""
    assert cpu_server.container.restarts == 0
    cpu_server.run(["python", "-c", KILL])
    deadline = time.monotonic() + patience
    while not (cpu_server.container.restarts and Health.of(cpu_server.container.attributes).verdict):
        assert time.monotonic() < deadline, cpu_server.engine.containers.log(cpu_server.name, 40)
        time.sleep(1)
    assert cpu_server.container.restarts == 1
    assert example(cpu_server, "data_url.py", str(pictures / "red.png"), COLOUR) == "red"
