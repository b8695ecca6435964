"""The part of a kernel build that needs no compiler: limits, wrapper, progress, checks."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from images.kernels.inside import build, caches, compile, source, toolchain, verify
from images.kernels.inside.__main__ import main, parse
from images.kernels.inside.failure import FAILED, REFUSED, STOPPED, Failure
from images.kernels.inside.limits import CGROUP, Limits, TooSmall, jobs_for, limits
from images.kernels.inside.order import Spent
from images.kernels.inside.wrapper import command, nvcc_arguments
from tests.helpers.elf_files import PTX, Code, container, library, sm

GB = 1_000_000_000
MEMINFO = {"/proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {24 * GB // 1024} kB\n"}


def given(files: dict[str, str], cores: int = 16) -> Limits:
    return limits((MEMINFO | files).get, cores)


def test_without_a_control_group_the_machine_is_the_limit() -> None:
    found = given(
        {f"{CGROUP}/memory.max": "max\n", f"{CGROUP}/memory.current": "5\n", f"{CGROUP}/cpu.max": "max 100000\n"}
    )
    assert found.cores == 16
    assert found.memory == pytest.approx(24 * GB, rel=1e-6)


def test_a_control_group_limits_memory_and_cores() -> None:
    found = given(
        {
            f"{CGROUP}/memory.max": str(8 * GB),
            f"{CGROUP}/memory.current": str(5 * GB),
            f"{CGROUP}/memory.stat": f"anon {1 * GB}\nfile {4 * GB}\n",
            f"{CGROUP}/cpu.max": "250000 100000",
        }
    )
    assert found == Limits(memory=7 * GB, cores=3)


def test_a_control_group_of_version_1_limits_too() -> None:
    found = given(
        {
            f"{CGROUP}/memory/memory.limit_in_bytes": str(4 * GB),
            f"{CGROUP}/memory/memory.usage_in_bytes": str(1 * GB),
            f"{CGROUP}/cpu/cpu.cfs_quota_us": "100000",
            f"{CGROUP}/cpu/cpu.cfs_period_us": "100000",
        }
    )
    assert found == Limits(memory=3 * GB, cores=1)


def test_a_control_group_of_version_1_without_limits_says_so_with_odd_numbers() -> None:
    found = given(
        {
            f"{CGROUP}/memory/memory.limit_in_bytes": "9223372036854771712",
            f"{CGROUP}/memory/memory.usage_in_bytes": str(1 * GB),
            f"{CGROUP}/cpu/cpu.cfs_quota_us": "-1",
            f"{CGROUP}/cpu/cpu.cfs_period_us": "100000",
        }
    )
    assert found == Limits(memory=24 * GB // 1024 * 1024, cores=16)


@pytest.mark.parametrize(
    ("memory", "cores", "each", "jobs"),
    [(24, 2, 3, 2), (24, 16, 9, 2), (128, 16, 9, 14), (128, 16, 3, 16), (4, 16, 3, 1)],
)
def test_jobs_are_what_memory_and_cores_allow(memory: int, cores: int, each: int, jobs: int) -> None:
    assert jobs_for(each * GB, Limits(memory * GB, cores)) == jobs


def test_too_little_memory_is_refused_with_both_figures_and_what_to_set() -> None:
    with pytest.raises(TooSmall, match=r"needs 10\.0 GB.*has 8\.0 GB.*CARDSTOCK_KERNEL_JOBS"):
        jobs_for(9 * GB, Limits(8 * GB, 2))
    assert jobs_for(9 * GB, Limits(8 * GB, 2), asked=1) == 1


def test_the_cache_understands_what_nvcc_is_told() -> None:
    words = [
        "--generate-dependencies-with-compile",
        "--dependency-output",
        "a.d",
        "--threads",
        "4",
        "-t=2",
        "-c",
        "a.cu",
    ]
    assert nvcc_arguments(words, {}) == ["-MD", "-MF", "a.d", "-c", "a.cu"]


def test_flags_of_the_environment_become_arguments_that_the_cache_hashes() -> None:
    env = {"NVCC_APPEND_FLAGS": "-DA -DB='x y'", "NVCC_PREPEND_FLAGS": "-lineinfo --threads 8"}
    assert command("nvcc", "/n", ["-c", "a.cu"], env) == ["/n", "-lineinfo", "-c", "a.cu", "-DA", "-DB=x y"]
    assert command("c++", "/g", ["-c"], env | {"CARDSTOCK_CCACHE": "/cc"}) == ["/cc", "/g", "-c"]


def test_the_cache_compares_system_headers_too() -> None:
    assert command("c++", "/g", ["-MMD", "-MF", "a.d", "-c", "a.cpp"], {}) == ["/g", "-MD", "-MF", "a.d", "-c", "a.cpp"]


def test_progress_is_read_from_ninja() -> None:
    progress = compile.Progress()
    assert [
        progress.read(line) for line in (b"[1/33] nvcc\n", b"ptxas [2/3]\n", b"[1/33] again\n", b" [2/33] g++\n")
    ] == [
        True,
        False,
        False,
        True,
    ]
    assert (progress.done, progress.total) == (2, 33)


def test_a_package_may_have_several_lists_of_objects() -> None:
    progress = compile.Progress()
    for line in (b"[1/2]", b"[2/2]", b"[1/1]"):
        assert progress.read(line)
    assert (progress.before, progress.done) == (2, 1)


def test_the_rest_is_estimated_from_the_record_until_something_is_done() -> None:
    assert compile.left(compile.Progress(0, 10), 5.0, expected=30.0) == 300.0
    assert compile.left(compile.Progress(5, 10), 50.0, expected=30.0) == 50.0


def run(tmp_path: Path, script: str, seconds: float | None = None) -> list[bytes]:
    lines: list[bytes] = []
    compile.run(
        [sys.executable, "-u", "-c", script],
        cwd=tmp_path,
        env={"STOP": str(tmp_path / "stop")},
        log=tmp_path / "log",
        seconds=seconds,
        stop=tmp_path / "stop",
        on_line=lines.append,
        grace=0.0,
        taken=compile.Taken(),
    )
    return lines


def test_all_that_a_build_says_is_in_its_log(tmp_path: Path) -> None:
    assert run(tmp_path, "print('one'); print('two')") == [b"one\n", b"two\n"]
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_full_disk_ends_the_log_and_not_the_reading(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full: not run here")
    (tmp_path / "log").symlink_to("/dev/full")
    # More than a pipe holds: a build that nobody listens to would never end.
    assert len(run(tmp_path, "for _ in range(3000): print('x' * 100)")) == 3000


def test_a_build_that_fails_says_its_code(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="code 3") as told:
        run(tmp_path, "raise SystemExit(3)")
    assert told.value.code == FAILED


def test_when_the_time_is_up_the_build_ends_and_says_how_to_go_on(tmp_path: Path) -> None:
    # Ends when no new compiler may start, as ninja does when the wrapper says no.
    waits = "import os, time\nwhile not os.path.exists(os.environ['STOP']): time.sleep(0.01)\nraise SystemExit(1)"
    with pytest.raises(Failure, match="goes on from here") as told:
        run(tmp_path, waits, seconds=0.0)
    assert told.value.code == STOPPED


def test_a_build_that_does_not_end_by_itself_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(Failure) as told:
        run(tmp_path, "import time\nwhile True: time.sleep(0.01)", seconds=0.0)
    assert told.value.code == STOPPED


def test_a_build_that_ignores_interrupts_ends_too(tmp_path: Path) -> None:
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(0.01)"
    with pytest.raises(Failure) as told:
        run(tmp_path, deaf, seconds=0.0)
    assert told.value.code == STOPPED


def test_a_long_log_is_shown_by_its_two_ends(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first" + b"x" * 1000 + b"last")
    compile.show(tmp_path / "log", most=100, a_second=1000)
    shown = capsys.readouterr().out
    assert "first" in shown
    assert "[... 909 bytes left out ...]" in shown
    assert shown.rstrip().endswith("last")


def sdist(folder: Path, name: str = "tiny-1.0") -> Path:
    path = folder / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(f"{name}/setup.py")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"pass"))
    return path


def test_a_source_is_unpacked_once_and_keeps_what_was_built_in_it(tmp_path: Path) -> None:
    archive = sdist(tmp_path)
    tree = source.unpack(archive, tmp_path / "work")
    assert (tree / "setup.py").read_text() == "pass"
    (tree / "a.o").touch()
    assert (source.unpack(archive, tmp_path / "work") / "a.o").exists()
    assert not (source.unpack(sdist(tmp_path, "tiny-1.1"), tmp_path / "work") / "a.o").exists()


def test_a_source_that_the_lock_does_not_allow_is_refused(tmp_path: Path) -> None:
    archive, lock = sdist(tmp_path), tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(Failure, match="does not allow") as told:
        source.obtain("tiny", "1.0", given=archive, lock=lock, keep=tmp_path / "keep", env={})
    assert told.value.code == REFUSED


def test_a_source_that_is_kept_is_not_fetched_again(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    archive, lock = sdist(keep), tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}\n")
    # An environment in which nothing can be fetched.
    assert source.obtain("tiny", "1.0", given=None, lock=lock, keep=keep, env={}) == archive


def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("x-1/../../evil"), io.BytesIO(b""))
    with pytest.raises(Failure, match="leads out"):
        source.unpack(tmp_path / "x.tar.gz", tmp_path / "work")
    assert not (tmp_path / "evil").exists()


def test_a_broken_archive_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    with pytest.raises(Failure, match="cannot be unpacked"):
        source.unpack(tmp_path / "x.tar.gz", tmp_path / "work")


def wheel(folder: Path, *containers: bytes, name: str = "tiny-1.0-cp311-cp311-linux_x86_64.whl") -> Path:
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("tiny/_C.so", library(containers))
        archive.writestr("tiny/__init__.py", "")
    with zipfile.ZipFile(folder / name) as archive:
        archive.extractall(folder / "unpacked")  # noqa: S202  written two lines above
    return folder / name


def test_a_wheel_holds_exactly_the_wanted_archs(tmp_path: Path) -> None:
    wheel(tmp_path, sm(70, 75), sm(70, 75))
    assert verify.audit(tmp_path / "unpacked", ("7.0", "7.5")) == {"tiny/_C.so": ["7.0", "7.5"]}
    with pytest.raises(Failure, match=r"exactly 7\.5, but tiny/_C\.so holds 7\.0, 7\.5"):
        verify.audit(tmp_path / "unpacked", ("7.5",))


def test_one_object_without_the_card_is_found(tmp_path: Path) -> None:
    wheel(tmp_path, sm(75), sm(80), sm(75))
    with pytest.raises(Failure, match=r"7\.5 in 2 of 3"):
        verify.audit(tmp_path / "unpacked", ("7.5",))


def test_ptx_is_not_what_was_asked_for(tmp_path: Path) -> None:
    wheel(tmp_path, container(Code(75), Code(75, PTX)))
    with pytest.raises(Failure, match=r"PTX 7\.5"):
        verify.audit(tmp_path / "unpacked", ("7.5",))


def test_a_wheel_in_which_nothing_was_compiled_is_found(tmp_path: Path) -> None:
    (tmp_path / "tiny.so").write_bytes(b"")
    with pytest.raises(Failure, match="no device code at all"):
        verify.audit(tmp_path, ("7.5",))


def test_a_wheel_far_below_its_record_is_suspicious(tmp_path: Path) -> None:
    made = wheel(tmp_path, sm(75))
    assert verify.size(made, None, 1) == made.stat().st_size
    with pytest.raises(Failure, match="kernels are missing"):
        verify.size(made, 10_000_000, 1)


def test_another_version_than_asked_for_is_found(tmp_path: Path) -> None:
    made = wheel(tmp_path, sm(75))
    tools = toolchain.Toolchain("/c", "12.4.131", "12.2.0", "2.6.0", "12.4", "3.11", False)
    with pytest.raises(Failure, match=r"is not tiny 1\.1"):
        verify.check(made, verify.Wanted("tiny", "1.1", ("7.5",), {}), tools, None, {})


def test_the_version_of_nvcc_is_read_as_it_says_it() -> None:
    assert toolchain.nvcc_version("Cuda compilation tools, release 12.4, V12.4.131\nBuild cuda_12.4\n") == "12.4.131"
    with pytest.raises(Failure):
        toolchain.nvcc_version("clang 17")


def test_a_machine_without_nvcc_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no nvcc") as told:
        toolchain.find("12.4", str(tmp_path), {"PATH": str(tmp_path)})
    assert told.value.code == REFUSED


def test_only_the_cache_settings_of_a_secret_are_taken(tmp_path: Path) -> None:
    secret = tmp_path / "sccache"
    secret.write_text("SCCACHE_BUCKET=b\n# a comment\nAWS_SECRET_ACCESS_KEY = k=1\nLD_PRELOAD=/x\n\n")
    assert caches.remote_settings(secret) == {"SCCACHE_BUCKET": "b", "AWS_SECRET_ACCESS_KEY": "k=1"}
    assert caches.remote_settings(tmp_path / "none") == {}


def test_compiler_runs_are_counted_from_the_statistics() -> None:
    stats = {"stats": {"cache_misses": {"counts": {"PTX": 2, "CUBIN": 2, "CUDA": 1}}, "forced_recaches": 1}}
    assert caches.compiled(json.dumps(stats)) == 6
    assert caches.compiled("no statistics") is None


def test_a_command_line_becomes_an_order(tmp_path: Path) -> None:
    words = ["xformers", "0.1", "--cuda", "12.4", "--archs", "7.0 7.5", "--env", "A=b=c", "--env", "E="]
    order = parse([*words, "--seconds", "60"], "2")
    assert (order.archs, order.env, order.jobs, order.seconds) == (("7.0", "7.5"), {"A": "b=c", "E": ""}, 2, 60.0)
    for jobs, more in (("0", []), ("many", []), ("", ["--env", "novalue"])):
        with pytest.raises(Failure) as told:
            parse([*words, *more], jobs)
        assert told.value.code == REFUSED


def test_flash_attn_below_ampere_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flash-attn", "2.8.3", "--cuda", "13.0", "--archs", "7.5 8.0"]) == REFUSED
    assert "below 8.0" in capsys.readouterr().out


def test_the_record_is_written_beside_the_wheel(tmp_path: Path) -> None:
    made = wheel(tmp_path, sm(75))
    placed = build.deliver(made, {"schema": 1}, tmp_path / "out")
    assert placed.read_bytes() == made.read_bytes()
    assert json.loads((tmp_path / "out/kernel.json").read_text()) == {"schema": 1}


def test_what_was_spent_adds_up_over_runs(tmp_path: Path) -> None:
    assert Spent.read(tmp_path) == Spent()
    Spent(1.5, 2.5, 3, 9).write(tmp_path)
    assert Spent.read(tmp_path) == Spent(1.5, 2.5, 3, 9)


TOOLS = toolchain.Toolchain("/c", "12.4.131", "12.2.0", "2.6.0", "12.4", "3.11", False)
INFO = """
build.info:                                        available
build.torch_version:                               2.6.0+cu124
build.env.TORCH_CUDA_ARCH_LIST:                    7.0;7.5
build.nvcc_version:                                12.4.131
"""


def accounts(folder: Path, info: str = INFO, archs: str = "7.0;7.5", cuda: int = 1204) -> None:
    """Ask a stand-in of xformers that says ``info``."""
    (folder / "xformers").mkdir()
    (folder / "xformers/info.py").write_text(f"print({info!r})\nopen(__file__ + '.asked', 'w')\n")
    written = {"version": {"cuda": cuda, "torch": "2.6.0+cu124"}, "env": {"TORCH_CUDA_ARCH_LIST": archs}}
    (folder / "xformers/cpp_lib.json").write_text(json.dumps(written))
    wanted = verify.Wanted("xformers", "0.1", ("7.0", "7.5"), {})
    verify.xformers_accounts(folder, wanted, TOOLS, {"PYTHONPATH": str(folder)})


def test_xformers_accounts_of_itself_agree(tmp_path: Path) -> None:
    accounts(tmp_path)
    assert (tmp_path / "xformers/info.py.asked").exists()


@pytest.mark.parametrize(
    ("said", "instead"), [("7.0;7.5", "7.5"), ("2.6.0+cu124", "2.5.1+cu124"), ("12.4.131", "11.8.89"), ("build.", "x.")]
)
def test_an_account_of_xformers_that_disagrees_fails(tmp_path: Path, said: str, instead: str) -> None:
    with pytest.raises(Failure, match=r"xformers\.info"):
        accounts(tmp_path, INFO.replace(said, instead))


def test_what_xformers_wrote_down_must_agree_too(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cpp_lib\.json, CUDA says 1108"):
        accounts(tmp_path, cuda=1108)
