"""Attacks on vLLM's own server behind its guard: one shared container, each attack bounded. See `bench guard`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from bench import payloads
from bench.firing import CHAT, Memory, fire
from bench.guard_attacks import ATTACKS, Attack, Target
from tests.engine.cpu_server import CpuServer

# What an attack may cost the server: without the guard, those that are about memory take all that there is.
MOST_GROWTH = 1.5e9
FIND_SERVER = """
import glob
found = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    words = open(path, "rb").read().split(bytes(1))
    if any(word.endswith(b"/start_vllm.py") for word in words) and b"tini" not in words[0]:
        found.append(int(path.split("/")[2]))
print(min(found))
"""


@pytest.fixture(scope="module")
def target(cpu_server: CpuServer) -> Target:
    return Target(cpu_server.options.port, cpu_server.model, patience=120)


@pytest.fixture(scope="module")
def memory(cpu_server: CpuServer) -> Memory:
    return Memory(cpu_server.run, int(cpu_server.run(["python", "-c", FIND_SERVER])))


@pytest.fixture(autouse=True)
def same_server(cpu_server: CpuServer, target: Target) -> Iterator[None]:
    """It answers afterwards, and nobody has started it anew."""
    before = cpu_server.container.attributes["State"]["StartedAt"]
    yield
    state = cpu_server.container
    assert state.attributes["State"]["StartedAt"] == before and state.restarts == 0
    assert target.get("/health").status == 200
    assert target.post(payloads.chat(target.model)).status == 200


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused_and_health_answers_meanwhile(attack: Attack, target: Target, memory: Memory) -> None:
    fired = fire(target.port, memory, lambda: attack.fire(target))
    # A server that refuses before all has come hangs up, and a sender may see no more than that (0).
    told = set(fired.statuses) - {0}
    assert told and told <= attack.refused, [reply.body[:200] for reply in fired.replies]
    assert fired.health.well == fired.health.asked
    assert fired.growth < MOST_GROWTH
    assert not any("0x7f" in reply.body for reply in fired.replies)


def test_closed_ports_and_open_ones_are_told_alike(target: Target) -> None:
    urls = ("http://127.0.0.1:8000/version", "http://127.0.0.1:9/x")
    bodies = {target.post(payloads.with_pictures(target.model, [url])).body for url in urls}
    assert len(bodies) == 1 and "CARDSTOCK_MEDIA_DOMAINS" in bodies.pop()


def test_what_is_at_the_limit_is_answered(target: Target) -> None:
    """The dearest requests that are let in."""
    choices = [f"answer number {at}" for at in range(500)]
    asked = [
        payloads.chat(target.model, structured_outputs={"choice": choices}),
        payloads.with_pictures(target.model, [payloads.data_url(payloads.png(1000, 1000))] * 8),
        payloads.chat(target.model, metadata={str(at): "a" for at in range(16)}),
    ]
    # The tiny model's conversations are short: eight pictures are more than it holds, which vLLM says, and goes on.
    assert [target.post(body).status in (200, 400) for body in asked] == [True] * 3


def test_a_stream_comes_in_pieces_and_ends_with_its_client(cpu_server: CpuServer, target: Target) -> None:
    body = payloads.chat(target.model, stream=True, max_tokens=1500, ignore_eos=True)
    with socket.create_connection(("127.0.0.1", target.port), 60) as line:
        line.sendall(payloads.request(CHAT, body))
        begin = line.recv(65536)
        while b"data: " not in begin:
            begin += line.recv(65536)
        assert b"[DONE]" not in begin and _running(target) == 1.0
    deadline = time.monotonic() + 60
    while _running(target) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _running(target) == 0.0


def _running(target: Target) -> float:
    lines = target.get("/metrics").body.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))


def test_a_picture_whose_size_lies_is_refused(target: Target) -> None:
    picture = bytearray(payloads.png(8, 8))
    picture[16:24] = (60_000).to_bytes(4, "big") * 2
    reply = target.post(payloads.with_pictures(target.model, [payloads.data_url(bytes(picture))]))
    assert reply.status in (400, 413) and "error" in json.loads(reply.body)
