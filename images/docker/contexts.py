"""Contexts of the docker CLI: which one is meant, where its engine is. One that is gone is an error, as for the CLI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.context.config import get_current_context_name

from images.core import EngineUnreachable
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
    name, by = (named, f"${VARIABLE}") if named else (str(get_current_context_name() or DEFAULT), "docker context use")
    if name == DEFAULT:
        return DockerContext(DEFAULT, SYSTEM_SOCKET)
    found = find_context(name, by)
    if found is None:
        raise EngineUnreachable(
            f"docker has no context {name}, which {by} names",
            cause="it was removed, or belongs to another user's configuration",
            do=f"docker context ls, then docker context use default{f' and unset {VARIABLE}' if named else ''}",
            where=_place(name),
        )
    return found


def find_context(name: str, named_by: str = "") -> DockerContext | None:
    """The context of this name; None where there is none. Raises EngineUnreachable for one that cannot be read."""
    try:
        found: Any = docker.ContextAPI.get_context(name)
        if found is None:
            return None
        endpoint, tls = str(found.Host or SYSTEM_SOCKET), found.TLSConfig
        folder = str(Path(str(found.tls_path)) / "docker") if tls is not None else ""
    except Exception as error:  # docker-py raises the bare class for a file that is no context
        raise EngineUnreachable(
            f"docker's context {name} cannot be read",
            cause=str(error) or type(error).__name__,
            do=f"docker context rm {name}, then make it anew; or docker context use default",
            where=_place(name),
        ) from error
    return DockerContext(name, endpoint, named_by, tls, folder)


def _place(name: str) -> str:
    from docker.context.config import get_meta_file

    return str(get_meta_file(name))
