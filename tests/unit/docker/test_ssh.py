"""Addresses behind ssh, and what ssh and the other side say: without ssh."""

from __future__ import annotations

import pytest

from images.core import process
from images.core.errors import EngineUnreachable, Unsafe, UsageError
from images.docker import ssh
from images.docker.ssh import Address, refused, ssh_address

FAR = "ssh://me@far:2222"


@pytest.mark.parametrize(
    ("endpoint", "address", "typed"),
    [
        ("ssh://far", Address("far"), "far"),
        ("ssh://me@Far.example.com:2222", Address("Far.example.com", "me", 2222), "-p 2222 me@Far.example.com"),
        ("ssh://[fd00::1]:22", Address("fd00::1", "", 22), "-p 22 fd00::1"),
    ],
)
def test_an_address(endpoint: str, address: Address, typed: str) -> None:
    assert ssh_address(endpoint) == address and address.typed == typed
    assert address.words[-2:] == ["--", address.host]


@pytest.mark.parametrize(
    "endpoint",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://me@-oProxyCommand=x",
        "ssh://-l@far",
        "ssh://far/var/run/docker.sock",
        "ssh://far:99999",
        "ssh://far:x",
        "ssh://a b",
        "ssh://far?x",
        "ssh://far;reboot",
    ],
)
def test_what_is_no_address(endpoint: str) -> None:
    with pytest.raises(UsageError, match="is no address of an engine behind ssh"):
        ssh_address(endpoint)


def test_a_password_is_told_to_nobody() -> None:
    with pytest.raises(UsageError) as caught:
        ssh_address("ssh://me:s3cret@far")
    assert "s3cret" not in str(caught.value) and "ssh-copy-id me@far" in caught.value.do


WORDS = {
    "refused": (255, "ssh: connect to host far port 22: Connection refused\r\n", "far is not reached by ssh"),
    "silent": (255, "ssh: connect to host far port 22: Connection timed out", "far is not reached by ssh"),
    "no name": (255, "ssh: Could not resolve hostname far: Name or service not known", "there is no host far"),
    "key": (255, "me@far: Permission denied (publickey,password).", "far does not let this user in"),
    "unknown": (255, "No ED25519 host key is known\nHost key verification failed.", "far is not known by its key yet"),
    "no docker": (127, "bash: line 1: docker: command not found", "there is no docker on far"),
    "windows": (1, "'docker' is not recognized as an internal or external command", "there is no docker on far"),
    "group": (
        1,
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        "an engine is on far, but this user may not use it",
    ),
    "down": (1, "Cannot connect to the Docker daemon at unix:///x. Is it running?", "no engine answers on far"),
    "nothing": (1, "", "no engine answers on far"),
}


@pytest.mark.parametrize(("code", "said", "what"), WORDS.values(), ids=WORDS)
def test_each_refusal_has_its_sentence(code: int, said: str, what: str) -> None:
    error = refused(FAR, ssh_address(FAR), code, said)
    assert isinstance(error, EngineUnreachable) and error.what == what
    assert error.cause and error.do and error.where == FAR and error.exit_code == 5


def test_a_changed_key_is_not_safe() -> None:
    said = "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nHost key verification failed.\n"
    error = refused(FAR, ssh_address(FAR), 255, said)
    assert isinstance(error, Unsafe) and "ssh-keygen -R far" in error.do


def test_what_is_asked_and_that_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], **how: object) -> process.Finished:
        asked.append(argv)
        out = "user me\nport 2200\n" if "-G" in argv else "HTTP/1.1 200 OK\r\n\r\nOK"
        assert how["timeout"] == ssh.WHOLE
        return process.Finished(tuple(argv), 0, out, "")

    monkeypatch.setattr(process, "run", run)
    assert ssh.ask("ssh://far") == "ssh://far:2200"  # docker-py would take 22
    assert ssh.ask(FAR) == FAR and len(asked) == 3
    assert asked[0][:5] == ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={ssh.CONNECT}"]
    assert asked[0][-3:] == ["--", "far", "docker system dial-stdio"]


@pytest.mark.parametrize(
    ("code", "what"),
    [(124, "far is not reached by ssh"), (127, "and there is none on this machine")],
)
def test_an_ssh_that_does_not_end_or_is_not_there(monkeypatch: pytest.MonkeyPatch, code: int, what: str) -> None:
    def run(argv: list[str], **_: object) -> process.Finished:
        raise process.ProcessFailed(argv, code, "no")

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(EngineUnreachable) as caught:
        ssh.ask("ssh://far")
    assert what in caught.value.what
