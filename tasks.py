"""Cardstock's tasks. `./inv --list` shows them, `./inv --help TASK` explains; images/commands/ has them."""

from images.commands._advise import cards, doctor, explain, fit, plan
from images.commands._generate import lint, lock, render
from images.commands._hand import publish, pull
from images.commands._make import build, engine, kernels
from images.commands._prove import audit, bench, served, slim, smoke, test
from images.commands._run import cluster, demo, serve

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
