"""What `invoke serve` starts: the image that was named or fits the cards, with the settings of fit and the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from images.cards import LocalMachine
from images.context import Context
from images.core import NoImageFits, NothingSelected, UsageError
from images.core.options import option
from images.docker import NO_CARDS, ContainerSpec, read_gpus, spec_by_way
from images.matrix import Arch, Variant
from images.render import PORT, VARIANT
from images.run.fit import (
    Fit,
    FitOptions,
    Model,
    check_on_cpu,
    check_visible,
    find_fit,
    find_variant,
    shell_note,
    unverified,
)
from images.run.serve.judge import check_count, judge_flags
from images.run.serve.make import CACHE_VOLUME, SERVED, Options, check_memory, make_spec, read_flags
from images.run.serve.opened import Opened
from images.run.serve.source import Source

if TYPE_CHECKING:
    from images.docker import Engine

# A first start fetches weights and compiles; the image's own health check gives up after 15 minutes and 6 tries.
WAIT = 1800


@dataclass(frozen=True)
class ServeOptions:
    """What `invoke serve` was asked. ``variant`` and ``image`` "": what fits the card; ``gpus`` "": all."""

    cards: Sequence[str] = option(
        "serve as for this card, or '2 x NAME', instead of the cards of this machine; repeat", (), flag="card"
    )
    flags: Sequence[str] = option(
        "a flag of the server, such as '--max-model-len 4096'; wins over fit's; repeat", (), flag="flag"
    )
    env: Sequence[str] = option("NAME=VALUE for the server; repeat", ())
    allow_host: Sequence[str] = option("a name that the server may be asked by, '*' for every one; repeat", ())
    allow_media_domain: Sequence[str] = option(
        "a host that pictures may be fetched from by their address, '*' for every public one; repeat", ()
    )
    model: str = option("3b-awq and its like, a repository OWNER/NAME, or a model's folder", "")
    config: str = option("the config.json of --model, where no hub is reached", "")
    variant: str = option("this image instead of the card's own, such as the one for the CPU", "")
    image: str = option("an image by its own name, instead of --variant", "")
    gpus: str = option("all, 2, device=0,1 or none, as docker takes it", "")
    memory: str = option("with --card: its memory in GB where it is another than it is sold with, such as 48", "")
    tp: int = option("this tensor parallel size", 0)
    pp: int = option("this pipeline parallel size", 0)
    host: str = option("the address to listen on; 0.0.0.0 for all", "127.0.0.1")
    port: int = option("the port to listen on", PORT)
    name: str = option("the container's name", "cardstock")
    served: str = option("what the API calls the model", "")
    cache: str = option("the volume or folder for what is fetched and compiled", CACHE_VOLUME)
    restart: str = option("always, unless-stopped, on-failure or no", "always")
    memory_limit: str = option("the container's memory, such as 24g, or none; without it what fit sums up", "")
    video: int = option("videos in one request; without it none is taken", 0)
    driver: str = option("with --card: its driver", "")
    wait: int = option("seconds until it must be healthy", WAIT)
    source: str = option(
        "the repository whose compiled code is used where it fits (or $CARDSTOCK_REPOSITORY)", "", flag="from"
    )
    key: str = option("a public key (cosign.pub) that compiled code must be signed by", "", flag="verify-key")
    identity: str = option(
        "a regular expression on the CI workflow that must have signed it instead", "", flag="verify-identity"
    )
    artifact: str = option("use the compiled code in this file, which ./inv warm --out wrote", "")
    unsigned_artifact: bool = option("use compiled code of --from that nobody has signed: it is code", False)
    no_artifact: bool = option("look for no compiled code", False)
    from_modelscope: bool = option("fetch the model from ModelScope (as VLLM_USE_MODELSCOPE=1)", False)
    detach: bool = option("do not wait until it is healthy", False)
    print: bool = option("print the docker line, start nothing", False)
    compose: bool = option("print a compose file, start nothing", False)
    kubernetes: bool = option("print a Deployment and a Service for Kubernetes, start nothing", False)
    out: str = option("with --kubernetes: write them to this folder, as a Kustomize base", "")
    stop: str = option("stop and remove the server of this name", "")
    logs: str = option("show the log of the server of this name", "")
    lines: int = option("with --logs: how many lines of its end", 200)


def plan(
    context: Context,
    options: ServeOptions,
    source: Source,
    model: Model,
    machine: LocalMachine | None,
    engine: Engine | None,
) -> ContainerSpec:
    """The container. Without ``engine`` it is not asked what an image named by ``--image`` is for."""
    variant, image = _image(context, options, engine)
    without = bool(options.gpus) and read_gpus(options.gpus) == NO_CARDS
    found: Fit | None = None
    if (variant is None or variant.archs) and engine is not None and not options.cards:
        refuse_cards_elsewhere(engine, "serve")
    if variant is None or variant.archs:
        found = _fit(context, options, model, variant, machine)
        variant = found.ask.variant
        for what in unverified(found):
            context.report.line(f"unverified: {what}")
        for what in judge_flags(found, read_flags(options.flags)):
            context.report.line(f"warning: {what}", "yellow")
        if without:
            context.report.line(
                "warning: --gpus none: the container is given no card, and its server needs one", "yellow"
            )
    else:
        check_on_cpu(model, variant)
    check_visible(variant, _environment(options.env), "--env")
    if found and not without:
        check_count(found.ask.count, _environment(options.env), "--env")
    if found and not options.cards and not options.gpus and (note := shell_note(variant, context.environment)):
        context.report.line(f"note: {note}", "yellow")
    how = Options(
        name=options.name,
        host=options.host,
        port=options.port,
        gpus=NO_CARDS if without else None,
        restart=options.restart,
        served=options.served,
        cache=options.cache,
        flags=options.flags,
        environment=context.environment,
        memory=options.memory_limit,
        video=options.video,
        opened=Opened(options.allow_host, options.allow_media_domain),
    )
    spec = make_spec(variant, image or f"{context.matrix.image}:{variant.id}", source, model, found, how)
    spec = replace(spec, env=tuple({**dict(spec.env), **_environment(options.env)}.items()))
    return spec_by_way(spec, "cdi") if options.gpus and read_gpus(options.gpus).cdi else spec


def refuse_cards_elsewhere(engine: Engine | None, command: str) -> None:
    """Raises UsageError where the engine is another machine's, whose cards nothing here can ask.

    A virtual machine behind a socket of this one (WSL2 has these cards) is left to who starts something on it.
    """
    if engine is None or engine.beside:
        return
    raise UsageError(
        f"which cards has the engine's machine ({engine.endpoint})?",
        cause="an engine does not tell them, and those of this machine are not its",
        do=f"./inv {command} --card NAME --driver VERSION (there: nvidia-smi), or type it on that machine",
    )


def _environment(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if not pair.partition("=")[1]:
            raise UsageError(f"--env {pair!r} has no '='", do="--env NAME=VALUE")
    return dict(pair.partition("=")[::2] for pair in pairs)


def _image(context: Context, options: ServeOptions, engine: Engine | None) -> tuple[Variant | None, str]:
    """The variant and the image that were named; None for what fits the card."""
    if options.variant and options.image:
        raise UsageError("--variant and --image exclude each other", do="name one")
    if options.variant:
        return find_variant(context.variants, options.variant), ""
    if not options.image:
        return None, ""
    # An image of a registry says by its tag what it is; one that is here, by its label.
    facts = engine.inspect(options.image) if engine else None
    told = facts.labels.get(VARIANT, "") if facts else options.image.partition("@")[0].rpartition(":")[2]
    variant = context.variants.named(told)
    if variant is None:
        raise UsageError(
            f"{options.image} is no image of this matrix" if facts or not engine else f"{options.image} is not here",
            do=f"docker pull {options.image}"
            if engine and not facts
            else "name one whose tag is a variant's id, or --variant",
        )
    return variant, options.image


def _fit(
    context: Context, options: ServeOptions, model: Model, variant: Variant | None, machine: LocalMachine | None
) -> Fit:
    here = machine or (LocalMachine() if options.cards else context.machine)
    if not options.cards and not here.cards and variant is None:
        cpu = next(v.id for v in context.variants.valid.values() if not v.archs)
        raise NoImageFits(
            "this machine has no card to serve on",
            cause=here.why,
            do=f"--variant {cpu} serves on the CPU; --card NAME --print says how it is done on another machine",
        )
    asked = FitOptions(
        options.model,
        options.cards,
        gpus="" if options.gpus and read_gpus(options.gpus) == NO_CARDS else options.gpus,
        memory=options.memory,
        driver=options.driver,
        variant=variant.id if variant else "",
        tp=options.tp,
        pp=options.pp,
        video=options.video,
    )
    return find_fit(context, asked, here, model)


def check_here(context: Context, spec: ContainerSpec, source: Source, model: Model) -> None:
    """Raises NothingSelected where the image is not on the engine, UsageError or NoImageFits for what it cannot do."""
    engine = context.engine
    if engine.inspect(spec.image) is None:
        wanted = find_variant(context.variants, dict(spec.labels)[SERVED])
        others = _others(context, engine, wanted)
        also = f"; or one that is here: --variant {others[0]}" if others else ""
        # Nobody publishes images with all of NVIDIA's libraries.
        pull = "" if wanted.whole_of else f", or ./inv pull --from REPO --name {wanted.id}"
        raise NothingSelected(f"{spec.image} is not here", do=f"./inv build {wanted.selector}{pull}{also}")
    if source.folder and not engine.beside:
        raise UsageError(
            f"the engine runs on another machine ({engine.endpoint}), and {source.folder} is on this one",
            do="--model OWNER/NAME, or type this on that machine",
        )
    if spec.gpus == NO_CARDS:
        check_memory(model, engine.host().memory)


def _others(context: Context, engine: Engine, wanted: Variant) -> list[str]:
    """Variants whose images are here and run the wanted one's cards."""
    tags = {tag.rpartition(":")[2] for facts in engine.images(VARIANT) for tag in facts.tags}
    return [one.id for one in context.variants.valid.values() if one.id in tags and _covers(one.archs, wanted.archs)]


def _covers(archs: Sequence[Arch], cards: Sequence[Arch]) -> bool:
    return bool(cards) and all(any(own.runs_on(card) for own in archs) for card in cards)
