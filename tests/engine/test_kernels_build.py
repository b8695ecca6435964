"""The kernel stages with the real toolkit and a package of two small CUDA extensions."""

from __future__ import annotations

import json
import re
import signal
import subprocess  # noqa: TID251  the client is to be killed in the middle
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from images.core.report import Report
from images.core.site import SiteSettings
from images.docker import build_inputs as supplies
from images.docker.engine import Engine
from images.matrix.kernel import Kernel
from images.render import bakefile as bake
from tests.engine.tiny_kernel import NAME, VERSION, sdist
from tests.helpers.matrices import ROOT, matrix, variants

# Its stages below the compiling are those of the image that the gate builds.
KERNEL = "xformers0.0.29.post2-torch2.6.0-cu124-sm75"
# What is said when the first of its two extensions has its objects.
HALF = "tiny [3/3]"


class KernelBuilds:
    """Builds of the small package in the real kernel stages, with a compiler cache of their own."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder, self.engine = folder, engine
        self.salt = uuid.uuid4().hex
        self.log = ""
        self.given = folder / "given"
        self.given.mkdir()
        sdist(self.given, self.salt)
        site = SiteSettings()
        contexts = supplies.named_contexts(matrix(), [self.kernel], engine, site, Report())
        secrets = supplies.secrets(folder, site, ())
        self.contexts = dict(contexts) | {"tiny": str(self.given)}
        self.secrets = [f"id={name},src={path}" for name, path in secrets]

    @property
    def kernel(self) -> Kernel:
        (kernel,) = [k for k in variants().kernels if k.id == KERNEL]
        return kernel

    def file(self, archs: Sequence[str], limit: str) -> Path:
        """A bake file: the rendered stages, the last step told to build the small package."""
        text = (ROOT / f"dockerfiles/rendered/kernels/{KERNEL}/Dockerfile").read_text(encoding="utf-8")
        command = ["/usr/bin/env", "PYTHONPATH=/run/build", "/opt/venv/bin/python", "-B", "-m", "images.kernels.inside"]
        command += [NAME, VERSION, "--cuda", "12.4", "--archs", " ".join(archs)]
        command += ["--env", f"TORCH_CUDA_ARCH_LIST={';'.join(archs)}"]
        command += ["--sdist", f"/run/build/tiny/{NAME}-{VERSION}.tar.gz"]
        text = re.sub(
            r"    --mount=type=bind,source=locks/[^\n]*target=/run/build/lock.txt \\\n(?=    --mount=type=cache)",
            "",
            text,
        )
        text, replaced = re.subn(r'    \["/usr/bin/env",[^\n]*\n', f"    {json.dumps(command)}\n", text)
        text, mounted = re.subn(
            r"(?=    --mount=type=cache)", f"    --mount=type=bind,from=tiny,target=/run/build/tiny {limit} \\\n", text
        )
        assert (replaced, mounted) == (1, 1)
        target = bake.kernel_target(matrix(), self.kernel) | {
            "context": str(ROOT / "dockerfiles"),
            "dockerfile": str(self.folder / "Dockerfile"),
            "contexts": {"device-code": str(ROOT / bake.DEVICE_CODE), "kernel-build": str(ROOT / bake.KERNEL_BUILD)}
            | self.contexts,
            "secret": self.secrets,
            "args": {"CARDSTOCK_KERNEL_CACHE": f"cardstock-test-{self.salt}"},
            "output": [f"type=local,dest={self.folder / 'out'}"],
        }
        (self.folder / "Dockerfile").write_text(text)
        path = self.folder / "bake.json"
        path.write_text(json.dumps({"target": {"tiny": target}}))
        return path

    def build(self, *archs: str, limit: str = "", until: str | None = None) -> dict[str, Any] | None:
        """Build; kernel.json, or None when there is none. ``until``: kill the client when the build says so."""
        argv = ["docker", "buildx", "bake", "--progress=plain", "-f", str(self.file(archs, limit)), "tiny"]
        process = subprocess.Popen(
            argv,
            cwd=self.folder,
            env=self.engine.cli_env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        guard = threading.Timer(1500, process.kill)
        guard.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until and until in line:
                process.send_signal(signal.SIGKILL)
        process.wait()
        guard.cancel()
        self.log = "".join(lines)
        record = self.folder / "out/kernel.json"
        if not record.exists():
            return None
        found: dict[str, Any] = json.loads(record.read_text())
        record.unlink()
        return found


@pytest.fixture
def kernel_builds(tmp_path: Path, engine: Engine) -> Iterator[KernelBuilds]:
    yield KernelBuilds(tmp_path, engine)


def steps(kernel_builds: KernelBuilds, *archs: str) -> int:
    """Compiler steps of a build that ends well."""
    record = kernel_builds.build(*archs)
    assert record is not None, kernel_builds.log[-4000:]
    assert set(map(tuple, record["audit"].values())) == {archs}
    compiled: int = record["compiled"]
    return compiled


@pytest.mark.timeout(3000)
def test_one_more_arch_costs_that_arch_only_and_nothing_new_costs_nothing(kernel_builds: KernelBuilds) -> None:
    one = steps(kernel_builds, "7.5")
    assert one >= 3 * 4  # each of three files: its host's and its device's side, cicc, ptxas
    more = steps(kernel_builds, "7.5", "8.0")
    # cicc and ptxas for the new arch, and the host's side, which holds the code of both.
    assert more == 3 * 3
    # A new file beside the sources: a layer that BuildKit has is not what is asked here.
    (kernel_builds.given / "another-layer").touch()
    assert steps(kernel_builds, "7.5") == 0
    assert steps(kernel_builds, "7.5", "8.0") == 0


@pytest.mark.timeout(3000)
def test_a_killed_build_and_a_full_disk_lose_no_object(kernel_builds: KernelBuilds) -> None:
    (kernel_builds.given / "hold").touch()
    assert kernel_builds.build("7.5", until=HALF) is None
    (kernel_builds.given / "hold").unlink()
    (kernel_builds.given / "fill").touch()
    assert kernel_builds.build("7.5", limit="--mount=type=tmpfs,target=/tmp/cardstock-kernel,size=64m") is None
    assert "No space left on device" in kernel_builds.log, kernel_builds.log[-4000:]
    (kernel_builds.given / "fill").unlink()
    # Two of the three files were done before the build was killed: what they took is not done again.
    assert 0 < steps(kernel_builds, "7.5") < 3 * 4


@pytest.mark.timeout(3000)
def test_a_build_that_breaks_leaves_its_log_and_no_wheel(kernel_builds: KernelBuilds) -> None:
    sdist(kernel_builds.given, "broken salt")
    assert kernel_builds.build("7.5") is None
    assert "error: expected a" in kernel_builds.log
    assert "broken salt" in kernel_builds.log  # the compiler's own words, out of the middle of its log
    assert not list((kernel_builds.folder).glob("out/*.whl"))
