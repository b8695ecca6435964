"""What a process sees that calls a stand-in: a status, one line on stderr, and a line for each call in a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from images.core.process import Finished, run
from images.device_code.stand_ins.compiler import compile_stand_in
from images.device_code.stand_ins.names import Chosen
from images.device_code.stand_ins.source import CALLS, SAID, source, version_script
from tests.helpers.compiled import needs_gcc
from tests.helpers.nonempty import nonempty

SAYS = (
    f'{SAID}cufftPlan1d of libcufft.so.11, for "transforms" \\ é ?: this image leaves that library out; '
    "the same image with -whole at the end of its tag has it (./inv build --whole)\n"
)


def stand_in(folder: Path, soname: str, *functions: str, version: tuple[int, ...] = ()) -> Path:
    needs_gcc()
    stem = soname[3:].partition(".")[0].partition("_")[0].lower()
    chosen = Chosen(stem, soname, tuple((name, soname) for name in sorted(functions)), {})
    folder.mkdir(exist_ok=True)
    return compile_stand_in(folder, soname, source(chosen, '"transforms" \\ é ?', version), version_script(chosen))


def called(library: Path, code: str, **env: str) -> Finished:
    begin = f"import ctypes, os, threading\nlib = ctypes.CDLL({str(library)!r})\n"
    return run([sys.executable, "-c", begin + code], env={**env, "PYTHONUTF8": "1"})


def test_a_status_and_one_line(tmp_path: Path) -> None:
    library = stand_in(tmp_path, "libcufft.so.11", "cufftPlan1d", "cufftDestroy")
    done = called(library, "print(lib.cufftPlan1d(1, 2), lib.cufftPlan1d(), lib.cufftDestroy())")
    assert done.out == "16 16 16\n"
    assert done.err == SAYS


def test_a_line_for_each_call(tmp_path: Path) -> None:
    library, log = stand_in(tmp_path, "libcufft.so.11", "cufftPlan1d", "cufftDestroy"), tmp_path / "calls"
    log.write_text("before\n")
    called(library, "lib.cufftPlan1d(); lib.cufftDestroy(); lib.cufftPlan1d()", **{CALLS: str(log)})
    lines = [f"libcufft.so.11 {name}" for name in ("cufftPlan1d", "cufftDestroy", "cufftPlan1d")]
    assert log.read_text().splitlines() == ["before", *lines]


@pytest.mark.parametrize("file", ["", "/nowhere/at/all", "/"])
def test_a_file_that_cannot_be_written_changes_nothing(tmp_path: Path, file: str) -> None:
    library = stand_in(tmp_path, "libcufft.so.11", "cufftPlan1d")
    done = called(library, "print(lib.cufftPlan1d())", **{CALLS: file})
    assert (done.out, done.err) == ("16\n", SAYS)


def test_threads_and_processes_do_not_mix_their_lines(tmp_path: Path) -> None:
    library, log = stand_in(tmp_path, "libcufft.so.11", "cufftPlan1d"), tmp_path / "calls"
    code = """
if os.fork() == 0:
    os.fork()
work = [threading.Thread(target=lambda: [lib.cufftPlan1d() for _ in range(200)]) for _ in range(4)]
[one.start() for one in work]
[one.join() for one in work]
try:
    os.wait(); os.wait()
except ChildProcessError:
    pass
"""
    done = called(library, code, **{CALLS: str(log)})
    assert log.read_text() == "libcufft.so.11 cufftPlan1d\n" * 2400
    assert done.err == SAYS * 3


def test_errno_stays(tmp_path: Path) -> None:
    library = stand_in(tmp_path, "libcufft.so.11", "cufftPlan1d")
    code = f"""
lib = ctypes.CDLL({str(library)!r}, use_errno=True)
ctypes.set_errno(7)
lib.cufftPlan1d()
print(ctypes.get_errno())
"""
    assert called(library, code, **{CALLS: "/nowhere/at/all"}).out == "7\n"


def test_what_is_asked_is_answered_and_is_no_call(tmp_path: Path) -> None:
    """torch reads cuDNN's version when it is asked for its own, and the text of a status when it raises."""
    names = ("cudnnGetVersion", "cudnnGetProperty", "cudnnGetErrorString", "cudnnGetLastErrorString", "cudnnCreate")
    library = stand_in(tmp_path, "libcudnn.so.9", *names, version=(9, 24, 0, 43))
    code = """
lib.cudnnGetVersion.restype = ctypes.c_size_t
lib.cudnnGetErrorString.restype = ctypes.c_char_p
part, text = ctypes.c_int(-1), ctypes.create_string_buffer(b"........", 9)
print(lib.cudnnGetVersion(), [(lib.cudnnGetProperty(n, ctypes.byref(part)), part.value) for n in range(4)])
print(lib.cudnnGetErrorString(3000).decode())
lib.cudnnGetLastErrorString(text, 5)
print(text.raw)
print(lib.cudnnGetLastErrorString(None, 5) and 0, lib.cudnnGetProperty(0, None))
"""
    log = tmp_path / "calls"
    done = called(library, code, **{CALLS: str(log)})
    assert done.out.splitlines() == [
        "92400 [(0, 9), (0, 24), (0, 0), (3000, 0)]",
        "libcudnn.so.9 is left out of this image: not supported",
        repr(b"libc\0...\0"),
        "0 3000",
    ]
    assert done.err == ""
    assert not log.exists()


def test_other_answers(tmp_path: Path) -> None:
    nccl = stand_in(tmp_path / "a", "libnccl.so.2", "ncclGetVersion", "pncclGetVersion", version=(2, 21, 5))
    code = "v = ctypes.c_int(); print(lib.{0}GetVersion(ctypes.byref(v)), v.value)"
    for name in nonempty(["nccl", "pnccl"]):
        assert called(nccl, code.format(name)).out == "0 22105\n"
    cupti = stand_in(tmp_path / "b", "libcupti.so.12", "cuptiGetResultString", "cuptiSubscribe")
    code = "s = ctypes.c_char_p(); print(lib.cuptiGetResultString(27, ctypes.byref(s)), s.value, lib.cuptiSubscribe())"
    assert called(cupti, code).out == "0 b'libcupti.so.12 is left out of this image: not supported' 27\n"
    cufile = stand_in(tmp_path / "c", "libcufile.so.0", "cuFileRead", "cuFileUseCount", "cuFileDriverOpen")
    code = "lib.cuFileRead.restype = ctypes.c_ssize_t; print(lib.cuFileRead(), lib.cuFileUseCount(), "
    code += "lib.cuFileDriverOpen())"
    assert called(cufile, code).out == "-5007 0 5007\n"
    nvshmem = stand_in(tmp_path / "d", "libnvshmem_host.so.3", "nvshmem_malloc", "nvshmem_barrier")
    code = "lib.nvshmem_malloc.restype = ctypes.c_void_p; print(lib.nvshmem_malloc(8), lib.nvshmem_barrier())"
    assert called(nvshmem, code).out == "None 3\n"


def test_a_version_that_nobody_knows_is_not_made_up(tmp_path: Path) -> None:
    library = stand_in(tmp_path, "libcudnn.so.9", "cudnnGetVersion")
    done = called(library, "print(lib.cudnnGetVersion())")
    assert done.out == "3000\n"
    assert f"{SAID}cudnnGetVersion" in done.err
