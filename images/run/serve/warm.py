"""A server started with an empty cache, asked once, stopped: what it has compiled is kept by its key.

Everything is as `invoke serve` would start it; only its name, its port and its cache are its own.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from images.compiled import PYTHON, CompiledStore, Kept, default_store, keep
from images.context import Context
from images.core import CardstockError, CheckFailed
from images.docker import NO_CARDS, STOP_TIMEOUT, run_labels
from images.proof.tiny_model import picture
from images.render import PORT
from images.run.fit import read_model
from images.run.serve import start as starting
from images.run.serve.asked import asked_model
from images.run.serve.compiled import wanted_key
from images.run.serve.make import API_KEYS, SERVED, model_name
from images.run.serve.pick import ServeOptions, check_here, plan
from images.run.serve.source import find_source

NAME = "cardstock-warm"
# In the container, so that it does as well with an engine on another machine. A dot now and then: docker's connection
# ends where nothing is said for two minutes, and a first answer may compile for longer.
_ASK = """
import sys, threading, urllib.error, urllib.request
done = threading.Event()
def dots():
    while not done.wait(10):
        print(".", file=sys.stderr, flush=True)
threading.Thread(target=dots, daemon=True).start()
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
try:
    with urllib.request.urlopen(request, timeout=1200) as answer:
        print(answer.read(1 << 20).decode(errors="replace"))
except urllib.error.HTTPError as error:
    print(error.code, error.read(1 << 16).decode(errors="replace"))
    sys.exit(1)
finally:
    done.set()
"""


@dataclass(frozen=True)
class Warmed:
    """What was kept, and the seconds from the container's start until it was healthy."""

    kept: Kept
    seconds: float


def question(model: str) -> dict[str, object]:
    """A greedy request with a picture and a text, and an answer of a few tokens."""
    png = picture.png("red", 140, 112)  # 63 kB: an argument of a program has 128 at most
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What colour is the square?"},
    ]
    return {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 8, "temperature": 0}


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without a key that clients would have to send: it listens on loopback, for one request."""
    return {name: value for name, value in environment.items() if name not in API_KEYS.values()}


def warm(context: Context, options: ServeOptions, store: CompiledStore | None = None) -> Warmed:
    """Start it, ask it, stop it, keep what it has compiled. ``options`` are those that it will be served with.

    Raises what `invoke serve` does where it cannot be started, CheckFailed where it does not answer or has compiled
    nothing. Container and cache are gone at the end.
    """
    engine, report = context.engine, context.report
    containers = engine.containers
    run = uuid.uuid4().hex[:12]
    name = f"{NAME}-{run}"
    inner = replace(context, environment=without_keys(context.environment))
    options = replace(options, name=name, cache=name, port=starting.free_port(), restart="no", host="127.0.0.1")
    source = find_source(options.model)
    model = (
        read_model(source.folder)
        if source.folder and not options.config
        else asked_model(options.model, inner.environment, inner.ca, report.line, options.config)
    )
    spec = plan(inner, options, source, model, None, engine)
    check_here(inner, spec, source, model)
    key = wanted_key(inner, spec, source, options.config)
    variant = dict(spec.labels)[SERVED]
    facts = engine.inspect(spec.image)
    labels = run_labels(run)
    served = replace(spec, labels=tuple(labels.items()))
    try:
        containers.make_volume(name, labels)
        with report.step(f"compile: {source.name} by {spec.image}, empty caches") as step:
            starting.start(containers, served, inner.environment)
            seconds = starting.wait(containers, served, options.wait, report.line)
            step.note(f"healthy after {seconds:.1f} s")
        with report.step("one request"):
            _ask(context, name, model_name(spec))
        containers.stop(name, STOP_TIMEOUT)
        driver = "" if spec.gpus == NO_CARDS else context.machine.driver
        with report.step("keep what it has compiled") as step:
            kept = keep(
                engine, name, key, store or default_store(),
                id=facts.id if facts else "", variant=variant, called=source.name, driver=driver,
                seconds=round(seconds, 1),
            )  # fmt: skip
            step.note(f"{kept.record.files} files")
            step.size(kept.record.size)
    finally:
        with suppress(CardstockError):
            if containers.find(name):
                containers.remove(name)
        with suppress(CardstockError):
            containers.remove_volume(name)
    return Warmed(kept, seconds)


def _ask(context: Context, container: str, model: str) -> None:
    """One request, from inside. Raises CheckFailed where it is not answered."""
    body = json.dumps(question(model))
    url = f"http://127.0.0.1:{PORT}/v1/chat/completions"
    code, text = context.engine.containers.execute(container, [PYTHON, "-I", "-c", _ASK, url, body])
    told = text.strip().splitlines()
    try:
        answered = code == 0 and bool(json.loads(told[-1])["choices"])
    except (ValueError, LookupError, TypeError):
        answered = False
    if not answered:
        raise CheckFailed(
            f"{container} did not answer a picture and a text",
            cause=" ".join(told[-3:])[:600] or f"exit code {code}",
            do="./inv serve it, and look at its log",
        )
