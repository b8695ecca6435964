"""A model served, and asked: serve, cluster, demo."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from invoke.tasks import task

from images.report import Report
from images.tasks import typed
from images.variants import make_variants


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
    typed.run(lambda: serve_model(told, stop=stop, logs=logs, lines=lines), debug)


@task(
    iterable=["flag"],
    help={
        "hosts": "hosts.yaml: the machines, their addresses, network cards and cards (docs/cluster.md has an example)",
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
    typed.run(lambda: serve_on_hosts(hosts, **told), debug)


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
    typed.run(lambda: open_demo(**words), debug)


def serve_model(told: Mapping[str, Any], *, stop: str, logs: str, lines: int) -> None:
    """`invoke serve`; ``told`` are its own words (images/serve/command.py)."""
    from images.bases import ca_bundle
    from images.serve import command, pick
    from images.site import read_site

    if stop:
        command.stop(stop, Report())
    elif logs:
        command.logs(logs, lines, Report())
    else:
        matrix = typed.CHECKOUT.matrix()
        locked = typed.locked(matrix)
        ca = ca_bundle(read_site(typed.CHECKOUT.root, os.environ).ca)
        shop = pick.Shop(matrix, make_variants(matrix), locked, ca)
        command.serve(shop, pick.ServeWords(**told), Report())


def serve_on_hosts(hosts: str, **rest: Any) -> None:
    """`invoke cluster`; ``rest`` are the other fields of ClusterWords."""
    from images.cluster.command import ClusterWords
    from images.cluster.command import cluster as gather

    matrix = typed.CHECKOUT.matrix()
    locked = typed.locked(matrix)
    gather(matrix, make_variants(matrix), ClusterWords(hosts, **rest), locked, Report())


def open_demo(**words: Any) -> None:
    """`invoke demo`; ``words`` are the fields of DemoWords."""
    from images.demo.command import DemoWords, demo_command
    from images.embedded.home import default_layout

    demo_command(typed.CHECKOUT.root, default_layout().home, DemoWords(**words), Report())
