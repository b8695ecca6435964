"""What differs per card is found, and with what all share makes the whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from images.device_code.layers import difference, main, same, shared
from tests.helpers.elf_files import cubin, ptx_text

DEVICE = b"\x7fELF" + bytes(60) + b".nv_fatbin\0"
HOST = b"\x7fELF" + bytes(60) + b".text\0"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An environment's site-packages: one wheel with code for cards and without, one of NVIDIA's."""
    folder = tmp_path / "venv/lib/python3.11/site-packages"
    files = {
        "torch/lib/libtorch_cuda.so": DEVICE,
        "torch/lib/libtorch_cpu.so": HOST,
        "torch/include/a/b.h": b"//",
        "torch/lib/libx.a": b"!<arch>",
        "torch/__init__.py": b"",
        "nvidia/cublas/lib/libcublas.so.12": DEVICE,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for wheel, prefix in (("torch-2.6.0", "torch/"), ("nvidia_cublas_cu12-12.4", "nvidia/")):
        rows = [f"{name},sha256=x,1" for name in files if name.startswith(prefix)]
        record = folder / f"{wheel}.dist-info/RECORD"
        record.parent.mkdir()
        record.write_text("\n".join([*rows, f"{wheel}.dist-info/RECORD,,", ""]))
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def test_the_shared_part_holds_no_code_for_cards_but_nvidias_own(site: Path) -> None:
    before = names(site)
    shared(site)
    assert before - names(site) == {"torch/lib/libtorch_cuda.so", "torch-2.6.0.dist-info/RECORD"}


def test_the_shared_part_holds_no_cubins_for_those_of_other_cards_are_taken_out_later(site: Path) -> None:
    """As flashinfer-cubin has them: what is in the shared part stays in every image."""
    files = {"fi/a.cubin": cubin(100), "fi/b.ptx": ptx_text("sm_90a"), "fi/checksums.txt": b"a"}
    for name, content in files.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_bytes(content)
    record = site / "fi-1.0.dist-info/RECORD"
    record.parent.mkdir()
    record.write_text("".join(f"{name},sha256=x,1\n" for name in files))
    before = names(site)
    shared(site)
    gone = {"torch/lib/libtorch_cuda.so", "torch-2.6.0.dist-info/RECORD"}
    assert before - names(site) == {"fi/a.cubin", "fi/b.ptx", "fi-1.0.dist-info/RECORD", *gone}


def test_shared_and_difference_together_are_the_whole(site: Path, tmp_path: Path) -> None:
    common = tmp_path / "shared/lib/python3.11/site-packages"
    common.parent.mkdir(parents=True)

    shutil.copytree(site, common)
    shared(common)
    (site / "torch/lib/libtorch_cuda.so").write_bytes(DEVICE + b"slimmed")
    (site / "xformers").mkdir()
    (site / "xformers/_C.so").write_bytes(DEVICE)
    (site / "link.so").symlink_to("torch/lib/libtorch_cpu.so")
    out = tmp_path / "out"
    difference(tmp_path / "venv", tmp_path / "shared", out)
    new = {"torch/lib/libtorch_cuda.so", "torch-2.6.0.dist-info/RECORD", "xformers/_C.so", "link.so"}
    assert names(out / "lib/python3.11/site-packages") == new
    shutil.copytree(out, tmp_path / "shared", dirs_exist_ok=True, symlinks=True)
    assert names(common) == names(site)
    assert all(same(site / name, common / name) for name in names(site))


def test_words_it_does_not_know_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shred", "/"]) == 2
    assert "shared SITE" in capsys.readouterr().err
