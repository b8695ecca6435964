"""Small lists of advisories for tests, on the project's own matrix."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from images.advisories.checkout import Assessments
from images.advisories.judge import Assessment, assess
from images.advisories.model import Advisories
from images.advisories.packages import Carried
from images.advisories.reader import parse_advisories
from images.matrix.variants import Variant
from images.render.checkout import Checkout
from tests.helpers.matrices import ROOT, matrix, variants

DAY = date(2026, 11, 27)
SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
SDPA = "cu124-transformers5.24.0-sdpa-sm75"
CPU = "cpu-vllm0.32.0-sdpa"
HOLE = """\
  - id: CVE-2026-0001
    aliases: [GHSA-aaaa-bbbb-cccc]
    package: vllm
    affected: "<0.9"
    fixed: "0.9.0"
    severity: critical
    score: 9.8
    what: "a request runs code"
    reaches:
      - {answer: reached, when: {backend: vllm}, why: "it is served"}
    mark: D
    source: "of a test"
    read: 2026-11-27
"""
# Nobody could rate it, and until that day it may wait.
DEFERRED = HOLE.replace("    severity: critical\n    score: 9.8\n", "    severity: unknown\n").replace(
    "    mark: D\n", '    deferred: {until: 2026-12-18, why: "nobody could read it"}\n    mark: U\n'
)
HEAD = "schema: 1\nread: 2026-11-27\n"


def listed(*entries: str, head: str = HEAD) -> str:
    """The text of a list with these entries; ``head`` has what stands above them."""
    return f"{head}advisories:\n{''.join(entries)}" if entries else f"{head}advisories: []\n"


def known(*entries: str, head: str = HEAD) -> Advisories:
    """The same, read."""
    return parse_advisories(listed(*entries, head=head))


def variant(name: str = SM75) -> Variant:
    return variants().valid[name]


def carried(debian: Mapping[str, str] | None = None, **python: str) -> Carried:
    return Carried({name.replace("_", "-"): version for name, version in python.items()}, debian or {})


def judged(
    file: Advisories, name: str = SM75, packages: Carried | None = None, rootfs: Mapping[str, str] | None = None
) -> Assessment:
    """A list, judged for one variant that carries ``packages``."""
    texts = rootfs or {}
    return assess(file, variant(name), packages or carried(vllm="0.8.5.post1", starlette="1.10.0"), texts.get)


def assessments(root: Path, text: str) -> Assessments:
    """What a list means for this project's matrix and locks, in a checkout that has nothing else."""
    (root / "advisories.yaml").write_text(text)
    (root / "dockerfiles").mkdir(exist_ok=True)
    if not (root / "dockerfiles/locks").exists():
        (root / "dockerfiles/locks").symlink_to(ROOT / "dockerfiles/locks")
    return Assessments(Checkout(root), matrix(), variants())
