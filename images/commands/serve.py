"""`invoke serve`: a server started on this machine, or printed as a docker line or compose file; its log; its end."""

from __future__ import annotations

import io
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from images.advisories import table
from images.cards import LocalMachine
from images.catalogue import image_by_name
from images.commands.options import command
from images.commands.pull import PublisherOptions
from images.context import REPOSITORY, Context
from images.core import Report, UsageError, default_layout, print_out, write_atomically
from images.distribution import pull as pulling
from images.docker import (
    NO_CARDS,
    ContainerSpec,
    PublishedPort,
    compose,
    docker_line,
    spec_by_way,
    ssh_address,
)
from images.run.fit import Model, read_model
from images.run.serve import (
    SERVED,
    WAIT,
    Place,
    ServeOptions,
    Source,
    asked_model,
    bring,
    check_here,
    find_source,
    kubernetes,
    model_name,
    modelscope,
    plan,
    printed_source,
)
from images.run.serve import start as starting

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# The Kustomize base that `./inv render` writes, from the root of a checkout.
EXAMPLE, EXAMPLE_MODEL, EXAMPLE_CARD = "examples/kubernetes", "3b-awq", "T4"


@command("serve --model 3b-awq")
def serve(context: Context, options: ServeOptions) -> None:
    """Serve a model on the cards of this machine with the fitted settings; or print how, stop it, show its log."""
    if options.stop:
        stop_server(context, options.stop)
    elif options.logs:
        show_log(context, options.logs, options.lines)
    else:
        start_server(context, options)


def start_server(context: Context, options: ServeOptions, machine: LocalMachine | None = None) -> None:
    """Start the server and wait for its health, or print how to; ``machine`` stands in for this one.

    Raises UsageError (2), NothingSelected (3) where the image is not here, NoImageFits (4), CheckFailed (1) where it
    does not get healthy.
    """
    if not options.model:
        raise UsageError("which model?", do="./inv serve --model 3b-awq, OWNER/NAME, or a folder")
    if options.kubernetes:
        for_kubernetes(context, options, machine)
        return
    if options.out:
        raise UsageError("--out is for --kubernetes", do="write what is printed to a file: --compose > compose.yaml")
    only_printed = options.print or options.compose
    source = (printed_source if only_printed else find_source)(options.model)
    if options.from_modelscope or modelscope.wanted(context.environment):
        home = default_layout().home
        source = (modelscope.planned if only_printed else modelscope.source_of)(home, source, context.report)
    if not only_printed:
        context.require_engine()
    model = model_of(context, options, source)
    if only_printed:
        spec = plan(context, options, source, model, machine, None)
        spec = spec if options.cards or spec.gpus == NO_CARDS else spec_by_way(spec, context.way_to_cards)
        print_out(compose(spec) if options.compose else docker_line(spec), end="" if options.compose else "\n")
        return
    spec = plan(context, options, source, model, machine, context.engine)
    check_here(context, spec, source, model)
    tell_open_advisories(context, spec)
    if not options.no_artifact:
        bring(context, spec, source, options.config, place_of_compiled(context, options))
    start_and_wait(context, spec, options)


def for_kubernetes(context: Context, options: ServeOptions, machine: LocalMachine | None = None) -> None:
    """Print what `kubectl apply` takes, or write a Kustomize base; nothing is started, no engine asked.

    Raises UsageError (2) for what Kubernetes cannot have, NothingSelected (3) and RegistryFailure (6) of a repository.
    """
    if options.print or options.compose:
        raise UsageError("--kubernetes, --compose and --print exclude each other", do="name one")
    kubernetes.check_restart(options.restart)
    if options.image:
        kubernetes.check_digest(options.image)
    source = printed_source(options.model)
    model = model_of(context, options, source)
    spec = plan(context, options, source, model, machine, None)
    variant = context.variants.valid[dict(spec.labels)[SERVED]]
    spec = spec if options.image else replace(spec, image=published_image(context, options, variant.id))
    wait = options.wait if options.wait != WAIT else 0
    served = kubernetes.Served(spec, variant, model, bool(source.repository), context.environment, wait)
    if source.folder:
        context.report.line(f"{source.folder} must be a folder of the node that the pod runs on")
    if not options.out:
        print_out(kubernetes.manifest(served), end="")
    else:
        for name, text in kubernetes.kustomize_base(served).items():
            write_atomically(Path(options.out).expanduser() / name, text)
            context.report.line(f"wrote {Path(options.out) / name}")
    context.report.next_command(kubernetes.make_secret(served), "once: the key that clients must send")
    apply = f"kubectl apply -k {shlex.quote(options.out)}" if options.out else "kubectl apply -f FILE"
    context.report.next_command(apply)


def example_base(context: Context) -> dict[str, str]:
    """The base in `EXAMPLE`, path -> text: one model for one card, as the command writes it, its image left open."""
    options = ServeOptions(model=EXAMPLE_MODEL, cards=(EXAMPLE_CARD,))
    source = printed_source(options.model)
    model = read_model(options.model)
    quiet = replace(context, report=Report(io.StringIO(), io.StringIO(), live=False), environment={})
    spec = plan(quiet, options, source, model, LocalMachine(), None)
    variant = context.variants.valid[dict(spec.labels)[SERVED]]
    served = kubernetes.Served(spec, variant, model, bool(source.repository), {})
    told = (
        f"# Made by ./inv render: ./inv serve --kubernetes --model {EXAMPLE_MODEL} --card {EXAMPLE_CARD} --out FOLDER\n"
        "# Which image a node pulls is said on top of it (docs/serve.md#kubernetes):\n"
        f"#     images: [{{name: {context.matrix.image}, newName: REPO, digest: 'sha256:…'}}]\n"
    )
    return {f"{EXAMPLE}/{name}": text for name, text in kubernetes.kustomize_base(served, told).items()}


def published_image(context: Context, options: ServeOptions, variant: str) -> str:
    """The published image of a variant: its tag for people, its digest for nodes. Raises as `pull` does."""
    if not options.source and not context.environment.get(REPOSITORY):
        raise UsageError(
            "which image is a node to pull?",
            cause=f"{variant} has no registry's name yet",
            do="--from REPO (its catalogue has the digest), or --image REPO:VARIANT@sha256:DIGEST",
        )
    repository = context.named_repository(options.source, "--from")
    keys = PublisherOptions(source=options.source, key=options.key, identity=options.identity).keys(context)
    image = image_by_name(pulling.read(repository, keys), variant)
    pulling.verify(repository, image, keys)
    return f"{repository.name}:{variant}@{image.digest}"


def place_of_compiled(context: Context, options: ServeOptions) -> Place:
    """Where compiled code may come from. Raises UsageError.

    The repository that is only known by $CARDSTOCK_REPOSITORY is not asked where nothing of it could be used.
    """
    signed = options.key or options.identity
    name = options.source or (context.environment.get(REPOSITORY, "") if signed or options.unsigned_artifact else "")
    publisher = PublisherOptions(source=name, key=options.key, identity=options.identity)
    keys = publisher.keys(context) if name and signed else None
    return Place(context.repository(name) if name else None, keys, options.unsigned_artifact, options.artifact)


def tell_open_advisories(context: Context, spec: ContainerSpec) -> None:
    """A line on what is known of the image's open holes, before anything is started."""
    tag = spec.image.rpartition(":")[2]
    names = [name for name in context.variants.valid if tag == name or tag.startswith(f"{name}-")]
    if names and (line := table.open_line(context.assessments.of(context.variants.valid[max(names, key=len)]))):
        context.report.line(line, "yellow")


def model_of(context: Context, options: ServeOptions, source: Source) -> Model:
    """What is served, as fit sees it: from the folder, by name, or asked of the hub."""
    if source.folder and Path(source.folder).is_dir() and not options.config:
        return read_model(source.folder)
    return asked_model(options.model, context.environment, context.ca, context.report.line, options.config)


def start_and_wait(context: Context, spec: ContainerSpec, options: ServeOptions) -> None:
    """Start it, wait unless told not to, say how it is used. Raises as images/run/serve/start.py does."""
    engine, report = context.engine, context.report
    containers = engine.containers
    starting.check_free(containers, spec, local=engine.beside)
    try:
        with report.step(f"serve {model_name(spec)} by {spec.image}") as step:
            starting.start(containers, spec, context.environment)
            if not options.detach:
                starting.wait(containers, spec, options.wait, report.line)
                step.note("healthy")
    except KeyboardInterrupt:
        report.line(f"{spec.name} goes on: ./inv serve --logs {spec.name}, ./inv serve --stop {spec.name}")
        raise
    for line in how_to_use(spec, engine.endpoint if engine.embedded else "", "" if engine.beside else engine.endpoint):
        report.line(line)
    print_out(f"{spec.ports[0].url}/v1")


def how_to_use(spec: ContainerSpec, endpoint: str, elsewhere: str = "") -> list[str]:
    """What a person types next; ``endpoint`` is that of an engine that the docker CLI does not find by itself, and
    ``elsewhere`` that of one on another machine.
    """
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
    if port.host not in LOOPBACK and not key:
        out.append(f"anyone who reaches {port.host} may ask: set VLLM_API_KEY or CARDSTOCK_API_KEY for a key")
    if elsewhere:
        out.insert(0, reached(port, elsewhere))
    return [*out, f"export DOCKER_HOST={endpoint} for docker's own commands"] if endpoint else out


def reached(port: PublishedPort, engine: str) -> str:
    """How a port of the machine of an engine elsewhere is reached from here."""
    if port.host not in LOOPBACK:
        return (
            f"it listens on {port.host or 'all addresses'}, port {port.host_port}, of the engine's machine ({engine})"
        )
    forward = f"-L {port.host_port}:127.0.0.1:{port.host_port}"
    way = f"ssh {forward} {ssh_address(engine).typed}" if engine.startswith("ssh://") else f"ssh {forward} THAT_HOST"
    return f"it listens on the loopback of the engine's machine ({engine}); from here first: {way}"


def show_log(context: Context, name: str, lines: int) -> None:
    """The end of a server's log, to stdout. Raises as images/run/serve/start.py `ours` does."""
    from images.docker import connect

    containers = connect(start=False).containers
    state = starting.ours(containers, name)
    restarts = f", started again {state.restarts} times" if state.restarts else ""
    context.report.line(f"{name}: {state.status}{restarts}")
    sys.stdout.write(containers.log(name, lines))  # a server's own words


def stop_server(context: Context, name: str) -> None:
    """End a server and remove its container; the cache's volume stays."""
    from images.docker import connect

    with context.report.step(f"stop {name}") as step:
        ended = starting.stop(connect(start=False).containers, name)
        step.note("ended by itself" if ended.clean else f"exit code {ended.code}")
