"""The commands of `./inv`, by what one wants. `./inv --list` shows them, `./inv --help COMMAND` explains one."""

# Which image, and why.
# Prove it, look into it.
from images.commands.audit import audit
from images.commands.bench import bench

# Make it.
from images.commands.build import build
from images.commands.cards import cards

# Run it.
from images.commands.cluster import cluster
from images.commands.demo import demo
from images.commands.doctor import doctor
from images.commands.engine import engine
from images.commands.explain import explain
from images.commands.fit import fit
from images.commands.kernels import kernels

# Keep the project in order.
from images.commands.lint import lint
from images.commands.lock import lock
from images.commands.plan import plan

# Hand it out, fetch it.
from images.commands.publish import publish
from images.commands.pull import pull
from images.commands.render import render
from images.commands.serve import serve
from images.commands.served import served
from images.commands.slim import slim
from images.commands.smoke import smoke
from images.commands.test import test

__all__ = [
    "audit",
    "bench",
    "build",
    "cards",
    "cluster",
    "demo",
    "doctor",
    "engine",
    "explain",
    "fit",
    "kernels",
    "lint",
    "lock",
    "plan",
    "publish",
    "pull",
    "render",
    "serve",
    "served",
    "slim",
    "smoke",
    "test",
]
