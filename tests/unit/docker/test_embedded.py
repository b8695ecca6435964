"""The embedded engine without an engine: its paths, files, lock, steps and errors."""

from __future__ import annotations

import fcntl
import http.server
import json
import os
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.core import process
from images.core.debian import Mirror
from images.core.errors import EngineUnreachable
from images.core.home import Layout
from images.docker.embedded import daemon as embedded
from images.docker.embedded import packages as home
from images.docker.embedded import space as embedded_space
from images.docker.embedded.daemon_config import CACHE_BYTES, GB, render_config, without_live_restore
from images.docker.embedded.iptables import iptables_script

MIRROR = Mirror("bookworm", "http://mirror.example/debian")


@pytest.fixture
def layout() -> Iterator[Layout]:
    """A short path: a socket's may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="cs"))
    yield Layout(folder)
    shutil.rmtree(folder)


def test_home_is_outside_the_checkout_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert embedded.default_layout({}).home == Path("/home/someone/.cache/cardstock")
    assert embedded.default_layout({"CARDSTOCK_HOME": "/data/cs"}).home == Path("/data/cs")
    assert embedded.default_layout({"CARDSTOCK_HOME": "~/cs"}).home == Path("/home/someone/cs")


def test_everything_lies_below_home(layout: Layout) -> None:
    names = "root prefix stamp socket data exec pidfile log config cli_config".split()
    assert all(getattr(layout, name).is_relative_to(layout.home) for name in names)
    assert layout.endpoint == f"unix://{layout.home}/engine/docker.sock"


def test_two_homes_have_two_bridges_with_names_the_kernel_takes(layout: Layout) -> None:
    other = replace(layout, home=layout.home / "other")
    assert layout.bridge != other.bridge
    assert len(layout.bridge) <= 15


def test_daemon_config_is_private_and_bounded(layout: Layout) -> None:
    config = json.loads(render_config(layout, mtu=1400, firewall=True))
    for key in ("data-root", "exec-root", "pidfile"):
        assert Path(config[key]).is_relative_to(layout.home)
    assert config["hosts"] == [layout.endpoint]
    assert config["storage-driver"] == "overlay2"
    assert config["features"] == {"cdi": True, "containerd-snapshotter": False}
    assert config["bridge"] == layout.bridge
    assert config["mtu"] == 1400
    assert config["live-restore"] is True  # containers outlive a crash of the engine
    assert json.loads(without_live_restore(json.dumps(config))) == {**config, "live-restore": False}
    rules = config["builder"]["gc"]["policy"]
    assert {what for rule in rules for what in rule["filter"]} == {"type=regular", "type=source.local"}
    keep = max(int(rule["keepStorage"].removesuffix("GB")) for rule in rules) * GB
    assert 0 < keep < embedded.LIMIT_BYTES <= 45 * GB
    assert json.loads(render_config(layout, mtu=1500, firewall=False))["iptables"] is False


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"uid": 1000}, r"needs root \(this is user id 1000\)"),
        ({"codename": None}, "this is not Debian"),
        ({"codename": None, "uid": 1000, "name": "Fedora Linux 43"}, r"\(this is not Debian but Fedora Linux 43\)"),
        ({"codename": "bullseye"}, "Debian 12 or later"),
        ({"mirror": None}, "names no Debian archive"),
    ],
)
def test_a_host_that_cannot_carry_an_engine_is_told_what_to_do(
    layout: Layout, change: dict[str, object], cause: str
) -> None:
    facts: dict[str, object] = {"uid": 0, "codename": "bookworm", "mirror": MIRROR, **change}
    with pytest.raises(EngineUnreachable, match=cause) as caught:
        home.require_host(layout, **facts)  # type: ignore[arg-type]
    assert caught.value.exit_code == 5
    for way_out in ("start your Docker engine", "DOCKER_HOST", "docker group", "sudo"):
        assert way_out in caught.value.do


def test_a_home_too_deep_for_sockets_is_told() -> None:
    deep = Layout(Path("/" + "d" * 61))
    with pytest.raises(EngineUnreachable, match="CARDSTOCK_HOME"):
        home.require_host(deep, uid=0, codename="bookworm", mirror=MIRROR)


def test_a_host_that_can_gives_its_mirror(layout: Layout) -> None:
    assert home.require_host(layout, uid=0, codename="bookworm", mirror=MIRROR) is MIRROR


class FakePackages:
    """Stands in for apt-get and dpkg-deb; may break off at the n-th package unpacked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.break_at = 0
        self.unpacked = 0
        monkeypatch.setattr(process, "run", self.run)

    def run(self, argv: list[str], cwd: Path | None = None, **_: object) -> process.Finished:
        self.calls.append(tuple(argv))
        out = ""
        if "download" in argv:
            assert cwd is not None
            for name in argv[argv.index("-q") + 1 :]:
                (cwd / f"{name}.deb").touch()
        elif argv[:2] == ["dpkg-deb", "-x"]:
            self.unpacked += 1
            if self.unpacked == self.break_at:
                raise KeyboardInterrupt
            (Path(argv[3]) / Path(argv[2]).stem).touch()
        elif argv[0] == "dpkg-deb":
            out = f"Package: {Path(argv[2]).stem}\nVersion: 1.0\n"
        return process.Finished(tuple(argv), 0, out, "")

    def sources(self) -> dict[str, str]:
        """Package -> the name of the private apt that fetched it."""
        found = {}
        for call in (call for call in self.calls if "download" in call):
            name = next(word for word in call if "sourcelist" in word).split("/")[-2]
            found.update(dict.fromkeys(call[call.index("-q") + 1 :], name))
        return found


def test_install_takes_the_engine_from_the_next_release_and_runc_from_the_hosts(
    monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    fake = FakePackages(monkeypatch)
    said: list[str] = []
    home.install(layout, MIRROR, said.append)
    assert home.installed(layout)
    sources = fake.sources()
    assert sources["docker.io"] == sources["docker-buildx"] == sources["containerd"] == "engine"
    assert sources["runc"] == sources["iptables"] == "host"
    assert json.loads(layout.stamp.read_text())["packages"]["runc"] == "1.0"
    assert {path.name for path in layout.root.iterdir()} == {"prefix"}, "downloads and lists are gone"
    assert len(said) == 1
    before = len(fake.calls)
    home.install(layout, MIRROR, said.append)
    assert len(fake.calls) == before, "a second time does nothing"


def test_an_install_that_broke_off_is_done_anew(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    fake = FakePackages(monkeypatch)
    fake.break_at = 7
    with pytest.raises(KeyboardInterrupt):
        home.install(layout, MIRROR, print)
    assert not home.installed(layout)
    home.install(layout, MIRROR, print)
    assert home.installed(layout)
    assert (layout.prefix / "docker.io").exists()


@pytest.mark.parametrize("stamp", ["", "not json", '{"recipe": "older packages"}'])
def test_a_stamp_that_says_something_else_is_not_installed(layout: Layout, stamp: str) -> None:
    layout.prefix.mkdir(parents=True)
    layout.stamp.write_text(stamp)
    assert not home.installed(layout)


def test_cli_config_links_buildx_and_the_users_logins(layout: Layout, tmp_path: Path) -> None:
    user = tmp_path / "config.json"
    home.write_cli_config(layout, user)
    assert not (layout.cli_config / "config.json").exists()
    user.write_text('{"auths": {"registry.example": {"auth": "c2VjcmV0"}}}')
    home.write_cli_config(layout, user)
    home.write_cli_config(layout, user)
    assert (layout.cli_config / "config.json").readlink() == user, "a link: the secret is not written twice"
    plugin = layout.cli_config / "cli-plugins" / "docker-buildx"
    assert plugin.readlink().is_relative_to(layout.prefix)
    assert sorted(path.name for path in layout.cli_config.rglob("*")) == ["cli-plugins", "config.json", "docker-buildx"]


def test_cli_env_puts_the_engines_own_tools_first(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin")
    environment = embedded.cli_env(layout)
    assert environment["DOCKER_HOST"] == layout.endpoint
    assert environment["DOCKER_CONFIG"] == str(layout.cli_config)
    parts = environment["PATH"].split(":")
    assert parts.index(f"{layout.prefix}/usr/bin") < parts.index("/usr/local/bin")


def test_iptables_runs_with_its_own_libraries_and_passes_words_on(tmp_path: Path) -> None:
    prefix = tmp_path / "pre fix"
    tool = prefix / "usr/sbin/xtables-nft-multi"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH"\nprintf "[%s]" "$@"\n')
    tool.chmod(0o755)
    script = tmp_path / "iptables"
    script.write_text(iptables_script(prefix, "nft", "iptables"))
    script.chmod(0o755)
    libraries, words = process.run([str(script), "-t", "nat", "a b", "$(x)"]).out.splitlines()
    assert libraries.startswith(f"{prefix}/usr/lib/")
    assert words == "[iptables][-t][nat][a b][$(x)]"


def test_the_lock_keeps_a_second_start_waiting(layout: Layout) -> None:
    said: list[str] = []
    order: list[str] = []
    waiting = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    def second() -> None:
        with embedded.locked(layout, say):
            order.append("second")

    with embedded.locked(layout, said.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    (line,) = said
    assert line.startswith(f"waiting for a start or stop of the embedded engine: process {os.getpid()} (")


def test_a_lock_held_too_long_is_an_error(layout: Layout) -> None:
    layout.root.mkdir(parents=True)
    with (layout.home / "engine.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with (
            pytest.raises(EngineUnreachable, match=r"engine\.lock"),
            embedded.locked(layout, lambda _: None, timeout=0.3),
        ):
            pytest.fail("the lock was given twice")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def serve(layout: Layout, status: int, body: bytes) -> _Server:
    """An HTTP server on the engine's socket."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if self.path == "/version" else b"{}")

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    layout.root.mkdir(parents=True, exist_ok=True)
    server = _Server(str(layout.socket), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("status", "body", "version"),
    [(200, b'{"Version": "26.1.5"}', "26.1.5"), (503, b'{"Version": "26.1.5"}', None), (200, b"not json", None)],
)
def test_only_an_engine_that_says_its_version_answers(
    layout: Layout, status: int, body: bytes, version: str | None
) -> None:
    server = serve(layout, status, body)
    try:
        assert embedded.engine_version(layout.socket) == version
    finally:
        server.shutdown()
        server.server_close()
    assert embedded.engine_version(layout.socket) is None, "a socket file with nobody behind it"


def test_start_finds_one_that_answers_and_does_nothing(layout: Layout) -> None:
    server = serve(layout, 200, b'{"Version": "26.1.5"}')
    try:
        assert embedded.start(layout) == layout.endpoint
        assert embedded.status(layout).running
    finally:
        server.shutdown()
        server.server_close()


def test_status_of_nothing_is_a_plain_answer(layout: Layout) -> None:
    status = embedded.status(Layout(layout.home / "not" / "there"))
    assert (status.running, status.version, status.pid, status.data_bytes) == (False, "", None, 0)
    assert status.free_bytes > 0
    assert not (layout.home / "not").exists()
    assert embedded.stop(Layout(layout.home / "not" / "there")) is False


def test_a_pid_file_of_another_process_is_not_the_engines(layout: Layout) -> None:
    """After a reboot the id may be anyone's: nothing is signalled, the file goes."""
    layout.root.mkdir(parents=True)
    layout.pidfile.write_text("1")
    assert embedded.status(layout).pid is None
    assert embedded.stop(layout) is False
    assert not layout.pidfile.exists()


class FakeDocker:
    """Stands in for the docker CLI; ``sizes`` are what the disk holds after each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
        self.steps: list[str] = []
        self.sizes = [size * GB for size in sizes]
        monkeypatch.setattr(process, "run", self.run)
        monkeypatch.setattr(embedded_space, "engine_version", lambda _: "26.1.5")
        monkeypatch.setattr(embedded_space, "data_bytes", lambda _: self.sizes[min(len(self.steps), len(sizes) - 1)])

    def run(self, argv: list[str], *, env: dict[str, str], **_: object) -> None:
        assert argv[0] == "docker"
        assert env["DOCKER_HOST"].startswith("unix:///")
        self.steps.append(" ".join(argv[1:3]) + (" --all" if "--all" in argv else ""))


GENTLE = ["container prune", "image prune", "buildx prune"]


def test_under_the_limit_nothing_is_pruned(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    fake = FakeDocker(monkeypatch, 44)
    assert embedded.keep_under_limit(layout) is None
    assert fake.steps == []


def test_an_engine_that_does_not_run_is_not_pruned(layout: Layout) -> None:
    with pytest.raises(EngineUnreachable, match="invoke engine --start"):
        embedded.prune(layout)


def test_pruning_stops_as_soon_as_it_fits(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    fake = FakeDocker(monkeypatch, 60, 60, 55, 50, 44)
    said: list[str] = []
    result = embedded.keep_under_limit(layout, say=said.append)
    assert result is not None
    assert result.fits
    assert (result.before, result.after) == (60 * GB, 44 * GB)
    assert fake.steps == [*GENTLE, "buildx prune --all"]
    assert said == ["the embedded engine holds 44.0 GB of 45 GB (16.0 GB freed)"]


def test_tagged_images_stay_even_over_the_limit_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    fake = FakeDocker(monkeypatch, 60)
    said: list[str] = []
    assert not embedded.prune(layout, say=said.append).fits
    assert fake.steps == [*GENTLE, *["buildx prune --all"] * 3, "image prune", *["buildx prune --all"] * 2]
    assert "image prune --all" not in fake.steps
    assert "tagged images hold the rest" in said[-1]


def test_room_is_made_only_as_far_as_is_asked(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    fake = FakeDocker(monkeypatch, 40, 40, 40, 36, 31, 20)
    said: list[str] = []
    embedded.free_disk_space(8 * GB, layout, say=said.append)
    assert fake.steps == [*GENTLE, "buildx prune --all"]
    assert said == ["the disk is short of room: 9.0 GB of the engine's build cache dropped"]
    assert "image prune --all" not in fake.steps


def test_everything_takes_tagged_images_too(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    fake = FakeDocker(monkeypatch, 60, 50, 1)
    embedded.prune(layout, everything=True)
    assert "image prune --all" in fake.steps


def test_the_compiler_cache_goes_only_when_everything_does() -> None:
    trims = [step for step in (*embedded_space.gentle_steps(), *embedded_space.firm_steps()) if step[0] == "buildx"]
    assert all({"type=regular", "type=source.local"} & set(step) for step in trims)
    assert any("--filter" not in step for step in embedded_space.every_step() if step[0] == "buildx")


def test_build_cache_goes_by_the_quarter() -> None:
    kept = [int(step[-1]) for step in embedded_space.firm_steps() if "--keep-storage" in step]
    assert kept == sorted(kept, reverse=True)
    assert 0 < kept[-1] < kept[0] < CACHE_BYTES
    assert "--keep-storage" not in embedded_space.firm_steps()[-1]


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (1 * GB, "9.0 GB of the engine's build cache dropped"),
        (10 * GB, "has no build cache that could be dropped"),
        (12 * GB, "has no build cache that could be dropped"),
    ],
)
def test_what_was_dropped_is_never_less_than_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, after: int, told: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(embedded_space, "data_bytes", lambda _: 10 * GB)
    monkeypatch.setattr(embedded_space, "prune", lambda *_, **__: embedded_space.Pruned(10 * GB, after, 0, ()))
    embedded_space.free_disk_space(500, layout, say=said.append)
    assert told in said[0] and "-0" not in said[0]
