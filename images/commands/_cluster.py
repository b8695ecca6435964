"""`invoke cluster`: hosts.yaml to files, or to a cluster that serves."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import Report, UsageError, write_atomically
from images.matrix import Matrix, Variants
from images.run.cluster import (
    OWN_TOKEN,
    TOKEN,
    ClusterPlan,
    Host,
    Hosts,
    Node,
    compose_file,
    fitted,
    kuberay_manifest,
    make_nodes,
    on_cpus,
    parse_hosts,
)
from images.run.fit import FitWords, find_fit, find_variant, read_model, unverified

JOIN = 600.0


@dataclass(frozen=True)
class ClusterWords:
    """What was typed; ``wait`` seconds until it must be healthy. ``image`` instead of the variant's own name."""

    hosts: str
    model: str = ""
    variant: str = ""
    image: str = ""
    tp: int = 0
    pp: int = 0
    flags: Sequence[str] = ()
    print: bool = False
    kuberay: bool = False
    out: str = ""
    stop: bool = False
    detach: bool = False
    wait: int = 1800


def cluster(
    matrix: Matrix, variants: Variants, words: ClusterWords, locked: Mapping[str, bool], report: Report
) -> None:
    """Print or write what would run on each host, or run it, and watch over it until Ctrl-C.

    Raises UsageError (2) for hosts.yaml, NoImageFits (4), EngineUnreachable (5), CheckFailed (1) for a cluster that
    does not come together.
    """
    hosts = read_hosts(words.hosts)
    nodes = make_nodes(hosts, plan(matrix, variants, hosts, words, locked, report))
    if words.print or words.kuberay or words.out:
        _files(hosts, nodes, words, report)
        return
    run(hosts, nodes, words, report)


def read_hosts(name: str) -> Hosts:
    """The file. Raises UsageError where it is not there, or not right."""
    if not name:
        raise UsageError("which hosts?", do="./inv cluster --hosts hosts.yaml; README.md has an example")
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}", do="README.md has an example of it") from error
    return parse_hosts(text, name)


def plan(
    matrix: Matrix, variants: Variants, hosts: Hosts, words: ClusterWords, locked: Mapping[str, bool], report: Report
) -> ClusterPlan:
    """What is served, as `fit` works it out for these hosts."""
    wanted = words.variant or hosts.variant
    model = words.model or hosts.model or hosts.folder
    if model == hosts.folder and not Path(model).exists():
        raise UsageError(
            f"{words.hosts} does not say what model is in {model}, and the folder is not on this machine",
            do="model: 72b-awq (or its like), or --model",
            where=words.hosts,
        )
    variant = find_variant(variants, wanted) if wanted else None
    if variant is not None and not variant.archs:
        made = on_cpus(hosts, read_model(model), variant.id, f"{matrix.image}:{variant.id}", words.flags)
        return _named(made, words.image)
    nameless = [host.name for host in hosts.hosts if not host.card or not host.devices]
    if nameless:
        raise UsageError(
            f"{words.hosts} does not say card and devices of {', '.join(nameless)}",
            do="card: RTX 2080 Ti and devices: [0, 1]; or variant: with an image for the CPU",
            where=words.hosts,
        )
    cards = list(dict.fromkeys(host.card for host in hosts.hosts))
    if len(cards) > 1:
        raise UsageError(
            f"the hosts have different cards: {', '.join(cards)}",
            cause="each part of the model gets the same share, so the smallest card decides and the others wait for it",
            do="make a cluster of each kind, or name the smallest card for all",
            where=words.hosts,
        )
    slots = hosts.head.slots
    asked = FitWords(model, cards, slots, len(hosts.hosts), hosts.driver, wanted, words.tp, words.pp)
    found = find_fit(matrix, variants, asked, locked, report)
    for what in unverified(found):
        report.line(f"unverified: {what}")
    report.line(
        f"{found.ask.model.name} on {found.ask.cards}: tensor parallel {found.split.tp} x {found.split.pp} stages"
    )
    return _named(fitted(hosts, found, f"{matrix.image}:{found.ask.variant.id}", words.flags), words.image)


def _named(made: ClusterPlan, image: str) -> ClusterPlan:
    return ClusterPlan(image or made.image, made.variant, made.split, made.flags, made.shm, made.served)


def _files(hosts: Hosts, nodes: tuple[Node, ...], words: ClusterWords, report: Report) -> None:
    made = {"kuberay.yaml": kuberay_manifest(hosts, nodes)} if words.kuberay else {}
    made = made or {f"{node.host.name}.compose.yaml": compose_file(node) for node in nodes}
    for name, text in made.items():
        if words.out:
            write_atomically(Path(words.out).expanduser() / name, text)
            report.line(f"wrote {Path(words.out) / name}")
        else:
            print(f"# {name}\n{text}", end="" if len(made) == 1 else "\n")
    if words.kuberay:
        report.next_command("kubectl apply -f kuberay.yaml", "where the KubeRay operator runs")
    else:
        report.next_command(f"export {TOKEN}=$(openssl rand -hex 32)", "the same on all hosts")
        report.next_command("docker compose -f HOST.compose.yaml up -d", "on each host")


def run(hosts: Hosts, nodes: tuple[Node, ...], words: ClusterWords, report: Report) -> None:
    """Start it, or end it; wait; watch."""
    from images.docker import connect, reach
    from images.run.cluster import (
        Cluster,
        ClusterContainers,  # docker-py is slow to import, and --print needs none
        engines_of,
    )

    def containers_of(host: Host) -> ClusterContainers:
        return ClusterContainers(reach(host.engine) if host.engine else connect(say=report.line))

    containers = engines_of(hosts, containers_of)
    # A key of this run's own where none is given: whoever reaches Ray's ports without one may run programs there.
    environment = {TOKEN: secrets.token_hex(OWN_TOKEN), **os.environ}
    whole = Cluster(hosts, nodes, containers, environment, report.line)
    if words.stop:
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
            whole.wait_healthy(words.wait)
        whole.keep()
    report.line(f"serving at http://{hosts.head.address}:{hosts.port}/v1")
    report.next_command(f"./inv cluster --hosts {words.hosts} --stop")
    if words.detach:
        return
    report.line("watching over it; Ctrl-C leaves it running")
    whole.watch_over(words.wait)
