"""`invoke doctor`: gather, judge, print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from images.commands.options import JSON, command, print_json
from images.context import REPOSITORY, Context
from images.core import CheckFailed
from images.core.options import option
from images.run.doctor import CheckState, advise, check_facts, doctor_json, gather_facts, healthy

STYLES: Mapping[CheckState, str] = {"ok": "green", "warning": "yellow", "wrong": "red"}
HUB = "registry-1.docker.io"  # what an image name without a host means


def registry_hosts(names: Sequence[str]) -> list[str]:
    """The hosts of these images, repositories or hosts, each once."""
    heads = [name.partition("/")[0] for name in names]
    return list(dict.fromkeys(_host(head) for head in heads))


def _host(head: str) -> str:
    """A name's first part, where it is a host: "debian:bookworm" and "library" are the default registry's."""
    name, _, port = head.partition(":")
    return head if "." in name or name == "localhost" or port.isdigit() else HUB


@dataclass(frozen=True)
class DoctorOptions:
    """What `invoke doctor` was asked."""

    registry: Sequence[str] = option("also see whether this registry (or repository) answers", ())
    json: bool = option(JSON, False)


@command("doctor --registry registry.example.com/team/qwen")
def doctor(context: Context, options: DoctorOptions) -> None:
    """This machine: cards, driver, engine, GPU runtime, disk, memory, network: what is wrong, what to do, what fits."""
    examine_machine(context, options)


def examine_machine(context: Context, options: DoctorOptions) -> None:
    """Look at this machine and say how it is. Raises CheckFailed where something is wrong.

    The first of the registries that is no bare host, or $CARDSTOCK_REPOSITORY, is what would be pulled from.
    """
    matrix, report = context.matrix, context.report
    named = [*options.registry, *filter(None, [context.environment.get(REPOSITORY)])]
    bases = () if context.checkout.installed else matrix.bases.values()
    hosts = registry_hosts([*(base.image for base in bases), *named])
    facts = gather_facts(context.checkout.settings, hosts)
    builds = not context.checkout.installed
    found = check_facts(facts, matrix, builds=builds)
    repository = next((name for name in named if "/" in name), "")
    advice = advise(facts, matrix, context.variants, context.locked, repository, builds=builds)
    if options.json:
        print_json(doctor_json(found, advice))
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            report.line(f"{one.state:8}{one.name:{width}}  {one.what}", STYLES[one.state])
            if one.do and one.state != "ok":
                report.line(f"{'':8}{'':{width}}  do: {one.do}")
        if not healthy(found):
            report.line("once what is wrong above is mended:")
        for line in advice.lines:
            report.line(line)
        report.next_command(advice.command)
    if not healthy(found):
        wrong = [one.name for one in found if one.state == "wrong"]
        raise CheckFailed(f"wrong: {', '.join(wrong)}", do="what the lines above say" if not options.json else "")
