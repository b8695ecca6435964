"""`invoke cluster`: hosts.yaml to files, or to a cluster that serves."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from images.commands.options import command
from images.context import Context
from images.core import Report, UsageError, print_out, read_file, to_text, write_atomically
from images.core.options import option
from images.run.cluster import (
    OWN_TOKEN,
    TOKEN,
    ClusterPlan,
    Host,
    Hosts,
    Node,
    check_cards,
    compose_file,
    fitted,
    kuberay_manifest,
    make_nodes,
    on_cpus,
    parse_hosts,
)
from images.run.fit import FitOptions, check_on_cpu, check_visible, find_fit, find_variant, unverified
from images.run.serve import Opened, asked_model, check_count, judge_flags, memory_of, read_flags, video_flag

JOIN = 600.0


@dataclass(frozen=True)
class ClusterOptions:
    """What `invoke cluster` was asked; ``image`` instead of the variant's own name."""

    flags: Sequence[str] = option(
        "a flag of the server, such as '--max-model-len 4096'; wins over fit's; repeat", (), flag="flag"
    )
    allow_host: Sequence[str] = option("a name that the server may be asked by, '*' for every one; repeat", ())
    allow_media_domain: Sequence[str] = option(
        "a host that pictures may be fetched from by their address, '*' for every public one; repeat", ()
    )
    hosts: str = option(
        "hosts.yaml: the machines, their addresses, network cards and cards (docs/cluster.md has an example)", ""
    )
    model: str = option("what to fit, such as 72b-awq, instead of hosts.yaml's", "")
    driver: str = option("the hosts' driver, instead of hosts.yaml's", "")
    config: str = option("the config.json of the model, where no hub is reached", "")
    variant: str = option("this image instead of the card's own", "")
    image: str = option("an image by its own name", "")
    memory_limit: str = option("each container's memory, such as 24g, or none; without it what fit sums up", "")
    video: int = option("videos in one request; without it none is taken", 0)
    tp: int = option("this tensor parallel size", 0)
    pp: int = option("this pipeline parallel size", 0)
    print: bool = option("print a compose file for each host, start nothing", False)
    kuberay: bool = option("a manifest for the KubeRay operator instead", False)
    out: str = option("write the files to this folder, start nothing", "")
    wait: int = option("seconds until it must be healthy", 1800)
    detach: bool = option("do not watch over it", False)
    stop: bool = option("stop and remove the cluster of these hosts", False)


@command("cluster --hosts hosts.yaml --print")
def cluster(context: Context, options: ClusterOptions) -> None:
    """Serve a model on several machines, through Ray and vLLM; or print or write how."""
    serve_on_hosts(context, options)


def serve_on_hosts(context: Context, options: ClusterOptions) -> None:
    """Print or write what would run on each host, or run it, and watch over it until Ctrl-C.

    Raises UsageError (2) for hosts.yaml, NoImageFits (4), EngineUnreachable (5), CheckFailed (1) for a cluster that
    does not come together.
    """
    hosts = read_hosts(options.hosts)
    nodes = make_nodes(hosts, plan(context, hosts, options))
    if options.print or options.kuberay or options.out:
        write_files(hosts, nodes, options, context.report)
        return
    run(context, hosts, nodes, options)


def read_hosts(name: str) -> Hosts:
    """The file. Raises UsageError where it is not there, or not right."""
    if not name:
        raise UsageError("which hosts?", do="./inv cluster --hosts hosts.yaml; docs/cluster.md has an example")
    do = "docs/cluster.md has an example of it"
    return parse_hosts(to_text(read_file(Path(name).expanduser(), do, most=1 << 20), name), name)


def plan(context: Context, hosts: Hosts, options: ClusterOptions) -> ClusterPlan:
    """What is served, as `fit` works it out for these hosts."""
    wanted = options.variant or hosts.variant
    model = options.model or hosts.model or hosts.folder
    if model == hosts.folder and not Path(model).exists():
        raise UsageError(
            f"{options.hosts} does not say what model is in {model}, and the folder is not on this machine",
            do="model: 72b-awq (or its like), or --model",
            where=options.hosts,
        )
    asked = (model, context.environment, context.ca, context.report.line, options.config)
    variant = find_variant(context.variants, wanted) if wanted else None
    if variant is not None and not variant.archs:
        flags = [*video_flag(options.video), *options.flags]
        served = asked_model(*asked)
        check_on_cpu(served, variant)
        made = on_cpus(hosts, served, variant.id, f"{context.matrix.image}:{variant.id}", flags)
        return _as_asked(made, options)
    nameless = [host.name for host in hosts.hosts if not host.card or not host.devices]
    if nameless:
        raise UsageError(
            f"{options.hosts} does not say card and devices of {', '.join(nameless)}",
            do="card: RTX 2080 Ti and devices: [0, 1]; or variant: with an image for the CPU",
            where=options.hosts,
        )
    check_cards(hosts, options.hosts)
    head = hosts.head
    words = FitOptions(
        model,
        [head.card],
        gpus=f"device={','.join(map(str, head.devices))}",
        memory=head.memory_text,
        nodes=len(hosts.hosts),
        driver=options.driver or hosts.driver,
        variant=wanted,
        tp=options.tp,
        pp=options.pp,
        video=options.video,
    )
    found = find_fit(context, words, model=asked_model(*asked), picking="devices: [{}]")
    check_visible(found.ask.variant, hosts.environment, options.hosts)
    check_count(found.ask.count, hosts.environment, options.hosts)
    for what in judge_flags(found, read_flags(options.flags)):
        context.report.line(f"warning: {what}", "yellow")
    for what in unverified(found):
        context.report.line(f"unverified: {what}")
    context.report.line(
        f"{found.ask.model.name} on {found.ask.cards}: tensor parallel {found.split.tp} x {found.split.pp} stages"
    )
    made = fitted(hosts, found, f"{context.matrix.image}:{found.ask.variant.id}", options.flags)
    return _as_asked(made, options)


def _as_asked(made: ClusterPlan, options: ClusterOptions) -> ClusterPlan:
    return replace(
        made,
        image=options.image or made.image,
        memory=memory_of(options.memory_limit, made.memory),
        opened=Opened(options.allow_host, options.allow_media_domain),
    )


def write_files(hosts: Hosts, nodes: tuple[Node, ...], options: ClusterOptions, report: Report) -> None:
    made = {"kuberay.yaml": kuberay_manifest(hosts, nodes)} if options.kuberay else {}
    made = made or {f"{node.host.name}.compose.yaml": compose_file(node) for node in nodes}
    for name, text in made.items():
        if options.out:
            write_atomically(Path(options.out).expanduser() / name, text)
            report.line(f"wrote {Path(options.out) / name}")
        else:
            print_out(f"# {name}\n{text}", end="" if len(made) == 1 else "\n")
    if options.kuberay:
        report.next_command("kubectl apply -f kuberay.yaml", "where the KubeRay operator runs")
    else:
        report.next_command(f"export {TOKEN}=$(openssl rand -hex 32)", "the same on all hosts")
        report.next_command("docker compose -f HOST.compose.yaml up -d", "on each host")


def run(context: Context, hosts: Hosts, nodes: tuple[Node, ...], options: ClusterOptions) -> None:
    """Start it, or end it; wait; watch."""
    from images.docker import reach
    from images.run.cluster import (
        Cluster,
        ClusterContainers,  # docker-py is slow to import, and --print needs none
        engines_of,
    )

    def containers_of(host: Host) -> ClusterContainers:
        return ClusterContainers(reach(host.engine) if host.engine else context.engine)

    report = context.report
    containers = engines_of(hosts, containers_of)
    # A key of this run's own where none is given: whoever reaches Ray's ports without one may run programs there.
    environment = {TOKEN: secrets.token_hex(OWN_TOKEN), **context.environment}
    whole = Cluster(hosts, nodes, containers, environment, report.line)
    if options.stop:
        report.line(f"{whole.remove()} containers removed")
        return
    with report.step("look at the hosts"):
        whole.check()
    with whole.or_remove():
        whole.start()
        with report.step("hosts join") as step:
            whole.wait_joined(JOIN)
            step.note(f"{len(hosts.hosts)} hosts, {sum(host.slots for host in hosts.hosts)} parts")
        with report.step("the server starts"):
            whole.wait_healthy(options.wait)
        whole.keep()
    report.line(f"serving at http://{hosts.head.address}:{hosts.port}/v1")
    report.next_command(f"./inv cluster --hosts {options.hosts} --stop")
    if options.detach:
        return
    report.line("watching over it; Ctrl-C leaves it running")
    whole.watch_over(options.wait)
