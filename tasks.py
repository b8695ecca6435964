"""Cardstock's tasks: parse flags, call one function, print. `./inv --list` shows them, `./inv --help TASK` explains."""

from __future__ import annotations

from functools import partial

from invoke.tasks import task

from images import commands

ARCH = {"arch": "compute capability, such as 7.5; repeat for more images; '7.0 7.5' is one image for both"}
SELECT = ARCH | {
    "card": "a card's name, such as 'RTX 2080 Ti'; repeat for more images; 'T4, RTX 4090' is one image for both",
    "cuda": "CUDA version of the stack, such as 12.4",
    "attention": "flash-attn, xformers or sdpa",
    "only": "glob on variant ids; repeat for more",
    "all": "every variant that the other selectors allow, not only the recommended one",
    "debug": "show the traceback of an error",
}
LISTS = ["arch", "only", "card"]
WHEELS = {"wheels": "a registry's repository with kernel wheels: fetched before anything is compiled"}
JSON = {"json": "machine-readable, on stdout alone"}


@task(iterable=LISTS, help=SELECT | JSON)
def plan(c, arch, only, card, cuda="", attention="", all=False, json=False, debug=False):
    """What would be built, and in what state it is."""
    commands.run(lambda: commands.plan(commands.Words(arch, cuda, attention, only, all, card), json), debug)


@task(iterable=LISTS, help=SELECT | JSON)
def explain(c, arch, only, card, cuda="", attention="", all=False, json=False, debug=False):
    """Every combination left out: the rule, its reason and source, the nearest one that can be."""
    commands.run(lambda: commands.explain(commands.Words(arch, cuda, attention, only, all, card), json), debug)


@task(help={"check": "write nothing, fail on a difference"})
def render(c, check=False, debug=False):
    """Dockerfiles, docker-bake.json and the schema, from matrix.yaml."""
    commands.run(lambda: commands.render(check), debug)


@task(help={"stack": "one stack only, such as cu124; or kernels", "check": "write nothing, show the states"})
def lock(c, stack="", check=False, debug=False):
    """Exact versions and hashes for the stacks whose indexes can be reached."""
    commands.run(lambda: commands.lock(stack, check), debug)


@task(
    iterable=LISTS,
    help=SELECT
    | WHEELS
    | {"dry-run": "print the bake plan, touch nothing", "no-smoke": "do not prove", "gpus": "prove on cards: all"},
)
def build(
    c,
    arch,
    only,
    card,
    cuda="",
    attention="",
    all=False,
    dry_run=False,
    no_smoke=False,
    gpus="",
    wheels="",
    debug=False,
):
    """Build, prove and tag images; what is up to date is left alone."""
    words = commands.Words(arch, cuda, attention, only, all, card)
    action = partial(commands.build, words, dry_run=dry_run, smoke=not no_smoke, gpus=gpus or None, wheels=wheels)
    commands.run(action, debug)


@task(
    iterable=LISTS,
    help=SELECT
    | JSON
    | WHEELS
    | {
        "list": "only say where each wheel is",
        "export": "copy the wheels to this folder, for pip",
        "push": "write them to the repository of --wheels",
        "dry-run": "say where each would come from",
    },
)
def kernels(
    c,
    arch,
    only,
    card,
    cuda="",
    attention="",
    all=False,
    list=False,
    export="",
    wheels="",
    push=False,
    dry_run=False,
    json=False,
    debug=False,
):
    """Attention wheels built from source, by key: list, make, export, push them; --only takes their ids too."""
    words = commands.Words(arch, cuda, attention, only, all, card)
    action = partial(commands.kernels, words, list_only=list, export=export, wheels=wheels, push=push)
    commands.run(partial(action, dry_run=dry_run, json=json), debug)


@task(
    iterable=LISTS,
    help=SELECT
    | JSON
    | {"image": "this image instead of the selected ones", "model": "also ask a real checkpoint", "gpus": "all"},
)
def smoke(c, arch, only, card, cuda="", attention="", all=False, image="", model="", gpus="", json=False, debug=False):
    """Prove images: stack, canary, server."""
    words = commands.Words(arch, cuda, attention, only, all, card)
    commands.run(lambda: commands.smoke(words, image or None, model or None, gpus or None, json), debug)


@task(
    iterable=LISTS,
    help=SELECT
    | WHEELS
    | JSON
    | {
        "to": "the repository, such as registry.example.com/team/qwen (or $CARDSTOCK_REPOSITORY)",
        "key": "sign with this private key of cosign's; its password is $COSIGN_PASSWORD",
        "keyless": "sign by the identity of this CI job",
        "zstd": "layers as zstd (engines of 2023 and later) instead of gzip",
        "gpus": "prove on cards (all), also what is published already",
        "rollback": "move the moving tags back to the image before",
        "dry-run": "say what is published and what would be, touch nothing",
    },
)
def publish(
    c,
    arch,
    only,
    card,
    cuda="",
    attention="",
    all=False,
    to="",
    key="",
    keyless=False,
    zstd=False,
    gpus="",
    wheels="",
    rollback=False,
    dry_run=False,
    json=False,
    debug=False,
):
    """Build, push by digest, prove, sign, and only then let tags and the catalogue name the images."""
    words = commands.Words(arch, cuda, attention, only, all, card)
    how = {"to": to, "key": key, "keyless": keyless, "zstd": zstd, "gpus": gpus, "wheels": wheels}
    how |= {"dry_run": dry_run, "json": json}
    commands.run(partial(commands.publish, words, how, rollback=rollback), debug)


@task(
    iterable=["card"],
    help=JSON
    | {
        "card": "a card's name; repeat for the cards of one machine; without it, this machine's own",
        "driver": "its driver, such as 535.104",
        "from": "the repository, such as registry.example.com/team/qwen (or $CARDSTOCK_REPOSITORY)",
        "name": "the image of this tag instead, such as a variant's id",
        "verify-key": "a public key (cosign.pub) that the catalogue and the image must be signed by",
        "verify-identity": "a regular expression on the CI workflow that must have signed them instead",
        "save": "write the catalogue to this file",
        "offline": "use a saved catalogue; asks and pulls nothing",
        "dry-run": "find and verify, pull nothing",
    },
)
def pull(
    c,
    card,
    driver="",
    from_="",
    name="",
    verify_key="",
    verify_identity="",
    save="",
    offline="",
    dry_run=False,
    json=False,
    debug=False,
):
    """The published image for a card: found, verified, pulled by digest; prints the command that runs it."""
    found = {"cards": card, "driver": driver, "source": from_, "name": name, "save": save, "offline": offline}
    signed = {"key": verify_key, "identity": verify_identity}
    commands.run(partial(commands.pull, **found, **signed, dry_run=dry_run, json=json), debug)


@task(
    positional=["target"],
    iterable=["arch"],
    help=JSON | {"arch": "a card that all of it must run on; repeat", "record": "keep a wheel's audit for the README"},
)
def audit(c, target, arch, json=False, record=False, debug=False):
    """Which cards an image, container, wheel, folder or library really runs on; nothing of it is run."""
    commands.run(lambda: commands.audit(target, arch, json, record), debug)


@task(
    iterable=["card"],
    help=JSON
    | {
        "card": "only this one; repeat for the cards of one machine",
        "driver": "its driver, such as 535.104",
        "from": "what this repository has for them, such as registry.example.com/team/qwen",
        "offline": "what a saved catalogue has for them (pull --save)",
        "verify-key": "with --from: a public key that the catalogue must be signed by",
        "verify-identity": "with --from: a regular expression on the CI workflow that must have signed it instead",
    },
)
def cards(c, card, driver="", from_="", offline="", verify_key="", verify_identity="", json=False, debug=False):
    """Which image each card should have, or why none; the cards of this machine; what is published for them."""
    where = {"source": from_, "offline": offline, "key": verify_key, "identity": verify_identity}
    commands.run(partial(commands.cards, card, driver, json, **where), debug)


@task(
    iterable=["card"],
    help=JSON
    | {
        "model": "3b, 7b, 32b or 72b with -fp16, -bf16, -awq or -gptq; or a model's folder",
        "card": "a card's name; without it the cards of this machine",
        "count": "cards of that name in each machine",
        "nodes": "machines",
        "driver": "their driver, such as 535.104",
        "variant": "this image instead of the card's own",
        "tp": "this tensor parallel size",
        "pp": "this pipeline parallel size",
    },
)
def fit(c, model, card, count=0, nodes=1, driver="", variant="", tp=0, pp=0, json=False, debug=False):
    """How a model is served on cards: settings with reasons, memory line by line; or why it cannot be."""
    rest = {"count": count, "nodes": nodes, "driver": driver, "variant": variant, "tp": tp, "pp": pp}
    commands.run(lambda: commands.fit(model, card, json, **rest), debug)


@task(
    iterable=["card", "flag", "env"],
    help={
        "model": "3b-awq and its like, a repository OWNER/NAME, or a model's folder",
        "card": "serve as for this card, instead of the cards of this machine",
        "variant": "this image instead of the card's own, such as the one for the CPU",
        "image": "an image by its own name, instead of --variant",
        "gpus": "all, 2, device=0,1 or none, as docker takes it",
        "host": "the address to listen on; 0.0.0.0 for all",
        "port": "the port to listen on",
        "name": "the container's name",
        "served": "what the API calls the model",
        "cache": "the volume or folder for what is fetched and compiled",
        "restart": "unless-stopped, on-failure or no",
        "flag": "a flag of the server, such as '--max-model-len 4096'; wins over fit's; repeat",
        "env": "NAME=VALUE for the server; repeat",
        "driver": "with --card: its driver",
        "wait": "seconds until it must be healthy",
        "from-modelscope": "fetch the model from ModelScope (as VLLM_USE_MODELSCOPE=1)",
        "detach": "do not wait until it is healthy",
        "print": "print the docker line, start nothing",
        "compose": "print a compose file, start nothing",
        "stop": "stop and remove the server of this name",
        "logs": "show the log of the server of this name",
        "lines": "with --logs: how many lines of its end",
    },
)
def serve(
    c,
    card,
    flag,
    env,
    model="",
    variant="",
    image="",
    gpus="",
    host="127.0.0.1",
    port=8000,
    name="cardstock",
    served="",
    cache="cardstock-cache",
    restart="unless-stopped",
    driver="",
    wait=1800,
    from_modelscope=False,
    detach=False,
    print=False,
    compose=False,
    stop="",
    logs="",
    lines=200,
    debug=False,
):
    """Serve a model on the cards of this machine with the fitted settings; or print how, stop it, show its log."""
    told = {"model": model, "cards": card, "variant": variant, "image": image, "gpus": gpus, "driver": driver}
    told |= {"host": host, "port": port, "name": name, "served": served, "restart": restart, "flags": flag, "env": env}
    told |= {
        "from_modelscope": from_modelscope,
        "cache": cache,
        "wait": wait,
        "detach": detach,
        "print": print,
        "compose": compose,
    }
    commands.run(lambda: commands.serve(told, stop=stop, logs=logs, lines=lines), debug)


@task(
    help={
        "server": "any server that speaks the OpenAI API; $OPENAI_API_KEY is its key",
        "model": "one of its models; without it, its first",
        "host": "where the page listens; 0.0.0.0 is for everybody, without a password",
        "port": "its port",
        "max-picture": "largest picture file",
        "max-video": "largest video file",
        "max-pictures": "pictures in one question, a video counted as its frames",
        "max-frames": "frames that are sent of a video",
    }
)
def demo(
    c,
    server="http://127.0.0.1:8000",
    model="",
    host="127.0.0.1",
    port=7860,
    max_picture="10MB",
    max_video="60MB",
    max_pictures=8,
    max_frames=8,
    debug=False,
):
    """A web page to ask a server about pictures and videos, until Ctrl-C."""
    limits = {"max_picture": max_picture, "max_video": max_video, "max_pictures": max_pictures}
    words = {"server": server, "model": model, "host": host, "port": port, "max_frames": max_frames} | limits
    commands.run(lambda: commands.demo(**words), debug)


@task(
    iterable=["flag"],
    help={
        "hosts": "hosts.yaml: the machines, their addresses, network cards and cards (README.md has an example)",
        "model": "what to fit, such as 72b-awq, instead of hosts.yaml's",
        "variant": "this image instead of the card's own",
        "image": "an image by its own name",
        "tp": "this tensor parallel size",
        "pp": "this pipeline parallel size",
        "flag": "a flag of the server, such as '--max-model-len 4096'; wins over fit's; repeat",
        "print": "print a compose file for each host, start nothing",
        "kuberay": "a manifest for the KubeRay operator instead",
        "out": "write the files to this folder, start nothing",
        "wait": "seconds until it must be healthy",
        "detach": "do not watch over it",
        "stop": "stop and remove the cluster of these hosts",
    },
)
def cluster(
    c,
    flag,
    hosts="",
    model="",
    variant="",
    image="",
    tp=0,
    pp=0,
    print=False,
    kuberay=False,
    out="",
    wait=1800,
    detach=False,
    stop=False,
    debug=False,
):
    """Serve a model on several machines, through Ray and vLLM; or print or write how."""
    told = {"model": model, "variant": variant, "image": image, "tp": tp, "pp": pp, "flags": flag, "wait": wait}
    told |= {"print": print, "kuberay": kuberay, "out": out, "detach": detach, "stop": stop}
    commands.run(lambda: commands.cluster(hosts, **told), debug)


@task(iterable=["registry"], help=JSON | {"registry": "also see whether this registry (or repository) answers"})
def doctor(c, registry, json=False, debug=False):
    """This machine: cards, driver, engine, GPU runtime, disk, memory, network: what is wrong, what to do, what fits."""
    commands.run(lambda: commands.doctor(registry, json), debug)


@task(
    positional=["folder"],
    iterable=["arch"],
    help=JSON | {"arch": "a card whose code stays; repeat", "nvidia-libraries": "also NVIDIA's: for your machine only"},
)
def slim(c, folder, arch, json=False, nvidia_libraries=False, debug=False):
    """Leave in a folder's libraries only the device code that the named cards run."""
    commands.run(lambda: commands.slim(folder, arch, json, nvidia_libraries), debug)


@task(iterable=LISTS, help=SELECT)
def served(c, arch, only, card, cuda="", attention="", all=False, debug=False):
    """Record which libraries the server of built images loads; the audit's gate asks these lists."""
    commands.run(lambda: commands.served(commands.Words(arch, cuda, attention, only, all, card)), debug)


@task(help={"start": "", "stop": "", "status": "", "prune": "down to its limit", "everything": "with --prune: all"})
def engine(c, start=False, stop=False, status=False, prune=False, everything=False, debug=False):
    """The embedded Docker engine of a machine that has none."""
    commands.run(lambda: commands.engine(start=start, stop=stop, prune=prune, everything=everything), debug)


@task(
    help={
        "name": "one measurement; without it those that take seconds",
        "all": "also those that take minutes, compilers or built images",
        "record": "keep the run in images/bench/records, which BENCH.md is written from",
    }
)
def bench(c, name="", all=False, record=False, debug=False):
    """The measurements, as one table with what was kept of those that did not run now."""
    commands.run(lambda: commands.bench([name] if name else [], record, all), debug)


@task
def lint(c, debug=False):
    """ruff, mypy --strict, hadolint on every Dockerfile, zizmor and actionlint on the workflows."""
    commands.run(commands.lint, debug)


@task(
    iterable=["only"],
    help={
        "engine": "only the tests that need a Docker engine",
        "unit": "only those that need nothing",
        "gpu": "the proof on this machine's card, in the image for it",
        "only": "with --gpu: globs on the names of steps",
    },
)
def test(c, only, engine=False, unit=False, gpu=False, debug=False):
    """The tests: all that this machine can run without a card, or one kind."""
    action = partial(commands.test_gpu, only) if gpu else partial(commands.test, engine=engine, unit=unit)
    commands.run(action, debug)
