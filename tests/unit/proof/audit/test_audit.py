"""The audit: the driver's rule, what is read from folders, wheels and tars, and what the command prints."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from images.core.errors import CheckFailed, UsageError
from images.core.report import Report
from images.device_code import audit as auditing
from images.device_code.fatbin import FatbinError, read
from images.device_code.sources import may_hold_code, read_folder, read_tar, read_wheel
from images.device_code.verdict import covers, driver_for, judge, label, parse_capability, pick
from images.docker.engine import Engine
from images.proof.audit.target import audit_command, audit_path, audit_target
from tests.helpers.elf_files import PTX, A, Code, F, container, library, sm
from tests.helpers.nonempty import nonempty


def kind(card: str, *codes: Code) -> str:
    return judge(read(library([container(*codes)])), parse_capability(card)).kind


@pytest.mark.parametrize(
    ("card", "codes", "expected"),
    [
        ("7.5", [Code(75)], "native"),
        ("7.5", [Code(70)], "lower minor"),
        ("8.9", [Code(80), Code(90)], "lower minor"),
        ("8.0", [Code(86)], "none"),
        ("8.0", [Code(75)], "none"),
        ("9.0", [Code(80, PTX)], "ptx"),
        ("7.5", [Code(80, PTX)], "none"),
        ("9.0", [Code(90, flags=A)], "native"),
        ("10.3", [Code(100, flags=A)], "none"),
        ("10.3", [Code(100, flags=F)], "lower minor"),
        ("12.0", [Code(100, flags=F)], "none"),
        ("12.0", [Code(90, PTX, flags=A)], "none"),
        ("9.0", [Code(90, PTX, flags=A)], "ptx"),
        ("10.3", [Code(100, PTX, flags=F)], "ptx"),
        ("12.0", [Code(100, PTX, flags=F)], "none"),
        ("7.5", [Code(75, 0x10)], "unknown"),
        ("12.1", [Code(121)], "native"),
        ("7.5", [], "none"),
    ],
)
def test_the_drivers_rule(card: str, codes: list[Code], expected: str) -> None:
    assert kind(card, *codes) == expected


def test_the_driver_takes_sass_before_ptx_and_the_highest_of_each() -> None:
    codes = [Code(70), Code(80), Code(86), Code(75, PTX), Code(90, PTX), Code(90, flags=A), Code(90)]
    box = read(library([container(*codes)])).containers[0]
    picked = {card: pick(box, parse_capability(card)) for card in ("7.5", "8.9", "9.0", "10.0", "6.0")}
    result = {card: None if entry is None else label(entry) for card, entry in picked.items()}
    assert result == {"7.5": "7.0", "8.9": "8.6", "9.0": "9.0a", "10.0": "PTX 9.0", "6.0": None}


def test_a_library_is_as_good_as_its_worst_container() -> None:
    whole = [sm(75, 80), container(Code(70)), container(Code(60, PTX, version=(8, 4)))]
    found = judge(read(library(whole)), (7, 5))
    assert (found.kind, found.containers, found.driver) == ("ptx", 3, "driver 550 (CUDA 12.4)")
    missing = read(library([*whole, sm(80, 90), container(Code(90, flags=A))]))
    verdict = judge(missing, (7, 5))
    assert (verdict.kind, verdict.covers) == ("partly", False)
    assert [one.offset for one in verdict.lacking] == [one.offset for one in missing.containers[3:]]
    assert verdict.lacking_hold() == {"8.0 9.0": 1, "9.0a": 1}
    assert auditing.cell(verdict) == "partly: 2 of 5 lack it; ptx, driver 550 (CUDA 12.4)"


def test_covers_takes_text_or_numbers() -> None:
    found = read(library([sm(75), sm(75, 80)]))
    assert covers(found, "7.5")
    assert not covers(found, (8, 0))
    assert covers(read(library()), "7.5")


@pytest.mark.parametrize("text", ["", "7", "7.55", "0.5", "7.6", "12.9", "-7.5"])
def test_what_is_no_capability(text: str) -> None:
    with pytest.raises(ValueError, match="compute capability"):
        parse_capability(text)


def test_the_driver_that_ptx_needs() -> None:
    assert driver_for((8, 4)) == "driver 550 (CUDA 12.4)"
    assert driver_for((4, 3)) == "any driver"
    assert driver_for((99, 1)) == "a driver that knows PTX 99.1"


@pytest.mark.parametrize(
    "name", ["lib.so", "a/libx.so.12", "libx.so.1.2.3", "ollama", "python3.11", "x.cpython-311-x86_64-linux-gnu.so"]
)
def test_names_that_may_hold_code(name: str) -> None:
    assert may_hold_code(name)


@pytest.mark.parametrize("name", ["a.py", "x.json", "y.h", "model.safetensors"])
def test_names_that_hold_none(name: str) -> None:
    assert not may_hold_code(name)


FILES = {
    "torch/lib/libtorch_cuda.so": library([sm(75, 80), sm(75, 80)]),
    "torch/lib/libc10.so": library(),
    "vllm/_C.abi3.so": library([sm(80), sm(75, 80)]),
    "torch/__init__.py": b"import os\n",
    "torch/notes.so": b"not ELF at all" * 10,
}


def folder_of(files: dict[str, bytes], root: Path) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def wheel_of(files: dict[str, bytes], path: Path, method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path


def tar_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            link = tarfile.TarInfo(name + ".so")
            link.type, link.linkname = tarfile.LNKTYPE, name
            tar.addfile(link)
    return packed.getvalue()


@pytest.mark.parametrize("held", [4 << 20, 10])
def test_a_folder_a_wheel_and_a_tar_tell_the_same(held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.device_code.sources._HELD", held)  # 10: through the temporary file
    folder = folder_of(FILES, tmp_path / "site")
    (folder / "loop").symlink_to(folder)
    (folder / "libagain.so").symlink_to(folder / "torch/lib/libtorch_cuda.so")
    os.mkfifo(folder / "pipe.so")
    expected = dict(read_folder(folder))
    assert sorted(expected) == ["torch/lib/libc10.so", "torch/lib/libtorch_cuda.so", "vllm/_C.abi3.so"]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert dict(read_wheel(wheel_of(FILES, tmp_path / "a.whl", method))) == expected
    assert dict(read_tar(io.BytesIO(tar_of(FILES)))) == expected
    found = auditing.audit("x", expected.items())
    assert [one.name for one in found.libraries] == ["torch/lib/libtorch_cuda.so", "vllm/_C.abi3.so"]
    assert found.others == 1
    assert list(found.failing([(7, 5), (8, 0)])) == ["vllm/_C.abi3.so"]


def test_a_tar_of_a_whole_file_system_is_named_from_the_root_however_it_writes_that() -> None:
    """As engines copy it out of a container: every name from "/" on."""
    files = FILES | {"proc/self/lib.so": FILES["torch/lib/libc10.so"]}
    rooted = tar_of({f"/{name}": content for name, content in files.items()})
    assert dict(read_tar(io.BytesIO(rooted))) == dict(read_tar(io.BytesIO(tar_of(FILES))))


def test_a_tar_that_was_cut_anywhere_is_an_error() -> None:
    whole = tar_of(FILES)
    whole = whole[: len(whole.rstrip(b"\0")) // 512 * 512 + 512 + 1024]
    for size in nonempty(range(0, len(whole) - 1024, 512)):
        with pytest.raises(tarfile.TarError):
            list(read_tar(io.BytesIO(whole[:size])))


def test_a_damaged_library_covers_nothing_and_does_not_hide_the_others(tmp_path: Path) -> None:
    damaged = library([sm(75)])[:-100]
    folder = folder_of(FILES | {"bad.so": damaged}, tmp_path)
    found = audit_path(folder)
    assert isinstance(dict(read_folder(folder))["bad.so"], FatbinError)
    assert [one.name for one in found.libraries if one.problem] == ["bad.so"]
    assert auditing.summarise(found, (7, 5)) == "damaged"
    with pytest.raises(CheckFailed, match="cannot be read") as caught:
        audit_command(str(folder), [], json=True, report=quiet())
    assert "at byte" in caught.value.cause


def quiet() -> Report:
    return Report(io.StringIO(), io.StringIO(), live=False)


def test_json_stands_alone_and_has_every_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(FILES, tmp_path)
    with pytest.raises(CheckFailed, match=r"1 of 2 libraries lack code for 7\.5"):
        audit_command(str(folder), ["7.5", "sm_80", "8.0"], json=True, report=quiet())
    data = json.loads(capsys.readouterr().out)
    assert data["cards"] == {"7.5": "partly", "8.0": "native"}
    assert data["without_device_code"] == 1
    rows = {row["name"]: row for row in data["libraries"]}
    assert rows["torch/lib/libtorch_cuda.so"]["archs"] == {"7.5": 2, "8.0": 2}
    lacking = rows["vllm/_C.abi3.so"]["verdicts"]["7.5"]
    first = read(FILES["vllm/_C.abi3.so"]).containers[0]
    assert lacking == {"verdict": "partly", "lacking": [first.offset], "lacking_hold": {"8.0": 1}}


def test_the_table_and_the_gaps_of_named_cards(tmp_path: Path) -> None:
    out = io.StringIO()
    with pytest.raises(CheckFailed):
        audit_command(str(folder_of(FILES, tmp_path)), ["7.5"], json=False, report=Report(out, io.StringIO()))
    lines = [line.split("  ") for line in out.getvalue().splitlines()]
    assert [cell.strip() for cell in lines[2] if cell] == ["vllm/_C.abi3.so", "2", "7.5 8.0", "partly: 1 of 2 lack it"]
    assert [cell.strip() for cell in lines[-1] if cell] == ["vllm/_C.abi3.so", "7.5", "1", "8.0"]


def test_without_named_cards_a_gap_is_no_failure(tmp_path: Path) -> None:
    out = io.StringIO()
    audit_command(str(folder_of(FILES, tmp_path)), [], json=False, report=Report(out, io.StringIO()))
    assert "partly: 1 of 2 lack it" in out.getvalue()


@pytest.mark.parametrize("target", ["./absent", "/absent/lib.so", "absent.whl"])
def test_a_path_that_is_not_there_is_a_usage_error_without_an_engine(target: str) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        audit_target(target)


def test_a_file_of_another_kind_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no library")
    with pytest.raises(UsageError, match="no library, wheel or folder"):
        audit_path(tmp_path / "notes.txt")


def test_a_broken_wheel_is_reported(tmp_path: Path) -> None:
    path = wheel_of(FILES, tmp_path / "a.whl", zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[120:160] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(CheckFailed, match="cannot be read to its end"):
        audit_path(path)


class FakeEngine:
    """An engine of one image and one container, exported in small chunks."""

    endpoint = "unix:///engine.sock"

    def __init__(self, content: bytes) -> None:
        self._content = content

    def inspect(self, reference: str) -> object | None:
        return object() if reference == "image:1" else None

    def _chunks(self) -> Iterator[bytes]:
        return (self._content[at : at + 1000] for at in range(0, len(self._content), 1000))

    @contextmanager
    def export_tar(self, reference: str) -> Iterator[Iterator[bytes]]:
        yield self._chunks()

    @contextmanager
    def export_container(self, name: str) -> Iterator[Iterator[bytes] | None]:
        yield self._chunks() if name == "box" else None


def test_images_and_containers_are_streamed() -> None:
    engine = cast("Engine", FakeEngine(tar_of(FILES)))
    for name in ("image:1", "box"):
        found = audit_target(name, engine)
        assert [one.name for one in found.libraries] == ["torch/lib/libtorch_cuda.so", "vllm/_C.abi3.so"]
    with pytest.raises(UsageError, match="nothing is named other"):
        audit_target("other", engine)
    with pytest.raises(CheckFailed, match="cannot be read to its end"):
        audit_target("box", cast("Engine", FakeEngine(tar_of(FILES)[:5000])))
