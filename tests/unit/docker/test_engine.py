"""Talking to the engine: what is found, how refusals come back, without an engine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import docker.errors  # noqa: TID251 - the errors that a fake engine raises
import docker.tls  # noqa: TID251 - what images/docker/docker_py.py mends of it
import pytest
import requests.exceptions
import urllib3.exceptions
from docker.transport import sshconn  # noqa: TID251 - the same

from images.core import process
from images.core.errors import CardstockError, EngineUnreachable, UsageError
from images.core.home import Layout
from images.docker import contexts, engine
from images.docker.connection import connect, reach
from images.docker.docker_py import SAVE_SECONDS, translated
from images.docker.embedded import daemon as embedded
from images.docker.embedded import packages as home
from images.docker.engine import Engine
from images.docker.facts import facts_of, parse_buildx, split_reference
from images.docker.owners import OWNER_LABEL, RUN_LABEL, this_process
from tests.helpers.processes import ended_process


class FakeClient:
    """As docker-py's client; ``fail`` is raised by whatever is asked first."""

    def __init__(self, fail: BaseException | None = None, version: str = "28.1.0") -> None:
        self.fail = fail
        self.number = version

    def ping(self) -> bool:
        if self.fail:
            raise self.fail
        return True

    def version(self) -> dict[str, str]:
        self.ping()
        return {"Version": self.number}

    def info(self) -> dict[str, str]:
        return {"DockerRootDir": "/no/such/docker"}


def made(client: FakeClient, tmp_path: Path, endpoint: str = "unix:///x", **options: Any) -> Engine:
    return Engine(cast(Any, client), endpoint, layout=Layout(tmp_path), **options)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("debian", ("debian", "latest")),
        ("a/b:1.0", ("a/b", "1.0")),
        ("host.example:5000/a", ("host.example:5000/a", "latest")),
        ("host.example:5000/a:x", ("host.example:5000/a", "x")),
    ],
)
def test_references_split_at_the_tag_not_the_port(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3\n", (0, 13, 1)),
        ("github.com/docker/buildx v0.21.0-desktop.1 abc\n", (0, 21, 0)),
        ("docker: 'buildx' is not a docker command.", None),
    ],
)
def test_buildx_versions_are_numbers(text: str, version: tuple[int, ...] | None) -> None:
    assert parse_buildx(text) == version


def test_facts_of_an_image_and_of_one_that_says_little() -> None:
    facts = facts_of(
        {
            "Id": "sha256:1",
            "RepoTags": ["a:1"],
            "Config": {"Labels": {"k": "v"}, "Env": ["A=b=c", "E="], "User": "10001", "Cmd": ["x"]},
            "Size": 5,
            "RootFS": {"Layers": ["sha256:2", "sha256:3"]},
        }
    )
    assert facts.env == {"A": "b=c", "E": ""}
    assert (facts.user, facts.size, facts.layers) == ("10001", 5, ("sha256:2", "sha256:3"))
    bare = facts_of({"Id": "sha256:1", "Config": {"Labels": None, "Env": None}, "RepoTags": None})
    assert (bare.tags, bare.labels, bare.entrypoint) == ((), {}, ())


def test_a_refusal_is_told_and_silence_is_unreachable() -> None:
    with (
        pytest.raises(CardstockError, match=r"(?s)could not.*the engine says: no space") as refused,
        translated("could not"),
    ):
        raise docker.errors.APIError("x", explanation="no space")
    assert not isinstance(refused.value, EngineUnreachable)
    for silent in (docker.errors.DockerException("gone"), requests.exceptions.ConnectionError("gone")):
        with pytest.raises(EngineUnreachable, match="does not answer: gone"), translated("could not"):
            raise silent


def test_files_are_packed_by_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"of this machine")
    packed = io.BytesIO()
    engine._tar({"/a/b": b"content", "/c": tmp_path / "here"}, packed)
    with tarfile.open(fileobj=packed) as tar:
        found = {name: tar.extractfile(name) for name in tar.getnames()}
    assert {name: file and file.read() for name, file in found.items()} == {"a/b": b"content", "c": b"of this machine"}


def test_free_space_is_known_only_on_this_machine(tmp_path: Path) -> None:
    here, gone, far = FakeClient(), FakeClient(), FakeClient()
    here.info = lambda: {"DockerRootDir": str(tmp_path)}  # type: ignore[method-assign]
    gone.info = lambda: {"DockerRootDir": str(tmp_path / "of a virtual machine")}  # type: ignore[method-assign]
    far.info = lambda: {"DockerRootDir": str(tmp_path), "OperatingSystem": "Docker Desktop"}  # type: ignore[method-assign]
    assert (made(here, tmp_path).free_bytes() or 0) > 0
    assert made(gone, tmp_path).free_bytes() is None
    assert made(far, tmp_path).free_bytes() is None
    assert made(FakeClient(), tmp_path, "tcp://far.example:2376").free_bytes() is None


# Which engine


def test_room_is_made_in_the_embedded_engine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    free = iter([5, 5, 30, 50])
    monkeypatch.setattr(Engine, "free_bytes", lambda self: next(free))
    monkeypatch.setattr(embedded, "free_disk_space", lambda short, layout, say: asked.append(short))
    assert made(FakeClient(), tmp_path).make_room(20) == 5
    own = made(FakeClient(), tmp_path, embedded=True)
    assert own.make_room(20) == 30
    assert own.make_room(20) == 50
    assert asked == [15]


class Engines:
    """Stands in for docker-py's ways to find an engine: url (None = the environment's or the context's) -> client."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clients: dict[str | None, FakeClient] = {}
        self.started: list[Layout] = []
        monkeypatch.setattr("images.docker.connection._open", self.open)
        monkeypatch.setattr(embedded, "start", self.start)
        monkeypatch.setattr(embedded, "engine_version", lambda _: None)
        monkeypatch.setattr("images.docker.connection.docker.DockerClient", lambda url, **_: self.open(url))
        monkeypatch.setattr("images.docker.ssh.ask", lambda endpoint: f"{endpoint}:22")

    def open(self, url: str | None, tls: object = None) -> FakeClient:
        client = self.clients.get(url) or FakeClient(docker.errors.DockerException("Connection refused"))
        client.ping()
        return client

    def start(self, layout: Layout, **_: object) -> str:
        self.started.append(layout)
        self.clients[layout.endpoint] = FakeClient()
        return layout.endpoint


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engines]:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "cli"))
    yield Engines(monkeypatch)


def a_context(folder: Path, name: str, meta: str, *, current: bool = False) -> None:
    """A context of the docker CLI below DOCKER_CONFIG."""
    place = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    place.mkdir(parents=True, exist_ok=True)
    (place / "meta.json").write_text(meta)
    (folder / "config.json").write_text(json.dumps({"currentContext": name} if current else {}))


def meta_of(name: str, host: str) -> str:
    return json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}})


@pytest.mark.parametrize("by_variable", [True, False])
def test_the_engine_of_a_context_has_its_own_name(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    a_context(tmp_path / "cli", "far", meta_of("far", "ssh://me@far.example"), current=not by_variable)
    if by_variable:
        monkeypatch.setenv("DOCKER_CONTEXT", "far")
    engines.clients["ssh://me@far.example:22"] = FakeClient()
    found = connect(Layout(tmp_path))
    assert (found.endpoint, found._environment) == ("ssh://me@far.example", {"DOCKER_HOST": "ssh://me@far.example:22"})


@pytest.mark.parametrize(
    ("variable", "config", "named_by"),
    [
        ("gone", "{}", "$DOCKER_CONTEXT"),
        (" gone ", '{"currentContext": "other"}', "$DOCKER_CONTEXT"),
        ("", '{"currentContext": "gone"}', "docker context use"),
    ],
)
def test_a_context_that_is_gone_is_told_and_nothing_else_is_taken(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, config: str, named_by: str
) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONTEXT", variable)
    engines.clients[None] = FakeClient()
    with pytest.raises(EngineUnreachable, match="docker has no context gone") as caught:
        connect(Layout(tmp_path))
    assert named_by in caught.value.what and "docker context use default" in caught.value.do
    assert engines.started == []


def test_docker_host_counts_more_than_a_context(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    monkeypatch.setenv("DOCKER_HOST", "tcp://far.example:2376")
    engines.clients[None] = FakeClient()
    assert connect(Layout(tmp_path)).endpoint == "tcp://far.example:2376"


def test_a_context_whose_engine_is_silent_is_not_replaced(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_context(tmp_path / "cli", "desktop-linux", meta_of("desktop-linux", "unix:///home/me/d.sock"), current=True)
    with pytest.raises(EngineUnreachable, match="context desktop-linux does not answer"):
        connect(Layout(tmp_path))
    assert engines.started == []


@pytest.mark.parametrize(
    "meta", ["", "[]", '{"Name": "x"}', '{"Name": "x", "Metadata": {}, "Endpoints": {"docker": 1}}']
)
def test_a_context_that_cannot_be_read_is_told(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meta: str
) -> None:
    a_context(tmp_path / "cli", "x", meta)
    monkeypatch.setenv("DOCKER_CONTEXT", "x")
    with pytest.raises(EngineUnreachable, match="context x cannot be read"):
        connect(Layout(tmp_path))
    with pytest.raises(EngineUnreachable, match="context x cannot be read"):
        reach("x")
    with pytest.raises(UsageError, match="no context y"):
        reach("y")


def test_an_empty_name_and_the_default_one_are_the_system_s_engine(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines.clients[None] = FakeClient()
    for name in ("", "default"):
        monkeypatch.setenv("DOCKER_CONTEXT", name)
        assert connect(Layout(tmp_path)).endpoint == "unix:///var/run/docker.sock"


def test_an_engine_that_answers_is_preferred(engines: Engines, tmp_path: Path) -> None:
    engines.clients[None] = FakeClient()
    found = connect(Layout(tmp_path))
    assert (found.embedded, found.endpoint, found.version) == (False, "unix:///var/run/docker.sock", "28.1.0")
    assert engines.started == []


def test_docker_host_is_taken_or_nothing(engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://far.example:2376")
    with pytest.raises(EngineUnreachable, match=r"(?s)DOCKER_HOST does not answer: tcp://far.*unset it") as caught:
        connect(Layout(tmp_path))
    assert caught.value.exit_code == 5
    assert engines.started == [], "the user named an engine: no other is started"
    engines.clients[None] = FakeClient()
    assert connect(Layout(tmp_path)).endpoint == "tcp://far.example:2376"


def test_without_one_the_embedded_engine_is_started(engines: Engines, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    found = connect(layout)
    assert engines.started == [layout]
    assert (found.embedded, found.endpoint) == (True, layout.endpoint)


def test_docker_host_may_name_the_embedded_engine(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", layout.endpoint)
    assert connect(layout).embedded
    assert engines.started == [layout]


def test_looking_does_not_start_one(engines: Engines, tmp_path: Path) -> None:
    with pytest.raises(EngineUnreachable, match="invoke engine --start"):
        connect(Layout(tmp_path), start=False)
    assert engines.started == []


def test_an_engine_that_this_user_may_not_use_is_not_replaced(engines: Engines, tmp_path: Path) -> None:
    denied = docker.errors.DockerException("Error while fetching server API version")
    denied.__cause__ = PermissionError(13, "Permission denied")
    engines.clients[None] = FakeClient(denied)
    with pytest.raises(EngineUnreachable, match=r"(?s)may not use it.*Permission denied.*docker group"):
        connect(Layout(tmp_path))
    assert engines.started == []


def test_a_rootless_engine_is_found(engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker.sock").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    engines.clients[f"unix://{tmp_path}/docker.sock"] = FakeClient()
    assert connect(Layout(tmp_path)).endpoint == f"unix://{tmp_path}/docker.sock"
    assert engines.started == []


# buildx


class FakeCli:
    """Stands in for the docker CLI: buildx works only in an environment whose PATH names ``only_in``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, only_in: str, said: str = "buildx v0.20.0") -> None:
        self.only_in, self.said = only_in, said
        monkeypatch.setattr(process, "run", self.run)

    def run(self, argv: list[str], *, env: dict[str, str], **_: object) -> process.Finished:
        if self.only_in not in env.get("PATH", ""):
            raise process.ProcessFailed(argv, 127, "no such program")
        return process.Finished(tuple(argv), 0, self.said, "")


def test_a_users_buildx_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeCli(monkeypatch, "")
    found = made(FakeClient(version="28.1.0"), tmp_path)
    assert found.cli_env() == {}
    assert found.buildx_version() == (0, 20, 0)
    assert found.has_buildx_check()


@pytest.mark.parametrize(("buildx", "version"), [("buildx 0.13.1", "28.1.0"), ("buildx v0.20.0", "26.1.5+dfsg1")])
def test_check_needs_a_new_buildx_and_a_new_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, buildx: str, version: str
) -> None:
    FakeCli(monkeypatch, "", buildx)
    assert not made(FakeClient(version=version), tmp_path).has_buildx_check()


def test_an_engine_without_buildx_gets_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    FakeCli(monkeypatch, str(layout.prefix))
    provided: list[Layout] = []
    monkeypatch.setattr(embedded, "provide_cli", provided.append)
    environment = made(FakeClient(), tmp_path, "unix:///var/run/docker.sock").cli_env()
    assert provided == [layout]
    assert environment["DOCKER_HOST"] == "unix:///var/run/docker.sock"
    assert environment["DOCKER_CONFIG"] == home.cli_env(layout)["DOCKER_CONFIG"]


def test_no_buildx_to_be_had_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeCli(monkeypatch, "nowhere at all")

    def refuse(_: Layout) -> None:
        raise EngineUnreachable("not Debian")

    monkeypatch.setattr(embedded, "provide_cli", refuse)
    with pytest.raises(EngineUnreachable, match=r"(?s)buildx is missing.*docker-buildx"):
        made(FakeClient(), tmp_path).cli_env()


def test_running_containers_asks_for_no_buildx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeCli(monkeypatch, "nowhere at all")
    users, own = tmp_path / "bin", Path(home.cli_env(Layout(tmp_path))["PATH"].partition(":")[0])
    for folder in (users, own):
        folder.mkdir(parents=True, exist_ok=True)
    found = made(FakeClient(), tmp_path, "unix:///var/run/docker.sock")
    monkeypatch.setenv("PATH", str(users))
    (own / "docker").write_text("#!/bin/sh\n")
    (own / "docker").chmod(0o755)
    assert found.client_env()["DOCKER_HOST"] == "unix:///var/run/docker.sock"
    (users / "docker").write_text("#!/bin/sh\n")
    (users / "docker").chmod(0o755)
    assert found.client_env() == {}


# What runs have left


class Left:
    """A container or a volume, as docker-py has it."""

    def __init__(self, name: str, owner: str, created: str, status: str = "exited") -> None:
        self.name, self.status, self.gone = name, status, False
        self.labels = {RUN_LABEL: name, OWNER_LABEL: owner}
        self.attrs = {"Created": created, "CreatedAt": created, "Labels": self.labels}

    def remove(self, **_: object) -> None:
        self.gone = True


class Shelf:
    """The containers or the volumes of an engine."""

    def __init__(self, *all_of_them: Left) -> None:
        self.all = all_of_them

    def list(self, filters: dict[str, str], **_: object) -> list[Left]:
        name = filters["label"].partition("=")[2]
        return [one for one in self.all if not one.gone and name in ("", one.name)]


def test_what_a_dead_run_left_goes_and_what_lives_stays(tmp_path: Path) -> None:
    mine = this_process()
    dead = f"{mine.partition(' ')[0]} {ended_process()} 7"
    new, old = "2026-11-27T20:00:00.5Z", "2026-11-20T20:00:00.123456789Z"
    now = datetime.fromisoformat("2026-11-27T21:00:00+00:00").timestamp()
    containers = Shelf(
        Left("killed", dead, new, "running"),
        Left("mine", mine, old, "exited"),
        Left("another-machine", "boot/pid:[1] 4 4", new, "exited"),
        Left("another-machine-runs", "boot/pid:[1] 4 4", old, "running"),
        Left("forgotten", "", old, "created"),
    )
    volumes = Shelf(Left("killed-volume", dead, new), Left("my-volume", mine, old))
    client = FakeClient()
    client.containers, client.volumes = containers, volumes  # type: ignore[attr-defined]
    found = made(client, tmp_path)
    assert found.cleanup(now=now) == 3
    assert [one.name for one in (*containers.all, *volumes.all) if one.gone] == ["killed", "forgotten", "killed-volume"]
    assert found.cleanup("mine") == 1
    assert found.cleanup("mine") == 0


def test_a_working_name_that_is_held_is_said_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    found = made(FakeClient(), tmp_path)

    def held(*_: object, **__: object) -> bool:
        raise CardstockError("x could not be removed", cause="the engine says: container 0a is using it")

    monkeypatch.setattr(Engine, "untag", held)
    assert found.drop_name("cardstock/staging:1", said.append) is False
    assert said == ["left as it is: cardstock/staging:1: the engine says: container 0a is using it"]

    def silent(*_: object, **__: object) -> bool:
        raise EngineUnreachable("gone")

    monkeypatch.setattr(Engine, "untag", silent)
    with pytest.raises(EngineUnreachable):
        found.drop_name("cardstock/staging:1", said.append)


def test_podman_has_no_version_of_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(version="4.9.3")
    assert made(client, tmp_path).docker_version == "4.9.3"
    monkeypatch.setattr(client, "info", lambda: {"DockerRootDir": "/x", "BuildahVersion": "1.33.7"})
    assert made(client, tmp_path).docker_version == ""


def test_an_image_that_breaks_off_while_it_is_read_is_the_engines(tmp_path: Path) -> None:
    class Api:
        timeout = 120

        def get_image(self, reference: str) -> Iterator[bytes]:
            yield b"x"
            raise urllib3.exceptions.ProtocolError("Connection broken")

    client = FakeClient()
    client.api = Api()  # type: ignore[attr-defined]
    with made(client, tmp_path).save("x") as chunks:
        assert next(chunks) == b"x"
        with pytest.raises(EngineUnreachable, match="x could not be saved"):
            next(chunks)
    with pytest.raises(OSError, match="No space"), made(client, tmp_path).save("x"):
        raise OSError(28, "No space left on device")  # the reader's own is no matter of the engine's


def test_an_engine_may_take_its_time_before_the_first_byte_of_an_image_and_for_nothing_else(tmp_path: Path) -> None:
    seen = list[int]()

    class Api:
        timeout = 120

        def get_image(self, reference: str) -> Iterator[bytes]:
            seen.append(self.timeout)
            if reference == "gone":
                raise docker.errors.APIError("no such image")
            return iter([b"x"])

    client = FakeClient()
    client.api = Api()  # type: ignore[attr-defined]
    with made(client, tmp_path).save("x") as chunks:
        assert list(chunks) == [b"x"]
    with pytest.raises(CardstockError), made(client, tmp_path).save("gone"):
        pass
    assert seen == [SAVE_SECONDS] * 2 and client.api.timeout == 120  # type: ignore[attr-defined]


# -- certificates of a context


def test_the_certificates_of_a_context_are_its_own(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = tmp_path / "cli"
    a_context(cli, "shut", meta_of("shut", "tcp://far.example:2376"))
    (cli / "config.json").unlink()  # contexts are there without it, and the CLI finds them
    folder = cli / "contexts" / "tls" / hashlib.sha256(b"shut").hexdigest() / "docker"
    folder.mkdir(parents=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (folder / name).write_text("x")
    monkeypatch.setenv("DOCKER_CONTEXT", "shut")
    found = contexts.current_context({"DOCKER_CONTEXT": "shut", "DOCKER_CONFIG": str(cli)})
    assert found.tls.ca_cert == str(folder / "ca.pem") and found.tls.verify is True
    assert found.tls.cert == (str(folder / "cert.pem"), str(folder / "key.pem"))
    assert found.environment() == {
        "DOCKER_HOST": "tcp://far.example:2376",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(folder),
    }
    (folder / "key.pem").unlink()  # half of what it shows of itself
    with pytest.raises(EngineUnreachable, match="context shut cannot be read") as caught:
        contexts.current_context({"DOCKER_CONTEXT": "shut", "DOCKER_CONFIG": str(cli)})
    assert caught.value.where.endswith("meta.json")


def test_the_ca_of_an_engine_is_not_the_sites() -> None:
    """requests would take REQUESTS_CA_BUNDLE instead, and refuse the engine's own certificate."""
    session = SimpleNamespace(trust_env=True, mount=lambda *_: None)
    docker.tls.TLSConfig(verify=True).configure_client(session)  # type: ignore[arg-type]
    assert session.trust_env is False and session.verify is True


def test_a_connection_by_ssh_ends_well_where_the_other_side_hung_up_first() -> None:
    class Gone:
        stdin = SimpleNamespace(closed=False, write=lambda _: None)
        ended: ClassVar[list[str]] = []

        def kill(self) -> None:
            self.ended.append("killed")

        def wait(self) -> None:
            self.ended.append("waited for")

    def broken() -> None:
        raise BrokenPipeError

    Gone.stdin.flush = broken
    connection = sshconn.SSHSocket("far:22")
    connection.proc = Gone()  # type: ignore[assignment]
    connection.close()
    assert Gone.ended == ["killed", "waited for"]


def test_a_configuration_that_this_user_may_not_look_for_chooses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refused)
    assert contexts.current_context({"DOCKER_CONFIG": str(tmp_path)}).name == contexts.DEFAULT
    assert contexts.find_context("other", environment={"DOCKER_CONFIG": str(tmp_path)}) is None
