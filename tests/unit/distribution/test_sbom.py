"""The bill of materials of an image with stand-ins: they are ours, and no package is told that is not there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from images.core import process
from images.device_code.stand_ins.place import Wish, make
from images.distribution import sbom
from tests.helpers.catalogues import digest
from tests.helpers.compiled import compiled

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"
FUNCTION = "int {}Create(int n) {{ return n; }}\n"
WHEELS = {
    "nvidia_cufft_cu12-11.2.1.3": ("nvidia/cufft/lib/libcufft.so.11", "cufft"),
    "nvidia_nvjitlink_cu12-12.4.127": ("nvidia/nvjitlink/lib/libnvJitLink.so.12", "nvJitLink"),
    "nvidia_cublas_cu12-12.4.5.8": ("nvidia/cublas/lib/libcublas.so.12", "cublas"),
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Site-packages with three wheels of NVIDIA's names, each with a library and its licence."""
    site = tmp_path / "lib/python3.11/site-packages"
    for wheel, (library, prefix) in WHEELS.items():
        name, _, version = wheel.partition("-")
        path = compiled(site / library, FUNCTION.format(prefix))
        info = site / f"{wheel}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            "Author: Nvidia CUDA Installer Team\nLicense: NVIDIA Proprietary Software\n"
        )
        hashed = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        (info / "RECORD").write_text(
            f"{library},sha256={hashed},{path.stat().st_size}\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n"
        )
    return site


def bill(site: Path) -> dict[str, dict[str, object]]:
    """The components of the bill of an image with this site-packages, by name, as the image itself would tell."""
    script = f"import sys; sys.path[:] = [{str(site)!r}, *(p for p in sys.path if 'site-packages' not in p)]\n"
    ran = process.run([sys.executable, "-I", "-S", "-c", script + sbom.READ_PACKAGES], env=dict(os.environ))
    told = json.loads(sbom.make(SM75, digest("x"), sbom.parse(ran.out), "2026-11-28T00:00:00Z"))
    return {one["name"]: one for one in told["components"] if one["purl"].startswith("pkg:pypi/")}


def test_stand_ins_are_told_as_ours_and_what_is_gone_is_not_told(site: Path) -> None:
    assert set(bill(site)) == {"nvidia-cufft-cu12", "nvidia-nvjitlink-cu12", "nvidia-cublas-cu12"}
    make(
        site,
        [Wish("nvidia/*/lib/libcufft.so.*", "Fourier transforms (torch.fft)")],
        ["nvidia/*/lib/libnvJitLink.so.*"],
        "1",
    )
    told = bill(site)
    assert set(told) == {"nvidia-cublas-cu12", "cardstock-stand-ins"}
    ours = told["cardstock-stand-ins"]
    assert ours["purl"] == "pkg:pypi/cardstock-stand-ins@1"
    assert ours["licenses"] == [{"expression": "Apache-2.0"}]
    assert "nvidia" not in json.dumps(ours).lower()


def test_nothing_that_says_what_a_stand_in_is_bears_nvidias_name(site: Path) -> None:
    make(site, [Wish("nvidia/*/lib/libcufft.so.*", "Fourier transforms (torch.fft)")], [], "1")
    (info,) = site.glob("cardstock_stand_ins-*.dist-info")
    assert "nvidia" not in (info / "METADATA").read_text().lower()
    content = (site / WHEELS["nvidia_cufft_cu12-11.2.1.3"][0]).read_bytes()
    assert b"cardstock: stand-in called: " in content
    assert b"nvidia" not in content.lower()
