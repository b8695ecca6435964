"""What differs per card is found, and with what all share makes the whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from images.device_code.layers import difference, files_of, main, same, shared
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


VENV, SITE = "venv", "venv/lib/python3.11/site-packages"
# Two distributions, each with a program, bytecode that no RECORD has, and a link; and what belongs to none.
ENVIRONMENT: dict[str, tuple[str, ...]] = {
    "torch": ("torch/__init__.py", "torch/lib/libtorch.so", "torch-2.6.0.dist-info/METADATA", "../../../bin/torchrun"),
    "numpy": ("numpy/__init__.py", "numpy/core.py", "numpy-2.2.6.dist-info/METADATA", "../../../bin/f2py"),
}
UNRECORDED = ("torch/__pycache__/__init__.cpython-311.pyc", "numpy/__pycache__/core.cpython-311.pyc", "../../../a.cfg")


def environment_of(folder: Path, wheels: dict[str, tuple[str, ...]] = ENVIRONMENT, text: str = "") -> Path:
    """An environment of those distributions below ``folder``: its site-packages."""
    site = folder / SITE
    for name in [*(name for files in wheels.values() for name in files), *UNRECORDED]:
        path = (site / name).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name if "torch" in name else name + text)
    for files in wheels.values():
        (info,) = {Path(name).parent for name in files if ".dist-info" in name}
        rows = [f"{name},sha256=x,1\n" for name in files]
        (site / info / "RECORD").write_text("".join(rows) + f"{info}/RECORD,,\n")
    (folder / VENV / "lib64").symlink_to("lib")
    return site


def test_a_distributions_files_are_its_records_and_their_bytecode(tmp_path: Path) -> None:
    site = environment_of(tmp_path)
    below = "lib/python3.11/site-packages"
    assert {str(path) for path in files_of(site, ["torch"])} == {
        "bin/torchrun",
        *(f"{below}/{name}" for name in ENVIRONMENT["torch"][:3]),
        f"{below}/torch-2.6.0.dist-info/RECORD",
        f"{below}/torch/__pycache__/__init__.cpython-311.pyc",
    }
    assert files_of(site, ["triton"]) == set()


def test_torch_alone_and_all_but_torch_are_the_whole_and_share_no_file(tmp_path: Path) -> None:
    """Also where the RECORD that says whose a file is has gone into the card's part already."""
    whole = environment_of(tmp_path / "whole")
    parts = {}
    for what in ("only", "without"):
        site = environment_of(tmp_path / what)
        (site / "torch-2.6.0.dist-info/RECORD").unlink()
        assert main([what, str(site), str(whole), "torch", "triton"]) == 0
        parts[what] = names(tmp_path / what / VENV)
        folders = [path for path in (tmp_path / what / VENV).rglob("*") if path.is_dir() and not path.is_symlink()]
        assert all(any(folder.iterdir()) for folder in folders)
    assert not parts["only"] & parts["without"]
    record = "lib/python3.11/site-packages/torch-2.6.0.dist-info/RECORD"
    assert parts["only"] | parts["without"] == names(tmp_path / "whole" / VENV) - {record}
    assert "lib64" in parts["without"]
    assert "bin/torchrun" in parts["only"]


def test_another_numpy_and_another_engine_leave_torchs_part_as_it_is(tmp_path: Path) -> None:
    """Two locks with one torch: the trees that the layer is made of are equal, links and folders too."""
    newer: dict[str, tuple[str, ...]] = {
        **ENVIRONMENT,
        "vllm": ("vllm/__init__.py", "vllm-0.9.dist-info/METADATA", "../../../bin/vllm"),
    }
    trees = []
    for name, wheels, text in (("old", ENVIRONMENT, "1"), ("new", newer, "2")):
        site = environment_of(tmp_path / name, wheels, text)
        main(["only", str(site), str(environment_of(tmp_path / f"{name}-whole", wheels, text)), "torch"])
        found = sorted((tmp_path / name / VENV).rglob("*"))
        root = tmp_path / name
        trees.append([(str(one.relative_to(root)), one.read_bytes() if one.is_file() else b"") for one in found])
    assert trees[0] == trees[1]
    assert len(trees[0]) > 5


def test_what_a_card_has_of_torch_is_set_apart_and_nothing_is_lost(tmp_path: Path) -> None:
    whole = environment_of(tmp_path / "whole")
    out, torch = tmp_path / "out/rest", tmp_path / "out/torch"
    below = "lib/python3.11/site-packages"
    for name in (f"{below}/torch/lib/libtorch.so", f"{below}/torch-2.6.0.dist-info/RECORD", f"{below}/xformers/_C.so"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    assert main(["apart", str(out), str(whole), str(torch), "torch", "torchvision"]) == 0
    assert names(torch) == {f"{below}/torch/lib/libtorch.so", f"{below}/torch-2.6.0.dist-info/RECORD"}
    assert names(out) == {f"{below}/xformers/_C.so"}
    assert not (out / below / "torch").exists()
    assert main(["apart", str(out), str(whole), str(tmp_path / "none"), "numpy"]) == 0
    assert (tmp_path / "none").is_dir()  # a layer is copied from it in any case


def test_words_it_does_not_know_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shred", "/"]) == 2
    assert "shared SITE" in capsys.readouterr().err
