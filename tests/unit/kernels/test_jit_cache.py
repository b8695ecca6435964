"""FlashInfer's kernels as a wheel: how it is made by the source's own generator, and what FlashInfer is told of it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from images.core import process
from images.kernels.inside import compiling, jit_cache, source, verify
from images.kernels.inside.failure import Failure
from images.kernels.inside.recipes import RECIPES, recipe
from images.kernels.inside.toolchain import Toolchain
from images.matrix.arch import parse_arch
from images.matrix.kernel import make_kernel
from tests.helpers.elf_files import library, sm
from tests.helpers.nonempty import nonempty

TOOLS = Toolchain("/c", "13.0.88", "12.2.0", "2.14.0", "13.0", "3.11", True)
WHEEL = "flashinfer_python-1.2-py3-none-any.whl"

# What of FlashInfer is called: a generator of modules, each of which leaves a library and says what it was asked for.
MODULES = """
import json, os, pathlib
class Spec:
    def __init__(self, *asked):
        self.asked, self.name = [str(one) for one in asked], f"prefill_{asked[1]}_{asked[5]}"
        self.path = pathlib.Path(os.environ["FLASHINFER_WORKSPACE_BASE"], "cached_ops", f"{self.name}.so")
    def build(self, verbose):
        self.path.parent.mkdir(parents=True)
        self.path.with_suffix(".cuda.o").touch()
        self.path.write_bytes(pathlib.Path("library").read_bytes())
        names = ("FLASHINFER_NVCC", "FLASHINFER_CUDA_ARCH_LIST", "LIBRARY_PATH", "MAX_JOBS")
        pathlib.Path("asked.json").write_text(json.dumps([self.asked, verbose, {n: os.environ[n] for n in names}]))
        print("[1/1] nvcc", flush=True)
    def get_library_path(self):
        return self.path
_gen_batch_prefill_primary_module = Spec
"""


def source_wheel(folder: Path, *archs: int) -> Path:
    """A wheel of FlashInfer's sources, and torch beside it."""
    files = {
        "flashinfer/__init__.py": "",
        "flashinfer/version.py": "__version__ = '1.2'",
        "flashinfer/jit/__init__.py": "",
        "flashinfer/jit/attention/__init__.py": "",
        "flashinfer/jit/attention/modules.py": MODULES,
        "torch.py": "float16, int32 = 'float16', 'int32'",
        "flashinfer_python-1.2.dist-info/licenses/LICENSE": "Apache",
    }
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr("library", library([sm(*archs)]))
    return folder / WHEEL


def made(folder: Path, *archs: int) -> tuple[Path, Path]:
    """The source as it is unpacked, and the wheel that the build leaves."""
    tree = source.unpack(source_wheel(folder, *(archs or (75,))), folder / "work")
    kernel = make_kernel(
        "flashinfer", "1.2", torch="2.14.0", cuda="13.0", python="3.11", lock="k", cards=(parse_arch("7.5"),)
    )
    env = {**os.environ, **dict(kernel.env), "PYTORCH_NVCC": "/w/nvcc", "CUDA_HOME": "/opt/cuda", "MAX_JOBS": "2"}
    process.run(compiling.build_command("flashinfer", folder / "dist"), cwd=tree, env=env)
    (wheel,) = (folder / "dist").glob("*.whl")
    return tree, wheel


def test_the_build_asks_flashinfer_for_what_the_decoder_needs(tmp_path: Path) -> None:
    tree, wheel = made(tmp_path)
    asked, verbose, env = json.loads((tree / "asked.json").read_text())
    assert asked == ["fa2", "float16", "float16", "float16", "int32", "128", "128", "0", "False", "False", "False"]
    assert verbose is True  # its progress is read from ninja's lines
    assert (env["FLASHINFER_NVCC"], env["FLASHINFER_CUDA_ARCH_LIST"], env["MAX_JOBS"]) == ("/w/nvcc", "7.5", "2")
    assert Path(env["LIBRARY_PATH"].split(":")[0], "libcuda.a").is_file()
    assert compiling.objects(tree) == 1
    assert wheel.name == "flashinfer_jit_cache-1.2-py3-none-linux_x86_64.whl"


def test_the_wheel_tells_flashinfer_which_modules_it_has_for_which_cards(tmp_path: Path) -> None:
    _, wheel = made(tmp_path)
    script = (
        "import json, flashinfer_jit_cache as c\n(p,) = c.get_jit_cache_providers()\n"
        "asked = (p.distribution, p.version, str(p.jit_cache_dir), p.cuda_architectures, p.modules)\n"
        "print(json.dumps([c.__version__, *asked]))"
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    told = json.loads(process.run([sys.executable, "-c", script], env=env).out)
    place = tmp_path / "site/flashinfer_jit_cache/modules"
    assert told == ["1.2", "flashinfer-jit-cache", "1.2", str(place), ["sm75"], ["prefill_float16_128"]]
    assert (place / "prefill_float16_128/prefill_float16_128.so").is_file()


def test_the_wheel_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"code")
    parts = ("1.2", ["sm75"], {"a": tmp_path / "a.so"}, "Apache")
    one, two = (jit_cache.write_wheel(tmp_path / name, *parts) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        rows = [
            line.rsplit(",", 2) for line in archive.read("flashinfer_jit_cache-1.2.dist-info/RECORD").decode().split()
        ]
        files = {name: archive.read(name) for name in archive.namelist()}
    assert {row[0] for row in rows} == set(files)
    listed = [row for row in rows if row[1]]
    assert len(listed) == len(files) - 1
    for name, digest, size in listed:
        data = hashlib.sha256(files[name]).digest()
        assert (digest, int(size)) == (
            f"sha256={base64.urlsafe_b64encode(data).decode().rstrip('=')}",
            len(files[name]),
        )


@pytest.mark.parametrize("text", ["", "bf16-128", "f16", "f16-96", "f16-128,f16-64"])
def test_modules_that_nobody_knows_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="CARDSTOCK_FLASHINFER_MODULES"):
        jit_cache.wished(text)


def test_modules_and_cards_are_read_as_the_matrix_writes_them() -> None:
    assert jit_cache.wished("f16-128 f16-64") == [("f16", 128), ("f16", 64)]
    assert jit_cache.architectures("8.0 7.5") == ["sm75", "sm80"]


def test_other_packages_are_built_by_their_own_setup() -> None:
    assert compiling.build_command("xformers", Path("/d"))[1:] == ["setup.py", "bdist_wheel", "--dist-dir", "/d"]


# -- the check of the finished wheel


LOADER = """
class Module: plan = paged_run = ragged_run = len
def load_module(path):
    open(path).close()
    return Module()
"""


def nm(folder: Path, says: str = "U cudaGetDevice@libcudart.so.13") -> dict[str, str]:
    """An environment whose nm says this of every library."""
    (folder / "bin").mkdir()
    program = folder / "bin/nm"
    program.write_text(f"#!/bin/sh\necho '                 {says}'\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}"}


def check(folder: Path, loader: str = LOADER, *archs: int, env: dict[str, str] | None = None) -> dict[str, list[str]]:
    """The whole check, with torch, nm and a loader of modules that stand beside the wheel."""
    env = env or nm(folder)
    tree, wheel = made(folder, *archs)
    (tree / "tvm_ffi.py").write_text(loader)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.write(tree / "tvm_ffi.py", "tvm_ffi.py")
        archive.write(tree / "torch.py", "torch.py")
    return verify.check(wheel, verify.Wanted("flashinfer", "1.2", ("7.5",), {}), TOOLS, None, env)


def test_a_wheel_whose_modules_load_passes(tmp_path: Path) -> None:
    name = "prefill_float16_128"
    assert check(tmp_path) == {f"flashinfer_jit_cache/modules/{name}/{name}.so": ["7.5"]}


def test_a_module_without_one_of_its_functions_fails(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="prefill_float16_128 has plan, ragged_run of plan, paged_run and ragged_run"):
        check(tmp_path, LOADER.replace("paged_run = ", ""))


def test_a_module_that_does_not_load_fails(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="undefined symbol: TVMFFINew"):
        check(tmp_path, "def load_module(path): raise RuntimeError('undefined symbol: TVMFFINew')")


def test_a_module_that_calls_the_driver_fails(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"prefill_float16_128\.so calls cuTensorMapEncodeTiled of libcuda"):
        check(tmp_path, env=nm(tmp_path, "U cuTensorMapEncodeTiled"))


def test_a_module_may_name_functions_that_it_never_calls(tmp_path: Path) -> None:
    asks = "import os\nassert 'LD_BIND_NOW' not in os.environ\n"
    assert check(tmp_path, asks + LOADER)


def test_a_wheel_for_other_cards_fails(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"wanted is code for exactly 7\.5, but .* holds 8\.0"):
        check(tmp_path, LOADER, 80)


def test_a_wheel_that_says_other_cards_than_asked_fails(tmp_path: Path) -> None:
    _, wheel = made(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "site/tvm_ffi.py").write_text(LOADER)
    (tmp_path / "site/torch.py").write_text("")
    with pytest.raises(Failure, match=r"says architectures \['sm75'\], expected is \['sm86'\]"):
        env = nm(tmp_path) | {"PYTHONPATH": str(tmp_path / "site")}
        verify.flashinfer_account(tmp_path / "site", verify.Wanted("flashinfer", "1.2", ("8.6",), {}), env)


# -- its source


def test_a_source_that_is_a_wheel_is_fetched_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$*" >{tmp_path}/told\nwhile [ "$1" != --dest ]; do shift; done\necho it >"$2/{WHEEL}"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    found = source.obtain("flashinfer", "1.2", given=None, lock=None, keep=tmp_path / "keep", env=dict(os.environ))
    assert found == tmp_path / "keep" / WHEEL
    told = (tmp_path / "told").read_text()
    assert "--only-binary flashinfer-python" in told and told.endswith("flashinfer-python==1.2\n")
    (tmp_path / "told").unlink()
    lock = tmp_path / "lock.txt"
    lock.write_text(f"flashinfer-python==1.2 --hash=sha256:{source.digest(found)}\n")
    again = source.obtain("flashinfer", "1.2", given=None, lock=lock, keep=tmp_path / "keep", env={})
    assert again == found and not (tmp_path / "told").exists()


def test_a_wheel_that_is_no_archive_is_said_to_be_broken(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"no archive")
    with pytest.raises(Failure, match="cannot be unpacked"):
        source.unpack(tmp_path / WHEEL, tmp_path / "work")


def test_the_matrix_and_the_builder_call_the_wheels_alike() -> None:
    cards = (parse_arch("8.0"),)
    for package in nonempty(RECIPES):
        kernel = make_kernel(package, "1.2", torch="2.14.0", cuda="13.0", python="3.11", lock="k", cards=cards)
        assert kernel.distribution == recipe(package).wheel
