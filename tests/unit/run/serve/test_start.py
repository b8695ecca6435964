"""Starting, watching and stopping a server, with an engine that is not one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from images.core.errors import CardstockError, CheckFailed, NoImageFits, NothingSelected, UsageError
from images.docker.container_arguments import create_arguments
from images.docker.container_spec import ContainerSpec, PublishedPort
from images.docker.containers import Containers, ContainerState
from images.docker.docker_py import translated
from images.run.serve import start as starting
from images.run.serve.make import SERVED
from images.run.serve.start import Clock
from tests.unit.run.serve.test_serve import SPEC


def state(
    status: str = "running", health: str = "starting", code: int = 0, restarts: int = 0, **labels: str
) -> dict[str, Any]:
    """As the engine answers an inspect."""
    told = {"Status": status, "ExitCode": code, "Health": {"Status": health}}
    config = {"Labels": labels or {SERVED: "x", "dev.cardstock.model": "tiny"}}
    return {"State": told, "Config": config, "RestartCount": restarts}


@dataclass
class FakeContainers:
    """Goes through ``states``, one a look; the last one stays."""

    states: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    refusal: str = ""
    done: list[tuple[str, ...]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def first_end(self, name: str, since: float) -> int | None:
        return self.ends[0] if self.ends else None

    def find(self, name: str) -> ContainerState | None:
        if not self.states:
            return None
        return ContainerState(name, self.states.pop(0) if len(self.states) > 1 else self.states[0])

    def labelled(self, label: str) -> tuple[ContainerState, ...]:
        assert label == SERVED
        return (ContainerState("other", state()),)

    def start(self, spec: ContainerSpec, environment: Mapping[str, str]) -> None:
        if self.refusal:
            raise CardstockError("it could not be started", cause=f"the engine says: {self.refusal}")
        self.done.append(("start", spec.name, spec.restart))

    def keep(self, name: str, restart: str) -> None:
        self.done.append(("keep", name, restart))

    def log(self, name: str, lines: int = 200) -> str:
        return self.text

    def stop(self, name: str, seconds: int) -> ContainerState | None:
        self.done.append(("stop", name, str(seconds)))
        return self.find(name)

    def remove(self, name: str) -> None:
        self.done.append(("remove", name))


def of(fake: FakeContainers) -> Containers:
    return cast(Containers, fake)


def clock(step: float = 1.0) -> Clock:
    """Every look at it is ``step`` seconds later than the one before."""
    seconds = iter(range(10_000))
    return Clock(lambda: next(seconds) * step, lambda _: None)


def waited(fake: FakeContainers, limit: float = 100, spec: ContainerSpec = SPEC) -> tuple[float, list[str]]:
    said: list[str] = []
    return starting.wait(of(fake), spec, limit, said.append, clock()), said


def test_it_has_its_restart_policy_from_the_first_moment_on() -> None:
    """Whoever waits for its health may be killed meanwhile."""
    fake = FakeContainers([state(), state(), state(health="healthy")])
    starting.start(of(fake), SPEC, {})
    seconds, _ = waited(fake)
    assert fake.done == [("start", "cardstock", "unless-stopped")] and seconds == 3


@pytest.mark.parametrize("again", [state("running", restarts=1), state("restarting", restarts=1, code=4)])
def test_one_that_its_policy_has_started_again_is_not_for_ever(again: dict[str, Any]) -> None:
    text = "preflight: x has no code\n  do: docker pull other\npreflight: x has no code\n  do: docker pull other\n"
    fake = FakeContainers([state(), again], text=text, ends=[4, 4])
    with pytest.raises(NoImageFits, match="x has no code"):
        waited(fake)
    assert fake.done == [("remove", "cardstock")]
    unnoted = FakeContainers([again], text="ValueError: no such thing")
    with pytest.raises(CheckFailed, match="state exited"):
        waited(unnoted)


def test_steps_are_told_once_and_without_prefixes() -> None:
    line = "(EngineCore pid=60) INFO 11-21 15:43:52 [cpu_model_runner.py:68] Starting to load model /models..."
    route = "(APIServer pid=7) INFO 11-21 15:44:00 [launcher.py:195] Route: /v1/completions, Methods: POST"
    fake = FakeContainers([state(), state(), state(health="healthy")], text=f"{line}\n{route}\n")
    assert waited(fake)[1] == ["Starting to load model /models..."]
    assert starting.steps("INFO cardstock: /models on cpu, float32, sdpa attention, 4096 tokens, loaded in 2.1 s")


def test_a_server_that_ends_is_removed_with_its_last_words() -> None:
    fake = FakeContainers([state(), state("exited", "unhealthy", 1)], text="a\nValueError: no such thing\n")
    with pytest.raises(CheckFailed, match="state exited, health unhealthy, exit code 1") as told:
        waited(fake)
    assert "ValueError: no such thing" in told.value.cause
    assert fake.done == [("remove", "cardstock")], "it is not started again for ever"


def test_the_preflight_speaks_for_itself() -> None:
    text = "preflight: x has no code\n  cause: it is cut for 7.5\n  do: docker pull other\n  or: y=1\n  where: here\n"
    with pytest.raises(NoImageFits) as told:
        waited(FakeContainers([state("exited", code=4)], text=f"a line\n{text}"))
    assert told.value.exit_code == 4 and str(told.value) == text.strip()
    with pytest.raises(CheckFailed, match="exit code 4"):
        waited(FakeContainers([state("exited", code=4)], text="the server's own 4"))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", "cannot be reached"),
        ("huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error.", "no such repository"),
        ("torch.OutOfMemoryError: CUDA out of memory", "memory is too small"),
    ],
)
def test_likely_causes(text: str, cause: str) -> None:
    with pytest.raises(CheckFailed) as told:
        waited(FakeContainers([state("exited", code=1)], text=text))
    assert cause in told.value.cause and told.value.do


def test_one_that_takes_too_long_goes_on() -> None:
    for last in (state(), state(health="unhealthy")):
        fake = FakeContainers([last])
        with pytest.raises(CheckFailed, match="did not get healthy") as told:
            waited(fake, limit=5)
        assert "./inv serve --stop cardstock" in told.value.do
        assert fake.done == []
    with pytest.raises(CheckFailed, match="is gone"):
        waited(FakeContainers([]))


def test_a_name_in_use() -> None:
    with pytest.raises(UsageError, match=r"called cardstock already \(running\)") as told:
        starting.check_free(of(FakeContainers([state()])), SPEC, local=False)
    assert "serves tiny by x" in told.value.cause and "--stop cardstock" in told.value.do
    with pytest.raises(UsageError) as told:
        starting.check_free(of(FakeContainers([state(other="y")])), SPEC, local=False)
    assert "--stop" not in told.value.do


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = replace(SPEC, ports=(PublishedPort(8000, taken.getsockname()[1]),))
        with pytest.raises(UsageError, match="is in use"):
            starting.check_free(of(FakeContainers()), busy, local=True)
        starting.check_free(of(FakeContainers()), busy, local=False)
    starting.check_free(of(FakeContainers()), busy, local=True)


@pytest.mark.parametrize(
    ("refusal", "kind", "told"),
    [
        ("Bind for 127.0.0.1:8000 failed: port is already allocated", UsageError, "port 8000 of 127.0.0.1 is in use"),
        ("listen tcp4 127.0.0.1:8000: bind: address already in use", UsageError, "port 8000 of 127.0.0.1 is in use"),
        ('could not select device driver "" with capabilities: [[gpu]]', CardstockError, "could not be started"),
        (
            'Conflict. The container name "/cardstock" is already in use by container "0a"',
            UsageError,
            "called cardstock",
        ),
        ("something else", CardstockError, "could not be started"),
    ],
)
def test_what_the_engine_refuses(refusal: str, kind: type[CardstockError], told: str) -> None:
    with pytest.raises(kind, match=told) as found:
        starting.start(of(FakeContainers(refusal=refusal)), SPEC, {})
    assert ("container toolkit" in found.value.do) == ("device driver" in refusal)


@pytest.mark.parametrize(("code", "clean"), [(0, True), (143, True), (137, False), (1, False)])
def test_how_it_ended(code: int, clean: bool) -> None:
    fake = FakeContainers([state(), state("exited", code=code)])
    assert starting.stop(of(fake), "cardstock", 5).clean is clean
    assert fake.done == [("stop", "cardstock", "5"), ("remove", "cardstock")]


def test_only_servers_are_stopped() -> None:
    with pytest.raises(NothingSelected, match="no server is called x") as told:
        starting.stop(of(FakeContainers([])), "x")
    assert told.value.do == "those that are: other"
    with pytest.raises(UsageError, match="is not a server"):
        starting.stop(of(FakeContainers([state(other="y")])), "x")


# -- what is asked of docker-py


@dataclass
class FakeContainer:
    """As docker-py's."""

    name: str
    attrs: dict[str, Any]
    fails: bool = False
    done: list[Any] = field(default_factory=list)

    def start(self) -> None:
        if self.fails:
            raise refused()
        self.done.append("start")

    def reload(self) -> None:
        ports = {"8000/tcp": [{"HostPort": "8000"}]}
        self.attrs = {**self.attrs, "NetworkSettings": {"Ports": ports}}

    def remove(self, **how: Any) -> None:
        self.done.append(("remove", how))

    def update(self, **how: Any) -> None:
        self.done.append(("update", how))

    def logs(self, tail: int) -> bytes:
        return f"the last {tail}\n".encode()

    def stop(self, timeout: int) -> None:
        self.done.append(("stop", timeout))


@dataclass
class FakeClient:
    """As docker-py's client, with one container."""

    one: FakeContainer
    asked: list[Any] = field(default_factory=list)

    @property
    def containers(self) -> FakeClient:
        return self

    def create(self, *words: Any, **how: Any) -> FakeContainer:
        self.asked.append((words, how))
        return self.one

    def get(self, name: str) -> FakeContainer:
        return self.one

    def events(self, **how: Any) -> list[dict[str, Any]]:
        self.asked.append(how["filters"])
        return [{"Actor": {}}, *({"Actor": {"Attributes": {"exitCode": code}}} for code in ("4", "1"))]

    def list(self, **how: Any) -> list[FakeContainer]:
        self.asked.append(how["filters"])
        return [self.one]


def refused() -> Exception:
    """What docker-py raises when the engine says no."""
    import docker.errors  # noqa: TID251 - the error that a fake engine raises

    make: Callable[..., Exception] = docker.errors.APIError
    return make("no", explanation="port is already allocated")


def test_containers_are_asked_by_name_and_label() -> None:
    one = FakeContainer("cardstock", {**state(), "RestartCount": 3})
    client = FakeClient(one)
    containers = Containers(client, translated)
    containers.start(SPEC, {})
    ((image,), how) = client.asked[0]
    assert (image, how) == (SPEC.image, create_arguments(SPEC, {}))
    found = containers.find("cardstock")
    assert found and (found.status, found.restarts, found.exit_code) == ("running", 3, 0)
    assert containers.labelled(SERVED)[0].labels[SERVED] == "x"
    assert client.asked[1:] == [{"name": "^/cardstock$"}, {"label": SERVED}]
    assert containers.first_end("cardstock", 5.0) == 4
    assert client.asked[3] == {"container": "cardstock", "event": "die"}
    containers.keep("cardstock", "on-failure")
    assert containers.log("cardstock", 7) == "the last 7\n"
    containers.stop("cardstock", 9)
    containers.remove("cardstock")
    update = ("update", {"restart_policy": {"Name": "on-failure"}})
    assert one.done == ["start", update, ("stop", 9), ("remove", {"force": True, "v": True})]


def test_one_that_cannot_start_is_not_left_behind() -> None:
    one = FakeContainer("cardstock", state(), fails=True)
    with pytest.raises(CardstockError, match="could not be started") as told:
        Containers(FakeClient(one), translated).start(SPEC, {})
    assert "port is already allocated" in told.value.cause
    assert one.done == [("remove", {"force": True, "v": True})]
