"""The image for the CPU with what torch's compiler wants: a C++ compiler, and the headers that images leave out.

    python -m tests.engine.compiling_image         makes it, on Debian 12, from Debian's archive and torch's wheel

With it, vLLM on a CPU compiles a model as it does on a card: by torch.compile, ahead of time, with inductor's code.
tests/engine/test_warm_compiling.py is not run without it.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

from images.core import process
from images.docker import Engine, connect
from tests.engine.cpu_server import docker, image_for_the_cpu
from tests.helpers.matrices import matrix, variants

NAME = "cardstock/test-compiling"
_PACKAGES = "/opt/venv/lib/python3.11/site-packages"
_INSTALL = """set -e
mkdir -p /var/lib/apt/lists/partial /var/cache/apt/archives/partial
apt-get -q update
apt-get -q -y --no-install-recommends install g++ libpython3.11-dev
apt-get clean
rm -rf /var/lib/apt/lists/*"""
_AS_BEFORE = ("USER 10001:10001", 'ENTRYPOINT ["/usr/bin/tini", "-g", "--", "/opt/cardstock/entrypoint"]', "CMD []")


def reference() -> str:
    """Its name."""
    return f"{NAME}:{image_for_the_cpu()}"


def make(engine: Engine) -> None:
    """Make it of the image for the CPU, with this host's sources of Debian's packages."""
    variant = variants().valid[image_for_the_cpu()]
    pin = variant.pin("torch")
    assert pin is not None
    started = ["run", "--detach", "--user", "0", "--network", "host", "--entrypoint", "/bin/sh"]
    for folder in ("/etc/apt/sources.list.d", "/usr/share/keyrings"):
        started += ["--volume", f"{folder}:{folder}:ro"]
    made = docker(engine, [*started, f"{matrix().image}:{variant.id}", "-c", _INSTALL]).strip()
    try:
        assert docker(engine, ["wait", made]).strip() == "0", docker(engine, ["logs", made])
        with tempfile.TemporaryDirectory() as text:
            place = Path(text)
            words = ["download", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11"]
            words += ["--platform", "manylinux_2_28_x86_64", "--dest", text, f"torch=={pin.version}"]
            process.run([sys.executable, "-m", "pip", *words], timeout=3600)
            (wheel,) = place.glob("*.whl")
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(place, [name for name in packed.namelist() if name.startswith("torch/include/")])
            docker(engine, ["cp", f"{place}/torch/include", f"{made}:{_PACKAGES}/torch/"])
        docker(engine, ["commit", *(word for one in _AS_BEFORE for word in ("--change", one)), made, reference()])
    finally:
        docker(engine, ["rm", "--force", "--volumes", made])


if __name__ == "__main__":
    make(connect(say=print))
    print(reference())
