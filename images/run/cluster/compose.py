"""A compose file for one host of a cluster. Pure."""

from __future__ import annotations

from images.docker import compose
from images.run.cluster.nodes import TOKEN, Node


def compose_file(node: Node) -> str:
    """The file for ``node``'s host: `docker compose up -d` there, the head's first or not."""
    return compose(node.spec, required={TOKEN: "the same on all hosts: openssl rand -hex 32"})
