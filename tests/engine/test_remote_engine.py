"""An engine that is reached by ssh, or as a context with certificates: a second engine, and sshd on loopback."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.loopback_registry import free_port
from images.core import process
from images.core.errors import CardstockError, Unsafe, UsageError
from images.core.home import Layout
from images.docker.connection import connect, reach
from images.docker.container_spec import ContainerSpec, Mount
from images.docker.engine import Engine
from images.docker.temporary_containers import TemporaryContainers
from images.render.bakefile import finish_file
from tests.engine.conftest import host_tar
from tests.engine.remote_builder import engine_with
from tests.engine.ssh_host import NAME, SshHost

FAR = f"ssh://{NAME}"
IMAGE = "cardstock/test-far:x"


def programs(engine: Engine) -> str:
    """A PATH on the other side with docker on it."""
    return f"{engine._layout.prefix}/usr/bin:/usr/local/bin:/usr/bin:/bin"


@pytest.fixture(scope="module")
def host(other_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    """The other machine: its docker meets the other engine."""
    there = {"DOCKER_HOST": other_engine.endpoint, "PATH": programs(other_engine)}
    made = SshHost(tmp_path_factory.mktemp("ssh") / "far", there)
    made.start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def by_ssh(host: SshHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """This machine: no engine but by ssh, a docker configuration of the test's own."""
    monkeypatch.setenv("PATH", host.path)
    monkeypatch.setenv("DOCKER_HOST", FAR)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    yield
    host.use("mine")
    host.know("host")


@pytest.fixture
def far(host: SshHost) -> Engine:
    return connect(start=False)


def again(host: SshHost, environment: dict[str, str]) -> None:
    """The other machine with another environment."""
    host.stop()
    host.settings(environment)
    host.start()


# -- what works


def test_all_that_an_engine_is_asked(far: Engine, other_engine: Engine) -> None:
    assert far.endpoint == FAR and far.version == other_engine.version
    assert not far.local and not far.beside and far.free_bytes() is None
    facts = far.import_tar(io.BytesIO(host_tar()), IMAGE, ['ENV WHO="far"'])
    assert other_engine.inspect(IMAGE) == facts
    ran = far.run(IMAGE, ["-c", "echo $WHO; cat /given; id -u"], entrypoint=["sh"], files={"/given": b"x" * 200_000})
    assert ran.out.startswith("far\n" + "x" * 200_000) and ran.out.endswith("0\n")
    with far.save(IMAGE) as chunks:
        archive = b"".join(chunks)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "manifest.json" in tar.getnames()
    far.untag(IMAGE)
    assert other_engine.inspect(IMAGE) is None
    far.load(iter([archive]))
    assert other_engine.inspect(IMAGE) == facts


def test_a_build_goes_there(far: Engine, other_engine: Engine, tmp_path: Path) -> None:
    far.import_tar(io.BytesIO(host_tar()), IMAGE)
    (tmp_path / "dockerfiles").mkdir()
    file = tmp_path / "finish.json"
    file.write_text(finish_file(IMAGE, ["cardstock/test-far:built"], {"dev.cardstock.test": "x"}))
    process.run(["docker", "buildx", "bake", "-f", str(file), "finish"], cwd=tmp_path, env=far.cli_env(), timeout=120)
    facts = other_engine.inspect("cardstock/test-far:built")
    assert facts is not None and facts.labels["dev.cardstock.test"] == "x"


def test_containers_that_stay_and_those_of_a_proof(far: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    far.import_tar(io.BytesIO(host_tar()), IMAGE)
    spec = ContainerSpec(IMAGE, ("-c", "echo up; sleep 60"), name="cardstock-far", entrypoint=("sh",), network="none")
    containers = far.containers
    containers.start(spec, {})
    try:
        assert containers.execute("cardstock-far", ["cat", "/proc/1/comm"]) == (0, "sh\n")
        assert containers.log("cardstock-far") == "up\n"
    finally:
        containers.remove("cardstock-far")
    monkeypatch.setenv("DOCKER_HOST", far.cli_env()["DOCKER_HOST"])  # as a proof's own process has it
    proof = TemporaryContainers("cardstock-test-far")
    try:
        volume = proof.volume(IMAGE, {"a": b"y" * 70_000}, "/proof")
        shown = ContainerSpec(IMAGE, ("60",), entrypoint=("sleep",), mounts=(Mount(volume, "/proof"),), network="none")
        with proof.running(shown) as running:
            assert running.run(["cat", "/proof/a"]).out == "y" * 70_000
    finally:
        assert proof.close() == 1


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_context_leads_there(host: SshHost, monkeypatch: pytest.MonkeyPatch, by_variable: bool, far: Engine) -> None:
    process.run(["docker", "context", "create", "box", "--docker", f"host={FAR}"], env=far.client_env())
    monkeypatch.delenv("DOCKER_HOST")
    if by_variable:
        monkeypatch.setenv("DOCKER_CONTEXT", "box")
    else:
        process.run(["docker", "context", "use", "box"], env=far.client_env())
    found = connect(Layout(host.folder), start=False)
    assert (found.endpoint, found.version) == (FAR, far.version)
    assert reach("box").version == far.version
    # What is started with its environment meets the same engine.
    told = process.run(["docker", "version", "--format", "{{.Server.Version}}"], env=found.client_env()).out
    assert told.strip() == far.version


# -- what goes wrong


def refusal() -> CardstockError:
    with pytest.raises(CardstockError) as caught:
        connect(start=False)
    assert caught.value.what.count("\n") == 0 and caught.value.do
    return caught.value


def test_nobody_listens_there(host: SshHost) -> None:
    host.use("mine", port=1)
    told = refusal()
    assert told.what == "far is not reached by ssh" and "Connection refused" in told.cause and told.exit_code == 5
    assert "ssh far true" in told.do


def test_the_key_is_refused(host: SshHost) -> None:
    host.use("other")
    told = refusal()
    assert told.what == "far does not let this user in" and "Permission denied" in told.cause and told.exit_code == 5
    assert "ssh-copy-id far" in told.do


def test_a_host_that_is_not_known_and_one_that_has_another_key(host: SshHost) -> None:
    (host.folder / "known").write_text("")
    told = refusal()
    assert told.what == "far is not known by its key yet" and told.exit_code == 5
    host.know("other")
    changed = refusal()
    assert isinstance(changed, Unsafe) and changed.what == "far has another key than it had" and changed.exit_code == 7


def test_no_host_of_this_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://nobody.invalid")
    told = refusal()
    assert told.what == "there is no host nobody.invalid" and told.exit_code == 5


def test_no_docker_on_the_other_side(host: SshHost, other_engine: Engine) -> None:
    again(host, {"PATH": "/nowhere"})
    try:
        told = refusal()
    finally:
        again(host, {"DOCKER_HOST": other_engine.endpoint, "PATH": programs(other_engine)})
    assert told.what == "there is no docker on far" and "not found" in told.cause and told.exit_code == 5
    assert "install Docker's CLI there" in told.do


def test_no_engine_on_the_other_side(host: SshHost, other_engine: Engine) -> None:
    again(host, {"DOCKER_HOST": "unix:///nowhere.sock", "PATH": programs(other_engine)})
    try:
        told = refusal()
    finally:
        again(host, {"DOCKER_HOST": other_engine.endpoint, "PATH": programs(other_engine)})
    assert told.what == "no engine answers on far" and told.exit_code == 5
    assert "ssh far docker info" in told.do


# -- certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what an engine and its client show each other, and what another CA has signed."""
    folder = tmp_path_factory.mktemp("tls")
    for maker in ("right", "wrong"):
        place = folder / maker
        place.mkdir()
        subject = ["-subj", f"/CN={maker} CA"]
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        process.run([*new, *subject, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2"], cwd=place)
        for name in ("server", "client"):
            use = "subjectAltName=IP:127.0.0.1" if name == "server" else "extendedKeyUsage=clientAuth"
            signed = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", use, "-days", "2", "-subj", f"/CN={name}"]
            process.run([*new, *signed, "-keyout", f"{name}-key.pem", "-out", f"{name}.pem"], cwd=place)
    return folder


@pytest.fixture(scope="module")
def shut(certificates: Path) -> Iterator[str]:
    """The address of an engine that wants certificates."""
    port, place = free_port(), certificates / "right"
    with engine_with(
        lambda settings: (
            settings
            | {
                "hosts": [*settings["hosts"], f"tcp://127.0.0.1:{port}"],
                "tlsverify": True,
                "tlscacert": str(place / "ca.pem"),
                "tlscert": str(place / "server.pem"),
                "tlskey": str(place / "server-key.pem"),
            }
        )
    ):
        yield f"tcp://127.0.0.1:{port}"


def a_context(name: str, endpoint: str, place: Path, client: Engine) -> None:
    """A context of the docker CLI with the certificates of a folder."""
    files = f"ca={place}/ca.pem,cert={place}/client.pem,key={place}/client-key.pem"
    words = ["docker", "context", "create", name, "--docker", f"host={endpoint},{files}"]
    process.run(words, env=client.client_env())


def test_a_context_with_certificates(
    shut: str, certificates: Path, far: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_context("shut", shut, certificates / "right", far)
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONTEXT", "shut")
    found = connect(start=False)
    assert (found.endpoint, found.version) == (shut, far.version)
    told = process.run(["docker", "version", "--format", "{{.Server.Version}}"], env=found.client_env()).out
    assert told.strip() == far.version
    assert reach("shut").version == far.version


@pytest.mark.parametrize("lacks", ["another CA's", "none"])
def test_certificates_that_are_not_taken(
    shut: str, certificates: Path, far: Engine, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    a_context("shut", shut, certificates / "wrong", far)
    if lacks == "none":
        process.run(["docker", "context", "rm", "shut"], env=far.client_env())
        words = ["docker", "context", "create", "shut", "--docker", f"host={shut}"]
        process.run(words, env=far.client_env())
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONTEXT", "shut")
    told = refusal()
    assert told.what == f"the engine of docker's context shut does not answer: {shut}" and told.exit_code == 5
    assert "certificate" in told.cause.lower() or "HTTPS" in told.cause
    assert "PRIVATE" not in str(told)


def test_an_address_with_a_password_is_refused_and_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me:s3cret@far")
    with pytest.raises(UsageError) as caught:
        connect(start=False)
    assert "s3cret" not in str(caught.value) and "password" in caught.value.what
