"""Finding the engine: of DOCKER_HOST, of the docker CLI's context, a rootless one, else the embedded one, started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from images.core import EngineUnreachable, Layout, PrintLine, UsageError, default_layout
from images.docker import ssh
from images.docker.contexts import DEFAULT, VARIABLE, DockerContext, current_context, find_context
from images.docker.docker_py import API_SECONDS, SILENT, docker, translated
from images.docker.embedded import daemon as embedded
from images.docker.embedded import packages as home
from images.docker.engine import Engine


def connect(layout: Layout | None = None, *, start: bool = True, say: PrintLine = lambda _: None) -> Engine:
    """The engine of $DOCKER_HOST; else one that answers where engines do; else the embedded one, started if needed.

    Raises EngineUnreachable (with the reason and what to do) where there is none and ``start`` is off or fails.
    """
    layout = layout or default_layout()
    wanted = os.environ.get("DOCKER_HOST")
    if wanted and wanted != layout.endpoint:
        return _connect_wanted(wanted, layout)
    if not wanted:
        engine = _connect_usual(layout)
        if engine is not None:
            return engine
    if start:
        embedded.start(layout, say=say)
    elif embedded.engine_version(layout.socket) is None:
        raise EngineUnreachable(
            "no Docker engine answers", do="invoke engine --start, or set DOCKER_HOST", where=layout.endpoint
        )
    with translated("the embedded engine could not be reached", str(layout.log)):
        client = docker.DockerClient(layout.endpoint, timeout=API_SECONDS)
    environment = home.cli_env(layout)
    return Engine(client, layout.endpoint, layout=layout, embedded=True, environment=environment)


def require_engine(layout: Layout | None = None) -> None:
    """See that an engine answers, or that one could be started here; none is. Raises EngineUnreachable as `connect`."""
    layout = layout or default_layout()
    wanted = os.environ.get("DOCKER_HOST")
    if wanted and wanted != layout.endpoint:
        _connect_wanted(wanted, layout).close()
    elif (engine := None if wanted else _connect_usual(layout)) is not None:
        engine.close()
    elif embedded.engine_version(layout.socket) is None:
        home.can_carry(layout)


def reach(endpoint: str) -> Engine:
    """The engine at ``endpoint`` (unix://, tcp://, ssh://) or of a context of the docker CLI; none is started.

    Raises EngineUnreachable, UsageError for a context that there is not.
    """
    context = None if "://" in endpoint else find_context(endpoint)
    if context is None and "://" not in endpoint:
        raise UsageError(f"docker has no context {endpoint}", do="docker context ls, or an endpoint such as ssh://host")
    url = endpoint if context is None else context.endpoint
    if url.startswith(ssh.SCHEME):
        url = ssh.ask(url)
    try:
        client = _open(url, context.tls if context is not None else None)
    except SILENT as error:
        do = f"see that docker -H {url} info answers"
        raise EngineUnreachable(f"no engine answers at {endpoint}", cause=_deepest(error), do=do) from error
    return Engine(client, url, layout=default_layout())


def _open(url: str | None, tls: Any = None) -> docker.DockerClient:
    """A client of the engine at ``url``, with certificates, or of the environment; it has answered."""
    if url:
        own = {} if tls is None else {"tls": tls}
        client = docker.DockerClient(url, timeout=API_SECONDS, use_ssh_client=url.startswith(ssh.SCHEME), **own)
    else:
        client = docker.DockerClient.from_env(timeout=API_SECONDS, use_ssh_client=True, use_context=False)
    client.ping()
    return client


def _connect_wanted(wanted: str, layout: Layout) -> Engine:
    try:
        if wanted.startswith(ssh.SCHEME):
            return _by_ssh(wanted, layout)
        return Engine(_open(None), wanted, layout=layout)
    except SILENT as error:
        raise EngineUnreachable(
            f"the engine of DOCKER_HOST does not answer: {wanted}",
            cause=_deepest(error),
            do="start it, mend DOCKER_HOST, or unset it so that Cardstock looks for one or starts its own",
        ) from error


def _connect_usual(layout: Layout) -> Engine | None:
    """The engine of the docker CLI's current context (by default the system's socket), or a rootless one.

    Raises EngineUnreachable where a context that was chosen is gone or does not answer: no other engine is meant.
    """
    context = current_context(os.environ)
    if context.name != DEFAULT:
        return _of_context(context, layout)
    candidates: list[tuple[str | None, str]] = [(None, context.endpoint)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime, "docker.sock").exists():
        candidates.append((f"unix://{runtime}/docker.sock",) * 2)
    for url, endpoint in candidates:
        try:
            return Engine(_open(url), endpoint, layout=layout, environment={"DOCKER_HOST": url} if url else {})
        except SILENT as error:
            if _denied(error):
                raise _may_not(endpoint, error) from error
    return None


def _of_context(context: DockerContext, layout: Layout) -> Engine:
    try:
        if context.endpoint.startswith(ssh.SCHEME):
            return _by_ssh(context.endpoint, layout)
        client = _open(context.endpoint, context.tls)
        return Engine(client, context.endpoint, layout=layout, environment=context.environment())
    except SILENT as error:
        if _denied(error):
            raise _may_not(context.endpoint, error) from error
        raise EngineUnreachable(
            f"the engine of docker's context {context.name} does not answer: {context.endpoint}",
            cause=f"{_deepest(error)}; {context.named_by} names this context",
            do=f"start it, or take another: docker context ls, docker context use default (and unset {VARIABLE})",
        ) from error


def _by_ssh(endpoint: str, layout: Layout) -> Engine:
    """The engine behind ssh; who is started with its environment goes the same way."""
    url = ssh.ask(endpoint)
    return Engine(_open(url), endpoint, layout=layout, environment={"DOCKER_HOST": url})


def _may_not(endpoint: str, error: BaseException) -> EngineUnreachable:
    return EngineUnreachable(
        f"an engine is there, but this user may not use it: {endpoint}",
        cause=_deepest(error),
        do="join the docker group (usermod -aG docker USER, then log in anew), or use sudo",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those below it."""
    below: BaseException | None = error
    while below is not None:
        yield below
        below = below.__cause__ or below.__context__


def _denied(error: BaseException) -> bool:
    return any(isinstance(below, PermissionError) for below in _chain(error))


def _deepest(error: BaseException) -> str:
    chain = list(_chain(error))
    said = next((below for below in chain if isinstance(below, docker.errors.APIError) and below.explanation), None)
    return str(said.explanation).strip() if said is not None else str(chain[-1]) or type(chain[-1]).__name__
