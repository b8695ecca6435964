"""The smoke test's client against a server on loopback, and how a server under test is waited for."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from images.core import process
from images.core.errors import CheckFailed, EngineUnreachable
from images.docker import ContainerSpec, TemporaryContainer, TemporaryContainers
from images.docker.container_spec import PublishedPort
from images.docker.temporary_containers import Output
from images.proof.smoke.client import Client, InsideClient
from images.proof.smoke.compare_logits import ModelAnswer
from images.proof.smoke.running import Healthy, running_server

COMPLETION = {"choices": [{"message": {"content": "red"}, "finish_reason": "stop"}]}
STREAM = (
    'data: {"choices": [{"delta": {"content": "re"}}]}\n\n'
    'data: {"choices": [{"delta": {"content": "d"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
)


class Api:
    """Answers every request with ``status`` and ``body``, and keeps what it was asked; status 0: no answer."""

    def __init__(self) -> None:
        self.status, self.body = 200, json.dumps(COMPLETION)
        self.asked: list[tuple[str, str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                api.asked.append((self.command, self.path, json.loads(content) if content else None))
                if api.status:
                    self.send_response(api.status)
                    self.end_headers()
                    self.wfile.write(api.body.encode())

            do_POST = do_GET

        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    @property
    def client(self) -> Client:
        return Client(self.server.server_port)


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_completion_is_asked_for_and_read(api: Api) -> None:
    assert api.client.chat({"model": "tiny"}) == ModelAnswer("red", finish="stop")
    assert api.asked == [("POST", "/v1/chat/completions", {"model": "tiny"})]


def test_a_stream_is_asked_for_and_put_together(api: Api) -> None:
    api.body = STREAM
    assert api.client.stream({"model": "tiny"}) == ModelAnswer("red", finish="stop")
    assert api.asked == [("POST", "/v1/chat/completions", {"model": "tiny", "stream": True})]


def test_any_other_status_is_told_with_the_servers_words(api: Api) -> None:
    api.status, api.body = 503, "the model is not loaded"
    with pytest.raises(CheckFailed, match="the server answered 503") as caught:
        api.client.chat({})
    assert caught.value.cause == "the model is not loaded"
    with pytest.raises(CheckFailed, match="the stream began with 503"):
        api.client.stream({})
    assert api.client.get("/health").status == 503


@pytest.mark.parametrize("body", ["", "<html>"])
def test_an_answer_that_is_no_json_is_told(api: Api, body: str) -> None:
    api.body = body
    with pytest.raises(CheckFailed, match="the server answered 200") as caught:
        api.client.get("/v1/models").json()
    assert caught.value.cause == (body or "an empty body")


def test_a_server_that_breaks_off_or_is_not_there_is_told(api: Api) -> None:
    api.status = 0
    with pytest.raises(CheckFailed, match="GET /health got no answer") as caught:
        api.client.get("/health")
    assert "RemoteDisconnected" in caught.value.cause
    with pytest.raises(CheckFailed, match="got no answer") as caught:
        Client(1).get("/health")
    assert "ConnectionRefusedError" in caught.value.cause


# -- waiting for health


class Container:
    """A container whose health goes through ``states``."""

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states, self.removed, self.unpublished = list(states), False, False

    def inspect(self) -> dict[str, Any]:
        return {"State": self.states.pop(0) if len(self.states) > 1 else self.states[0], "Config": {}}

    def log(self) -> str:
        return "loading\nCUDA error: out of memory"

    def host_port(self, port: int) -> int:
        if self.unpublished:
            raise EngineUnreachable("the engine has published no port")
        return 30000 + port


def state(health: str, status: str = "running") -> dict[str, Any]:
    return {"Status": status, "Running": status == "running", "ExitCode": 0, "Health": {"Status": health, "Log": []}}


@contextmanager
def started(container: Container, ready: Callable[[Any, float], bool]) -> Iterator[Container]:
    """As `TemporaryContainers.running` does: ask until it is ready, remove it whatever comes."""
    try:
        for waited in range(10):
            if ready(container, waited):
                break
        yield container
    finally:
        container.removed = True


def served(container: Container, limit: float = 5, *, beside: bool = True) -> Any:
    temporary = SimpleNamespace(running=lambda spec, ready: started(container, ready), beside=beside)
    spec = ContainerSpec("x:1", (), ports=(PublishedPort(8000),))
    return running_server(cast("TemporaryContainers", temporary), spec, "tiny", limit)


def test_a_server_is_handed_out_once_it_is_healthy_and_removed_at_the_end() -> None:
    container = Container(state("starting"), state("starting"), state("healthy"))
    with served(container) as server:
        assert (server.name, server.client._port, container.removed) == ("tiny", 38000, False)
        assert len(container.states) == 1
    assert container.removed


def test_a_server_of_an_engine_elsewhere_is_not_asked_on_this_machines_ports() -> None:
    with served(Container(state("healthy")), beside=False) as server:
        assert isinstance(server.client, InsideClient) and server.client._port == 8000


def test_a_server_whose_port_the_engine_has_not_published_is_asked_from_inside() -> None:
    container = Container(state("healthy"))
    container.unpublished = True
    with served(container) as server:
        assert isinstance(server.client, InsideClient) and server.client._port == 8000


def test_a_server_that_does_not_get_healthy_in_time_is_told_with_its_log() -> None:
    container = Container(state("starting"))
    with pytest.raises(CheckFailed) as caught, served(container, limit=3):
        pytest.fail("it is not healthy")
    assert "CUDA error: out of memory" in str(caught.value)
    assert container.removed


def test_a_server_that_ended_is_not_waited_for() -> None:
    ended = state("starting", "exited") | {"ExitCode": 1}
    with pytest.raises(CheckFailed):
        Healthy(900)(cast("Any", Container(ended)), 0.0)


class Inside:
    """A container whose Python is this one's."""

    def __init__(self) -> None:
        self.arguments: list[int] = []

    def run(self, argv: Sequence[str]) -> Output:
        self.arguments = [len(word) for word in argv]
        done = process.run([sys.executable, *argv[1:]], check=False)
        return Output(done.code, done.out, done.err)


def test_a_server_on_another_machine_is_asked_from_inside_of_its_container(api: Api) -> None:
    inside = Inside()
    client = InsideClient(cast(TemporaryContainer, inside), api.server.server_port)
    assert client.chat({"model": "m"}) == ModelAnswer("red", finish="stop")
    assert api.asked == [("POST", "/v1/chat/completions", {"model": "m"})]
    long = "é" * 100_000  # as JSON six times as long: more than one argument may have
    client.call("POST", "/x", {"model": long})
    assert api.asked[-1][2] == {"model": long} and max(inside.arguments) <= 100_000
    api.status, api.body = 404, "zwölf\nlines"
    answer = client.get("/health")
    assert (answer.status, answer.body) == (404, "zwölf\nlines")
    assert api.asked[-1][:2] == ("GET", "/health")
    api.status = 0
    with pytest.raises(CheckFailed, match="GET /health got no answer") as caught:
        client.get("/health")
    assert caught.value.cause
    with pytest.raises(CheckFailed, match="too long to be asked on another machine"):
        client.call("POST", "/x", {"model": "x" * 2_000_000})
