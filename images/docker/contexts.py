"""Contexts of the docker CLI: which one is meant, where its engine is. One that is gone is an error, as for the CLI."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images.core import CardstockError, EngineUnreachable, read_json
from images.docker.docker_py import docker

SYSTEM_SOCKET = "unix:///var/run/docker.sock"
DEFAULT = "default"
VARIABLE = "DOCKER_CONTEXT"


@dataclass(frozen=True)
class DockerContext:
    """A context: its name, its engine's address, who named it ("" for the default one), its certificates' folder."""

    name: str
    endpoint: str
    named_by: str = ""
    tls: Any = None
    certificates: str = ""

    def environment(self) -> dict[str, str]:
        """What leads the docker CLI, and whatever reads DOCKER_HOST alone, to the same engine."""
        if self.name == DEFAULT:
            return {}
        with_tls = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": self.certificates} if self.certificates else {}
        return {"DOCKER_HOST": self.endpoint, **with_tls}


def current_context(environment: Mapping[str, str]) -> DockerContext:
    """The context that the docker CLI would take: of $DOCKER_CONTEXT, else of its configuration, else the default one.

    Raises EngineUnreachable where it is gone, or cannot be read.
    """
    named = environment.get(VARIABLE, "").strip()
    name, by = (named, f"${VARIABLE}") if named else (_chosen(environment), "docker context use")
    if name == DEFAULT:
        return DockerContext(DEFAULT, SYSTEM_SOCKET)
    found = find_context(name, by, environment)
    if found is None:
        raise EngineUnreachable(
            f"docker has no context {name}, which {by} names",
            cause="it was removed, or belongs to another user's configuration",
            do=f"docker context ls, then docker context use default{f' and unset {VARIABLE}' if named else ''}",
            where=str(_meta(name, environment)),
        )
    return found


def find_context(name: str, named_by: str = "", environment: Mapping[str, str] | None = None) -> DockerContext | None:
    """The context of this name; None where there is none. Raises EngineUnreachable for one that cannot be read.

    Read here, as docker-py finds contexts only beside a config.json, which the CLI does not need for them.
    """
    if name == DEFAULT:
        return DockerContext(DEFAULT, SYSTEM_SOCKET, named_by)
    meta = _meta(name, environment)
    if not _is_file(meta):
        return None
    try:
        endpoint = read_json(meta)["Endpoints"]["docker"]
        host, unchecked = str(endpoint.get("Host") or SYSTEM_SOCKET), bool(endpoint.get("SkipTLSVerify"))
        folder = _folder(environment) / "contexts" / "tls" / _hashed(name) / "docker"
        tls = _certificates(folder, unchecked)
    except CardstockError as error:
        raise _unreadable(name, meta, error.cause or error.what) from error
    except (KeyError, TypeError, AttributeError, ValueError, OSError, docker.errors.DockerException) as error:
        raise _unreadable(name, meta, f"{type(error).__name__}: {error}") from error
    return DockerContext(name, host, named_by, tls, str(folder) if tls is not None else "")


def _unreadable(name: str, meta: Path, cause: str) -> EngineUnreachable:
    return EngineUnreachable(
        f"docker's context {name} cannot be read",
        cause=cause,
        do=f"docker context rm {name}, then make it anew; or docker context use default",
        where=str(meta),
    )


def _chosen(environment: Mapping[str, str]) -> str:
    """What `docker context use` has left in the CLI's configuration; one that cannot be read chooses nothing."""
    config = _folder(environment) / "config.json"
    if not _is_file(config):
        return DEFAULT
    with suppress(CardstockError, AttributeError):
        return str(read_json(config).get("currentContext") or DEFAULT)
    return DEFAULT


def _certificates(folder: Path, unchecked: bool) -> Any:
    """docker-py's TLS settings of a context's files: ca.pem, and cert.pem with key.pem; None where it has none."""
    ca, cert, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    if not any(path.is_file() for path in (ca, cert, key)):
        return None
    own = (str(cert), str(key)) if cert.is_file() or key.is_file() else None
    return docker.tls.TLSConfig(client_cert=own, ca_cert=str(ca) if ca.is_file() else None, verify=not unchecked)


def _folder(environment: Mapping[str, str] | None = None) -> Path:
    """The docker CLI's own folder."""
    named = (os.environ if environment is None else environment).get("DOCKER_CONFIG")
    return Path(named) if named else Path.home() / ".docker"


def _is_file(path: Path) -> bool:
    """False, too, in a folder that this user may not look into, such as root's own after `sudo -u` kept $HOME."""
    with suppress(OSError):
        return path.is_file()
    return False


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _meta(name: str, environment: Mapping[str, str] | None = None) -> Path:
    return _folder(environment) / "contexts" / "meta" / _hashed(name) / "meta.json"
