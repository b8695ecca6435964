"""`invoke serve`: words to a server that answers; or its docker line or compose file; or a server's log or its end."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from images.cards import LocalMachine
from images.core import CardstockError, Report, UsageError, default_layout
from images.docker import ContainerSpec, compose, docker_line
from images.run.fit import Model, from_config, named, read_model
from images.run.serve import (
    ServeWords,
    Shop,
    Source,
    check_here,
    find_source,
    model_name,
    modelscope,
    plan,
    read_config,
)
from images.run.serve import start as starting

if TYPE_CHECKING:
    from images.docker import Engine


def serve(shop: Shop, words: ServeWords, report: Report, machine: LocalMachine | None = None) -> None:
    """Start the server and wait for its health, or print how to; ``machine`` stands in for this one.

    Raises UsageError (2), NothingSelected (3) where the image is not here, NoImageFits (4), CheckFailed (1) where it
    does not get healthy.
    """
    if not words.model:
        raise UsageError("which model?", do="./inv serve --model 3b-awq, OWNER/NAME, or a folder")
    only_told = words.print or words.compose
    source = find_source(words.model)
    if words.from_modelscope or modelscope.wanted(os.environ):
        home = default_layout().home
        source = (modelscope.planned if only_told else modelscope.source_of)(home, source, report)
    model = _model(words.model, source, shop.ca)
    if only_told:
        spec = plan(shop, words, source, model, report, machine, None)
        print(compose(spec) if words.compose else docker_line(spec), end="" if words.compose else "\n")
        return
    from images.docker import connect

    engine = connect(say=report.line)
    spec = plan(shop, words, source, model, report, machine, engine)
    check_here(shop, engine, spec, source, model)
    run(engine, spec, words, report)


def _model(text: str, source: Source, ca: Path | None) -> Model:
    """What is served, as fit sees it: from the folder, by name, or asked of the hub."""
    if source.folder and Path(source.folder).is_dir():
        return read_model(source.folder)
    repository = source.repository or source.name
    return named(text) or from_config(read_config(repository, os.environ, ca), repository)


def run(engine: Engine, spec: ContainerSpec, words: ServeWords, report: Report) -> None:
    """Start it, wait unless told not to, say how it is used. Raises as images/run/serve/start.py does."""
    containers = engine.containers
    starting.check_free(containers, spec, local=engine.endpoint.startswith(("unix://", "npipe://")))
    try:
        with report.step(f"serve {model_name(spec)} by {spec.image}") as step:
            starting.start(containers, spec, os.environ, kept=words.detach)
            if not words.detach:
                starting.wait(containers, spec, words.wait, report.line)
                step.note("healthy")
    except KeyboardInterrupt:
        with suppress(CardstockError):
            starting.keep(containers, spec)
        report.line(f"{spec.name} goes on: ./inv serve --logs {spec.name}, ./inv serve --stop {spec.name}")
        raise
    for line in told(spec, engine.endpoint if engine.embedded else ""):
        report.line(line)
    print(f"{spec.ports[0].url}/v1")


def told(spec: ContainerSpec, endpoint: str) -> list[str]:
    """What a person types next; ``endpoint`` is that of an engine that the docker CLI does not find by itself."""
    (port,) = spec.ports
    question = json.dumps({"model": model_name(spec), "messages": [{"role": "user", "content": "Hello"}]})
    key = any(name.endswith("_API_KEY") for name in spec.passed)
    words = ["curl", f"{port.url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    words += ["-H", "Authorization: Bearer YOUR_KEY"] if key else []
    out = [
        f"ask: {shlex.join([*words, '-d', question])}",
        f"metrics: {port.url}/metrics",
        f"log: ./inv serve --logs {spec.name}",
        f"stop: ./inv serve --stop {spec.name}",
    ]
    if port.host not in ("127.0.0.1", "localhost", "::1") and not key:
        out.append(f"anyone who reaches {port.host} may ask: set VLLM_API_KEY or CARDSTOCK_API_KEY for a key")
    return [*out, f"export DOCKER_HOST={endpoint} for docker's own commands"] if endpoint else out


def logs(name: str, lines: int, report: Report) -> None:
    """The end of a server's log, to stdout. Raises as images/run/serve/start.py `ours` does."""
    from images.docker import connect

    containers = connect(start=False).containers
    found = starting.ours(containers, name)
    report.line(f"{name}: {found.status}" + (f", started again {found.restarts} times" if found.restarts else ""))
    print(containers.log(name, lines), end="")


def stop(name: str, report: Report) -> None:
    """End a server and remove its container; the cache's volume stays."""
    from images.docker import connect

    with report.step(f"stop {name}") as step:
        ended = starting.stop(connect(start=False).containers, name)
        step.note("ended by itself" if ended.clean else f"exit code {ended.code}")
