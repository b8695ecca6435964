"""The builder's own program around a package's build: its compilers, its cache, its time; and a wheel made by it."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from images.kernels.inside import build, caches, compiling, source, toolchain, wrapper
from images.kernels.inside.costs import UNKNOWN
from images.kernels.inside.failure import FAILED, REFUSED, STOPPED, Failure
from images.kernels.inside.limits import TooSmall
from images.kernels.inside.order import Order, Spent
from tests.helpers.elf_files import library, sm

TOOLS = toolchain.Toolchain("/opt/cuda", "12.4.131", "12.2.0", "2.6.0", "12.4", "3.11", False)
WHEEL = "tiny-1.0-cp311-cp311-linux_x86_64.whl"

# A package's build: it compiles two objects by the compiler that torch would call, and leaves the wheel beside it.
SETUP = f"""
import os, pathlib, shutil, subprocess, sys
out = pathlib.Path("build/temp.linux")
out.mkdir(parents=True, exist_ok=True)
for at in (1, 2):
    subprocess.run([os.environ["CXX"], "-c", f"{{at}}.cpp", "-o", str(out / f"{{at}}.o")], check=True)
    print(f"[{{at}}/2] c++ {{at}}.cpp", flush=True)
folder = pathlib.Path(sys.argv[sys.argv.index("--dist-dir") + 1])
folder.mkdir(parents=True)
shutil.copy("made.whl", folder / {WHEEL!r})
"""

# sccache: a server that lives until it is told to stop, and says that it ran four compilers.
SCCACHE = """#!/bin/sh
case "$1" in
    --show-stats) echo '{"stats": {"cache_misses": {"counts": {"CUDA": 3}}, "forced_recaches": 1}}' ;;
    --stop-server) touch "$SCCACHE_SERVER_UDS.stop" ;;
    *) touch "$SCCACHE_SERVER_UDS"; while [ ! -e "$SCCACHE_SERVER_UDS.stop" ]; do sleep 0.05; done ;;
esac
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Bench:
    """An order for a tiny package, the package, and a C++ compiler that writes down what it is told."""

    def __init__(self, folder: Path, setup: str = SETUP, *archs: int) -> None:
        self.folder = folder
        self.log = folder / "compiled"
        compiler = program(folder / "compiler", f'#!/bin/sh\necho "$*" >>{self.log}\ntouch "$4"\n')
        self.tree = folder / "source"
        self.tree.mkdir()
        (self.tree / "setup.py").write_text(setup)
        self.wheel(*(archs or (75,)))
        self.compiler = compiler

    def wheel(self, *archs: int) -> None:
        with zipfile.ZipFile(self.tree / "made.whl", "w") as archive:
            archive.writestr("tiny/_C.so", library([sm(*archs)]))
            archive.writestr("tiny/__init__.py", "")
            archive.writestr("torch/__init__.py", "")  # the check imports torch before the package

    def archive(self) -> Path:
        path = self.folder / "tiny-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(self.tree, "tiny-1.0")
        return path

    def order(self, seconds: float | None = None, sdist: Path | None = None) -> Order:
        places = {name: self.folder / name for name in ("work", "out", "cache", "programs", "secrets")}
        (self.folder / "secrets").mkdir(exist_ok=True)
        return Order("tiny", "1.0", "12.4", ("7.5",), {}, **places, sdist=sdist, jobs=2, seconds=seconds)

    def compile(self, seconds: float | None = None) -> tuple[Path, Spent]:
        order, spent = self.order(seconds), Spent()
        order.work.mkdir()
        env = compiling.environment(order, "/opt/cuda", 2)
        return compiling.compile_package(order, self.tree, env, TOOLS, 2, UNKNOWN, spent), spent


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)

    def wrappers(folder: Path, home: str) -> dict[str, str]:
        return {"CXX": str(made.compiler)}

    monkeypatch.setattr(compiling, "wrappers", wrappers)
    monkeypatch.setattr(caches, "find", lambda *_: None)
    return made


def test_a_packages_build_leaves_its_wheel_its_log_and_what_it_took(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel, spent = bench.compile()
    assert wheel == bench.folder / "work/dist" / WHEEL
    assert (spent.compiled, compiling.objects(bench.tree)) == (2, 2)
    assert spent.seconds > 0 and spent.cpu > 0 and spent.peak > 0
    assert "kernel-build: tiny [2/2] after" in capsys.readouterr().out
    assert "[1/2] c++ 1.cpp" in (bench.folder / "cache/logs/tiny1.0-torch2.6.0-7.5.log").read_text()
    assert len(bench.log.read_text().splitlines()) == 2


def test_a_build_that_breaks_shows_its_log(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    (bench.tree / "setup.py").write_text("raise SystemExit('nvcc fatal: no kernel')")
    with pytest.raises(Failure, match=r"tiny 1\.0: .* ended with code 1 \(log: ") as caught:
        bench.compile()
    assert caught.value.code == FAILED
    assert "nvcc fatal: no kernel" in capsys.readouterr().out


def test_a_build_whose_time_is_up_stops_between_two_compilers_and_shows_no_log(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = "while not os.path.exists(os.environ['CARDSTOCK_STOP']): time.sleep(0.05)"
    (bench.tree / "setup.py").write_text(f"import os, time\n{waits}\nraise SystemExit(75)")
    with pytest.raises(Failure, match="the time is up") as caught:
        bench.compile(seconds=0.1)
    assert caught.value.code == STOPPED
    assert "the log of its compilers follows" not in capsys.readouterr().out


def test_with_the_cache_its_server_counts_what_was_compiled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sccache = program(bench.folder / "programs/sccache", SCCACHE)
    found = caches.Caches("/usr/bin/ccache", str(sccache), bench.folder / "cache/compilers", {"AWS_X": "1"})
    monkeypatch.setattr(caches, "find", lambda *_: found)
    _, spent = bench.compile()
    assert spent.compiled == 4
    assert (bench.folder / "cache/compilers/sccache.log").is_file()


def test_compilers_are_told_where_the_cache_is(tmp_path: Path) -> None:
    sccache = program(tmp_path / "sccache", SCCACHE)
    usage = caches.Usage()
    made = caches.Caches("/usr/bin/ccache", str(sccache), tmp_path / "cache", {"SCCACHE_BUCKET": "b"})
    with caches.serving(made, ("/cicc", "/ptxas"), usage) as env:
        assert Path(env["SCCACHE_SERVER_UDS"]).exists()
        assert (env["CCACHE_PREFIX"], env["CCACHE_EXTRAFILES"]) == (str(sccache), "/cicc:/ptxas")
        assert env["SCCACHE_BUCKET"] == "b"
        assert usage.compiled is None
    assert (vars(usage)["compiled"], usage.peak > 0) == (4, True)


def test_a_cache_that_ends_early_costs_the_count_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage = caches.Usage()
    made = caches.Caches("/cc", str(program(tmp_path / "sccache", "#!/bin/sh\nexit 3\n")), tmp_path / "cache", {})
    with caches.serving(made, (), usage) as env:
        assert env["CARDSTOCK_CCACHE"] == "/cc"
    assert "the compiler cache ended early (code 3)" in capsys.readouterr().out
    assert usage == caches.Usage()


def test_wrappers_stand_in_the_compilers_places(tmp_path: Path) -> None:
    found = compiling.wrappers(tmp_path / "bin", "/opt/cuda")
    assert found == {"PYTORCH_NVCC": str(tmp_path / "bin/nvcc"), "CXX": str(tmp_path / "bin/g++")}
    nvcc = Path(found["PYTORCH_NVCC"])
    assert nvcc.stat().st_mode & 0o111
    assert nvcc.read_text().endswith('wrapper.py nvcc /opt/cuda/bin/nvcc "$@"\n')


def test_the_sites_files_are_pips_settings_if_they_say_anything(tmp_path: Path) -> None:
    order = Bench(tmp_path).order()
    (order.secrets / "ca").write_text("certificates")
    (order.secrets / "pip").write_text("")
    env = compiling.environment(order, "/opt/cuda", 3)
    assert (env["CUDA_HOME"], env["MAX_JOBS"], env["PIP_CERT"]) == ("/opt/cuda", "3", str(order.secrets / "ca"))
    assert "PIP_CONFIG_FILE" not in env or env["PIP_CONFIG_FILE"] == os.environ.get("PIP_CONFIG_FILE")
    assert env["PATH"].startswith("/opt/cuda/bin:")


# -- the wrapper


class Became(Exception):
    """The process would be another program now."""


def become(path: str, argv: list[str], env: Mapping[str, str]) -> None:
    raise Became(path, argv, env)


def test_the_wrapper_becomes_the_compiler_behind_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execve", become)
    env = {"CARDSTOCK_CCACHE": "/cc", "NVCC_APPEND_FLAGS": "-DA", "CARDSTOCK_STOP": "/nowhere/stop"}
    with pytest.raises(Became) as caught:
        wrapper.main(["nvcc", "/opt/cuda/bin/nvcc", "-c", "a.cu"], env)
    path, argv, left = caught.value.args
    assert (path, argv) == ("/cc", ["/cc", "/opt/cuda/bin/nvcc", "-c", "a.cu", "-DA"])
    assert "NVCC_APPEND_FLAGS" not in left


def test_the_wrapper_starts_nothing_once_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execve", become)
    (tmp_path / "stop").touch()
    with pytest.raises(SystemExit) as caught:
        wrapper.main(["c++", "/usr/bin/g++", "-c", "a.cpp"], {"CARDSTOCK_STOP": str(tmp_path / "stop")})
    assert caught.value.code == STOPPED


# -- the toolchain


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stage with a toolkit for 12.4, a g++ on PATH, and a torch that was made with 12.4."""
    program(tmp_path / "stage/opt/cuda/bin/nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n")
    program(tmp_path / "bin/g++", "#!/bin/sh\necho 12.2.0\n")
    torch = tmp_path / "site/torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("from torch import version\ndef compiled_with_cxx11_abi(): return True\n")
    (torch / "version.py").write_text("cuda = '12.4'\n")
    about = tmp_path / "site/torch-2.6.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.6.0\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return tmp_path


def test_the_toolkit_of_the_stage_is_taken_with_the_torch_that_is_installed(machine: Path) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = f"{machine}/stage/opt/cuda"
    expected = toolchain.Toolchain(home, "12.4.131", "12.2.0", "2.6.0", "12.4", python, True)
    assert toolchain.find("12.4", f"{machine}/stage") == expected
    assert toolchain.find("12.4", "/nowhere", {"CUDA_HOME": home}) == expected


def test_another_toolkit_or_another_torch_is_refused(machine: Path) -> None:
    with pytest.raises(Failure, match=r"nvcc is 12\.4\.131, wanted is 12\.8"):
        toolchain.find("12.8", f"{machine}/stage")
    (machine / "site/torch/version.py").write_text("cuda = '12.1'\n")
    with pytest.raises(Failure, match=r"torch 2\.6\.0 was made with CUDA 12\.1, wanted is 12\.4") as caught:
        toolchain.find("12.4", f"{machine}/stage")
    assert caught.value.code == REFUSED
    with pytest.raises(Failure, match="there is no nvcc"):
        toolchain.find("12.4", "/nowhere", {"PATH": "/nowhere"})


# -- the source, fetched


def test_a_source_distribution_is_fetched_by_its_hash_where_a_lock_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = '#!/bin/sh\necho "$*" >{0}/told\nwhile [ "$1" != --dest ]; do shift; done\necho it >"$2/tiny-1.0.tar.gz"\n'
    monkeypatch.setattr("sys.executable", str(program(tmp_path / "python", pip.format(tmp_path))))
    found = source.obtain("tiny", "1.0", given=None, lock=None, keep=tmp_path / "keep", env=dict(os.environ))
    assert found == tmp_path / "keep/tiny-1.0.tar.gz"
    assert (tmp_path / "told").read_text().endswith("tiny==1.0\n")
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{source.digest(found)}\n")
    (tmp_path / "told").unlink()
    kept = source.obtain("tiny", "1.0", given=None, lock=lock, keep=tmp_path / "keep", env=dict(os.environ))
    assert kept == found and not (tmp_path / "told").exists()
    found.unlink()
    source.obtain("tiny", "1.0", given=None, lock=lock, keep=tmp_path / "keep", env=dict(os.environ))
    assert f"--require-hashes -r {lock}" in (tmp_path / "told").read_text()


def test_a_source_distribution_that_cannot_be_fetched_is_told_in_pips_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = program(tmp_path / "python", "#!/bin/sh\necho 'no matching distribution' >&2\nexit 1\n")
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(Failure, match=r"tiny 1\.0 cannot be fetched: no matching distribution"):
        source.fetch("tiny", "1.0", None, tmp_path, dict(os.environ))


# -- all of it


@pytest.fixture
def whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(toolchain, "find", lambda cuda: TOOLS)
    return bench


def test_a_wheel_is_made_checked_and_put_down_with_its_record(whole: Bench) -> None:
    archive = whole.archive()
    placed = build.build(whole.order(sdist=archive))
    assert placed == whole.folder / "out" / WHEEL
    record = json.loads((whole.folder / "out/kernel.json").read_text())
    assert (record["package"], record["archs"], record["audit"]) == ("tiny", ["7.5"], {"tiny/_C.so": ["7.5"]})
    assert record["source_sha256"] == source.digest(archive)
    assert record["sha256"] == source.digest(placed)
    assert (record["objects"], record["compiled"], record["jobs"], record["nvcc"]) == (2, 2, 2, "12.4.131")
    assert Spent.read(whole.folder / "work").compiled == 2


def test_a_wheel_for_other_cards_is_put_nowhere(whole: Bench) -> None:
    whole.wheel(75, 80)
    with pytest.raises(Failure, match=r"wanted is code for exactly 7\.5, but tiny/_C\.so holds 7\.5, 8\.0"):
        build.build(whole.order(sdist=whole.archive()))
    assert not (whole.folder / "out").exists()
    assert Spent.read(whole.folder / "work").compiled == 2  # what it took is not forgotten


def test_a_builder_too_small_is_refused_before_the_source_is_looked_at(
    whole: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(*_: object) -> int:
        raise TooSmall("one compiler needs 4.0 GB, the builder has 2.0 GB")

    monkeypatch.setattr(build, "jobs_for", too_small)
    with pytest.raises(Failure, match=r"tiny 1\.0: one compiler needs 4\.0 GB") as caught:
        build.build(whole.order(sdist=whole.folder / "absent.tar.gz"))
    assert caught.value.code == REFUSED
