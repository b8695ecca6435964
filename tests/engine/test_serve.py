"""`invoke serve` for real: the image for the CPU serves the tiny AWQ checkpoint as people would have it served."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from images.commands import serve as command
from images.core import process
from images.core.errors import CheckFailed, NoImageFits, UsageError
from images.docker.engine import Engine
from images.proof.smoke.health import Health
from images.proof.tiny_model.picture import png
from images.run.serve import pick
from tests.engine.cpu_server import LIGHT, MODEL, CpuServer, docker, free_port
from tests.engine.cpu_server import cpu_server as started
from tests.helpers.contexts import context
from tests.helpers.fits import SM75
from tests.helpers.matrices import ROOT, matrix

EXAMPLES = ROOT / "examples"
COLOUR = "What colour is the square?"
# Seconds that a second start may take on a busy machine.
PATIENCE = 600


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
    match = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(f"{server.url}/metrics"), re.MULTILINE)
    assert match, name
    return float(match[1])


def test_a_healthy_server_that_lists_its_model(cpu_server: CpuServer) -> None:
    assert Health.of(cpu_server.container.attributes).verdict is True
    get(f"{cpu_server.url}/health")
    assert [model["id"] for model in json.loads(get(f"{cpu_server.url}/v1/models"))["data"]] == [MODEL]


def test_the_container_is_as_locked_as_it_says(cpu_server: CpuServer) -> None:
    attributes = cpu_server.container.attributes
    host = attributes["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] == "always"
    assert host["Memory"] == host["MemorySwap"] == 20 * 2**30  # images/run/fit/beside_the_cards.py
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(cpu_server.options.port)}]}
    mounts = {one["Destination"]: (one.get("Name") or one["Source"], one["RW"]) for one in attributes["Mounts"]}
    assert mounts == {"/models": (cpu_server.options.model, False), "/cache": (cpu_server.options.cache, True)}


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
    words = replace(cpu_server.options, name="cardstock-test-other")
    with pytest.raises(UsageError, match=r"port \d+ of 127\.0\.0\.1 is in use"):
        command.start_server(context(engine=cpu_server.engine, locked={}), words)
    with pytest.raises(UsageError, match=r"already \(running\)") as caught:
        command.start_server(
            context(engine=cpu_server.engine, locked={}), replace(words, name=cpu_server.name, port=free_port())
        )
    assert caught.value.do.startswith(f"./inv serve --stop {cpu_server.name}")


def test_a_server_that_ends_while_it_starts_is_told_and_removed(cpu_server: CpuServer) -> None:
    name = f"{cpu_server.name}-dies"
    words = replace(cpu_server.options, name=name, port=free_port(), env=("CARDSTOCK_ENGINE=none",))
    with pytest.raises(CheckFailed, match="exit code 2") as caught:
        command.start_server(context(engine=cpu_server.engine, locked={}), words)
    assert "CARDSTOCK_ENGINE must be vllm or transformers" in caught.value.cause
    assert cpu_server.engine.containers.find(name) is None


def test_the_docker_line_makes_the_same_container(cpu_server: CpuServer, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{cpu_server.name}-line"
    command.start_server(
        context(engine=cpu_server.engine, locked={}), replace(cpu_server.options, name=name, print=True)
    )
    line = shlex.split(capsys.readouterr().out)
    assert line[:3] == ["docker", "run", "--detach"]
    docker(cpu_server.engine, ["create", *line[3:]])
    try:
        found = cpu_server.engine.containers.find(name)
        assert found
        ours = cpu_server.container.attributes
        for part in ("HostConfig", "Config"):
            mine, other = in_order(ours[part]), in_order(found.attributes[part])
            differ = {key for key in mine | other if not same(mine.get(key), other.get(key))}
            # Of docker-py it can be had only when it is stopped; the rest is what else a terminal's client says.
            known = {"StopTimeout", "Hostname", "AttachStdout", "AttachStderr", "ConsoleSize"}
            assert differ <= known, (part, {key: (mine.get(key), other.get(key)) for key in differ - known})
    finally:
        cpu_server.engine.containers.remove(name)


def in_order(settings: dict[str, Any]) -> dict[str, Any]:
    """The same with its variables sorted: an engine tells them in an order of its own, which nothing depends on."""
    return settings | ({"Env": sorted(settings["Env"])} if settings.get("Env") else {})


def same(one: Any, other: Any) -> bool:
    """Whether two settings of the engine's API mean the same: nothing is told as null, "", [] and {}."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return all(same(one.get(key), other.get(key)) for key in one | other)
    return bool(one == other or not (one or other))


def test_the_log_is_shown(cpu_server: CpuServer, capsys: pytest.CaptureFixture[str]) -> None:
    command.show_log(context(engine=cpu_server.engine), cpu_server.name, 400)
    assert "Application startup complete" in capsys.readouterr().out


def test_an_image_that_fits_no_card_here_says_so_itself(engine: Engine) -> None:
    image = f"{matrix().image}:{SM75}"
    if engine.inspect(image) is None:
        pytest.skip(f"{image} is not built: ./inv build --only '{SM75}'")
    name = f"cardstock-test-{uuid.uuid4().hex[:8]}"
    words = pick.ServeOptions(
        model="3b-awq", cards=("T4",), variant=SM75, gpus="none", name=name, port=free_port(), cache=name
    )
    try:
        with pytest.raises(NoImageFits, match="preflight") as caught:
            command.start_server(context(engine=engine, locked={}), words)
        assert f"{SM75} needs an NVIDIA card" in caught.value.what and engine.containers.find(name) is None
        assert "CARDSTOCK_SKIP_PREFLIGHT=1" in caught.value.do and caught.value.where
    finally:
        docker(engine, ["volume", "rm", "--force", name])


# -- the server on transformers, in a container of its own: it is killed


@pytest.fixture(scope="module")
def light_server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CpuServer]:
    """The image for the CPU with its other engine."""
    with started(engine, tmp_path_factory.mktemp("light") / "tiny", LIGHT) as server:
        yield server


def test_the_server_on_transformers_answers_and_counts(light_server: CpuServer, pictures: Path) -> None:
    names = ("cardstock_prompt_tokens_total", "cardstock_generation_tokens_total")
    assert [counter(light_server, name) for name in names] == [0, 0]
    assert example(light_server, "data_url.py", str(pictures / "red.png"), COLOUR) == "red"
    assert [counter(light_server, name) for name in names] == [36, 2]
    times = ("time_to_first_token", "inter_token_latency", "e2e_request_latency")
    assert [counter(light_server, f"vllm:{name}_seconds_count") for name in times] == [1, 1, 1]
    assert example(light_server, "stream.py", "Say hello", "You are a tiny model.") == "Hello from a tiny model"


KILL = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    if (folder / "stat").read_text().rpartition(")")[2].split()[1] == "1":
        os.kill(int(folder.name), signal.SIGKILL)
        break
"""


def test_a_killed_server_is_started_again_by_its_policy(light_server: CpuServer, pictures: Path) -> None:
    assert light_server.container.restarts == 0
    # The program that kills goes down with its container.
    with suppress(process.ProcessFailed):
        light_server.run(["python", "-c", KILL])
    deadline = time.monotonic() + PATIENCE
    while not (light_server.container.restarts and Health.of(light_server.container.attributes).verdict):
        assert time.monotonic() < deadline, light_server.engine.containers.log(light_server.name, 40)
        time.sleep(1)
    assert light_server.container.restarts == 1
    assert example(light_server, "data_url.py", str(pictures / "red.png"), COLOUR) == "red"
    assert counter(light_server, "cardstock_generation_tokens_total") == 2, "it counts from its start on"
