"""torch's layer for real: built of two environments by the product's own scripts, it is the same, byte for byte."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from images.core import process
from images.docker.base_image import CONTEXT_SCHEME
from images.docker.engine import Engine
from tests.helpers.matrices import ROOT, matrix, variants

SITE = "/opt/fake/lib/python3.11/site-packages"
# What the two have in common, as installers leave it: a program, bytecode that no RECORD has.
TORCH = {
    "lib/python3.11/site-packages/torch/__init__.py": "import sys\n",
    "lib/python3.11/site-packages/torch/__pycache__/__init__.cpython-311.pyc": "bytecode",
    "lib/python3.11/site-packages/torch/lib/libtorch_cpu.so": "host code" * 1000,
    "lib/python3.11/site-packages/torch-2.6.0.dist-info/METADATA": "Name: torch\n",
    "bin/torchrun": "#!/opt/venv/bin/python\n",
}
OLD = {
    "lib/python3.11/site-packages/numpy/__init__.py": "version = '2.2.6'\n",
    "lib/python3.11/site-packages/numpy-2.2.6.dist-info/METADATA": "Name: numpy\n",
    "lib/python3.11/site-packages/vllm/__init__.py": "old",
    "lib/python3.11/site-packages/vllm-0.8.5.dist-info/METADATA": "Name: vllm\n",
    "bin/vllm": "old",
}
NEW = {
    "lib/python3.11/site-packages/numpy/__init__.py": "version = '2.4.6'\n",
    "lib/python3.11/site-packages/numpy-2.4.6.dist-info/METADATA": "Name: numpy\n",
    "lib/python3.11/site-packages/transformers/__init__.py": "new",
    "lib/python3.11/site-packages/transformers-5.0.dist-info/METADATA": "Name: transformers\n",
    "bin/transformers-cli": "new",
    "share/man/x.1": "new",
}
DOCKERFILE = """\
FROM base AS whole
USER 0
COPY fake /opt/fake
COPY build /run-build
COPY device_code /run/build/images/device_code
RUN install -m 755 /run-build/device-code /run-build/settle /run/build/ && /run/build/settle /opt/fake
FROM whole AS part
RUN --mount=type=bind,from=whole,source=/opt/fake,target=/whole \\
    /run/build/device-code {what} {site} /whole/lib/python3.11/site-packages torch torchvision
# As in an image, the folder is there, with a time of its own.
FROM whole AS below
RUN rm -r /opt/fake && mkdir /opt/fake && /run/build/settle /opt/fake
FROM below AS made
COPY --from=part /opt/fake /opt/fake
"""


@pytest.fixture
def base(engine: Engine) -> str:
    """The image for the CPU, for its Python."""
    (cpu,) = [one for one in variants().valid.values() if one.cuda is None]
    name = f"{matrix().image}:{cpu.id}"
    if engine.inspect(name) is None:
        pytest.skip(f"{name} is not built: not run here")
    return name


@pytest.fixture
def made(engine: Engine) -> Iterator[str]:
    """A name for images, free afterwards."""
    name = f"cardstock/test-layers:{uuid.uuid4().hex[:12]}"
    yield name
    for end in ("old", "new", "rest"):
        engine.untag(f"{name}-{end}", force=True)


def context_of(folder: Path, *parts: Mapping[str, str]) -> Path:
    """A build's context with an environment of these files, each distribution with its RECORD."""
    files = {name: text for part in parts for name, text in part.items()}
    for name, text in files.items():
        path = folder / "fake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    site = folder / "fake/lib/python3.11/site-packages"
    for info in site.glob("*.dist-info"):
        package = info.name.split("-")[0]
        rows = [str(one.relative_to(site)) for one in (site / package).rglob("*") if one.suffix in (".py", ".so")]
        rows += [f"../../../bin/{name}" for name in ("torchrun",) if package == "torch"]
        lines = [f"{row},sha256=x,1" for row in [*rows, f"{info.name}/METADATA", f"{info.name}/RECORD"]]
        (info / "RECORD").write_text("\n".join([*sorted(lines), ""]))
    for source, name in (("dockerfiles/build", "build"), ("images/device_code", "device_code")):
        shutil.copytree(ROOT / source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build(engine: Engine, base: str, folder: Path, what: str, name: str) -> str:
    """Build one part of the environment as a layer, nothing of it from a cache; its diff id."""
    (folder / "Dockerfile").write_text(DOCKERFILE.format(what=what, site=SITE))
    bake = {
        "context": str(folder),
        "contexts": {"base": CONTEXT_SCHEME + base},
        "tags": [name],
        "output": ["type=docker"],
        "no-cache": True,
    }
    (folder / "bake.json").write_text(json.dumps({"target": {"part": bake}}))
    argv = ["docker", "buildx", "bake", "--progress=plain", "-f", str(folder / "bake.json"), "part"]
    process.run(argv, env=engine.cli_env(), timeout=300)
    facts = engine.inspect(name)
    assert facts is not None
    return facts.layers[-1]


@pytest.mark.timeout(900)
def test_two_locks_with_one_torch_make_one_layer_of_it(engine: Engine, base: str, made: str, tmp_path: Path) -> None:
    old, new = context_of(tmp_path / "old", TORCH, OLD), context_of(tmp_path / "new", TORCH, NEW)
    first = build(engine, base, old, "only", f"{made}-old")
    second = build(engine, base, new, "only", f"{made}-new")
    assert first == second
    rest = build(engine, base, new, "without", f"{made}-rest")
    assert rest != first
