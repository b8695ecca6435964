"""The commands of `./inv`: invoke finds them by their names here. docs/commands.md has them by what one wants."""

from images.commands.advisories import advisories
from images.commands.audit import audit
from images.commands.bench import bench
from images.commands.build import build
from images.commands.cards import cards
from images.commands.catalogue import catalogue
from images.commands.cluster import cluster
from images.commands.demo import demo
from images.commands.docs import docs
from images.commands.doctor import doctor
from images.commands.engine import engine
from images.commands.explain import explain
from images.commands.fit import fit
from images.commands.kernels import kernels
from images.commands.lint import lint
from images.commands.load import load
from images.commands.lock import lock
from images.commands.plan import plan
from images.commands.publish import publish
from images.commands.pull import pull
from images.commands.records import records
from images.commands.render import render
from images.commands.save import save
from images.commands.serve import serve
from images.commands.served import served
from images.commands.slim import slim
from images.commands.smoke import smoke
from images.commands.test import test
from images.commands.warm import warm
from images.commands.weigh import weigh
from images.commands.which import which

__all__ = [
    "advisories",
    "audit",
    "bench",
    "build",
    "cards",
    "catalogue",
    "cluster",
    "demo",
    "docs",
    "doctor",
    "engine",
    "explain",
    "fit",
    "kernels",
    "lint",
    "load",
    "lock",
    "plan",
    "publish",
    "pull",
    "records",
    "render",
    "save",
    "serve",
    "served",
    "slim",
    "smoke",
    "test",
    "warm",
    "weigh",
    "which",
]
