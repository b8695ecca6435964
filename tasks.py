"""Cardstock's tasks. `./inv --list` shows them, `./inv --help TASK` explains; images/tasks/ has them."""

from images.tasks.advise import cards, doctor, explain, fit, plan
from images.tasks.generate import lint, lock, render
from images.tasks.hand import publish, pull
from images.tasks.make import build, engine, kernels
from images.tasks.prove import audit, bench, served, slim, smoke, test
from images.tasks.run import cluster, demo, serve

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
