"""An engine behind ssh, asked once before docker-py is: what ssh and the other side say, as an error with its cause.

docker-py and the docker CLI speak to such an engine through `ssh HOST docker system dial-stdio`, again for each
connection. So ssh must get in without a question, and its own words go past both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from images.core import CardstockError, EngineUnreachable, Unsafe, UsageError, process

SCHEME = "ssh://"
# Seconds until a host that drops what it is sent is given up, and until all of the question is.
CONNECT, WHOLE = 15, 60.0
_DIAL = "docker system dial-stdio"
_PING = "GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
_ANSWERED = re.compile(r"HTTP/1\.[01] 200\b")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f:.]{2,45}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,100}")
# ssh's own failure; a shell's, of a program that it does not find; `process.run`'s, of one that does not end.
_SSH, _NOT_FOUND, _EXPIRED = 255, 127, 124


@dataclass(frozen=True)
class Address:
    """Where ssh goes: a host or the name of one in ~/.ssh/config, and what is said beside it."""

    host: str
    user: str = ""
    port: int = 0

    @property
    def typed(self) -> str:
        """As one types it after `ssh`."""
        return f"{f'-p {self.port} ' if self.port else ''}{f'{self.user}@' if self.user else ''}{self.host}"

    @property
    def words(self) -> list[str]:
        """As ssh takes it; a host is never taken for a flag."""
        return [
            *(["-l", self.user] if self.user else []),
            *(["-p", str(self.port)] if self.port else []),
            "--",
            self.host,
        ]


def ssh_address(endpoint: str) -> Address:
    """``ssh://[USER@]HOST[:PORT]``. Raises UsageError for anything else; a password in it is not told on."""
    try:
        parts = urlsplit(endpoint)
        host, user, port = parts.hostname or "", parts.username or "", parts.port or 0
        # urlsplit makes a host's name small; in ~/.ssh/config it may be written otherwise.
        at = parts.netloc.lower().find(host)
        host = parts.netloc[at : at + len(host)] if at >= 0 else host
    except ValueError:
        host = user = ""
        port, parts = 0, urlsplit("")
    if parts.password is not None:
        raise UsageError(
            f"ssh://{user}:…@{host}: an address with a password is not used",
            cause="it would stand in logs and in lists of processes",
            do=f"{SCHEME}{user}@{host}, and a key for it (ssh-keygen, ssh-copy-id {user}@{host})",
        )
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)) or rest:
        raise UsageError(
            f"{endpoint[:200]!r} is no address of an engine behind ssh", do="ssh://USER@HOST, ssh://HOST:22"
        )
    return Address(host, user, port)


def ask(endpoint: str) -> str:
    """See that the engine at ``ssh://…`` answers; the same address as docker-py wants it, with its port.

    docker-py takes 22 where none is said, also where ~/.ssh/config has another for this host. Raises EngineUnreachable
    with ssh's cause, UsageError, Unsafe.
    """
    address = ssh_address(endpoint)
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT}", "-T"]
    try:
        asked = process.run(["ssh", *options, *address.words, _DIAL], stdin=_PING, timeout=WHOLE, check=False)
    except process.ProcessFailed as error:
        if error.code == _EXPIRED:
            raise _silent(endpoint, address, f"no end after {WHOLE:g} s") from error
        raise EngineUnreachable(
            f"{endpoint} is reached by ssh, and there is none on this machine",
            cause=error.tail,
            do="apt-get install openssh-client, or use an endpoint tcp:// with TLS",
        ) from error
    if not _ANSWERED.match(asked.out):
        raise refused(endpoint, address, asked.code, asked.err or asked.out)
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{SCHEME}{f'{address.user}@' if address.user else ''}{host}:{address.port or _port(address)}"


def _port(address: Address) -> int:
    """The port that ssh's own settings have for a host (`ssh -G`)."""
    told = process.run(["ssh", "-G", *address.words], timeout=WHOLE, check=False).out
    found = re.search(r"^port (\d{1,5})$", told, re.MULTILINE)
    return int(found[1]) if found else 22


def _silent(endpoint: str, address: Address, cause: str) -> EngineUnreachable:
    return EngineUnreachable(
        f"{address.host} is not reached by ssh",
        cause=cause,
        do=f"see that ssh {address.typed} true works",
        where=endpoint,
    )


def refused(endpoint: str, address: Address, code: int, said: str) -> CardstockError:
    """What ssh, or docker on the other side, means by its exit code and its words."""
    cause = (
        "\n".join(line.strip() for line in said.splitlines()[-8:] if line.strip(" @\t\r"))[:1000] or f"exit code {code}"
    )
    if code == _SSH:
        return _by_ssh(endpoint, address, cause, said)
    there = f"on {address.host}"
    if code == _NOT_FOUND or re.search(r"docker: (command )?not found|not recognized as an internal", said):
        return EngineUnreachable(
            f"there is no docker {there}",
            cause=cause,
            do=f"install Docker's CLI there, or have it on the PATH that ssh {address.typed} 'echo $PATH' prints",
            where=endpoint,
        )
    if re.search(r"permission denied", said, re.IGNORECASE):
        return EngineUnreachable(
            f"an engine is {there}, but this user may not use it",
            cause=cause,
            do=f"there: usermod -aG docker {address.user or 'USER'}; then log in anew",
            where=endpoint,
        )
    return EngineUnreachable(
        f"no engine answers {there}",
        cause=cause,
        do=f"see what ssh {address.typed} docker info says, and start the engine there",
        where=endpoint,
    )


def _by_ssh(endpoint: str, address: Address, cause: str, said: str) -> CardstockError:
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return Unsafe(
            f"{address.host} has another key than it had",
            cause=cause,
            do=f"ask whoever runs it; if it is right: ssh-keygen -R {address.host}, then ssh {address.typed} true",
            where=endpoint,
        )
    if "Host key verification failed" in said:
        return EngineUnreachable(
            f"{address.host} is not known by its key yet",
            cause=cause,
            do=f"ssh {address.typed} true, and compare the key that it shows",
            where=endpoint,
        )
    if re.search(r"Permission denied|Too many authentication failures|No supported authentication", said):
        return EngineUnreachable(
            f"{address.host} does not let this user in",
            cause=cause,
            do=f"ssh-copy-id {address.typed}, or ssh-add; then ssh {address.typed} true must work without a question",
            where=endpoint,
        )
    if "Could not resolve hostname" in said:
        return EngineUnreachable(
            f"there is no host {address.host}", cause=cause, do="see its name, or ~/.ssh/config", where=endpoint
        )
    return _silent(endpoint, address, cause)
