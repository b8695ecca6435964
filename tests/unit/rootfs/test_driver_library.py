"""The driver's libraries in containers that no hook has set up: made-up folder trees, one for each kind of host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"
sys.path.insert(0, str(HERE))
import driver_library  # type: ignore[import-not-found,unused-ignore]  # noqa: E402

DEBIAN = "usr/lib/x86_64-linux-gnu"
ENV = {"CARDSTOCK_ARCHS": "7.5"}
LISTED = "\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1\n"


def container(root: Path, *files: str, cache: str = "", mounts: str = "") -> Any:
    """A container's tree with these files, the text of its loader's cache and of its mounts."""
    for name in files:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\x7fELF")
    (root / "mountinfo").write_text(mounts, encoding="utf-8")
    return driver_library.Container(root, root / "mountinfo", lambda: cache)


def handed(where: Any, base: Path, **more: str) -> dict[str, str]:
    return dict(driver_library.hand_on({**ENV, **more}, base, where).variables)


def points(base: Path) -> dict[str, str]:
    """Where the links lead."""
    return {link.name: str(link.readlink()) for link in (base / "driver").iterdir()}


def test_a_host_with_the_hook_is_left_as_it_is(tmp_path: Path) -> None:
    where = container(tmp_path, f"{DEBIAN}/libcuda.so.1", f"{DEBIAN}/libcuda.so", cache=LISTED)
    assert handed(where, tmp_path / "cache") == {}
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("cache", "also"), [("", ()), ("", (f"{DEBIAN}/libcuda.so",)), (LISTED, ())])
def test_a_cdi_spec_without_the_hook_gets_what_triton_links_with(
    cache: str, also: tuple[str, ...], tmp_path: Path
) -> None:
    where = container(tmp_path, f"{DEBIAN}/libcuda.so.1", *also, cache=cache)
    base = tmp_path / "cache"
    assert handed(where, base) == {"TRITON_LIBCUDA_PATH": str(base / "driver")}
    real = str(tmp_path / DEBIAN / "libcuda.so.1")
    assert points(base) == {"libcuda.so": real, "libcuda.so.1": real}


@pytest.mark.parametrize(
    "folder", ["usr/lib/wsl/lib", "usr/lib64", "usr/local/nvidia/lib64", "usr/lib/wsl/drivers/nv_dispi.inf_amd64_1"]
)
def test_a_folder_that_the_loader_does_not_know_is_named_to_it(folder: str, tmp_path: Path) -> None:
    where = container(tmp_path, f"{folder}/libcuda.so.1", f"{folder}/libcuda.so", f"{folder}/libnvidia-ml.so.1")
    base = tmp_path / "cache"
    got = handed(where, base, LD_LIBRARY_PATH="/mine")
    assert got["TRITON_LIBCUDA_PATH"] == str(base / "driver")
    assert got["LD_LIBRARY_PATH"] == f"{base / 'driver'}:{tmp_path / folder}:/mine"
    assert {"libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1"} == points(base).keys()


def test_a_file_with_its_version_alone_gets_the_name_it_is_loaded_by(tmp_path: Path) -> None:
    names = ("libcuda.so.535.9.1", "libcuda.so.535.104.05", "libnvidia-ptxjitcompiler.so.535.104.05")
    where = container(tmp_path, *(f"{DEBIAN}/{name}" for name in names))
    base = tmp_path / "cache"
    got = handed(where, base)
    assert got["LD_LIBRARY_PATH"].split(":")[0] == str(base / "driver")
    lib = tmp_path / DEBIAN
    assert points(base) == {
        "libcuda.so": str(lib / "libcuda.so.535.104.05"),
        "libcuda.so.1": str(lib / "libcuda.so.535.104.05"),
        "libnvidia-ptxjitcompiler.so.1": str(lib / "libnvidia-ptxjitcompiler.so.535.104.05"),
    }


def test_wherever_a_cdi_spec_mounts_it_the_mounts_tell(tmp_path: Path) -> None:
    line = r"36 35 0:1 /x /nix/store/a\040b/lib/libcuda.so.580.95.05 ro,nosuid - ext4 /dev/sda1 rw"
    where = container(tmp_path, "nix/store/a b/lib/libcuda.so.580.95.05", mounts=f"1 2 3\n{line}\n")
    got = handed(where, tmp_path / "cache")
    assert str(tmp_path / "nix/store/a b/lib") in got["LD_LIBRARY_PATH"].split(":")
    assert points(tmp_path / "cache")["libcuda.so.1"].endswith("a b/lib/libcuda.so.580.95.05")


def test_what_the_user_says_is_left_and_another_driver_moves_the_links(tmp_path: Path) -> None:
    base = tmp_path / "cache"
    where = container(tmp_path, f"{DEBIAN}/libcuda.so.535.1.1")
    assert "TRITON_LIBCUDA_PATH" not in handed(where, base, TRITON_LIBCUDA_PATH="/mine")
    (tmp_path / DEBIAN / "libcuda.so.535.1.1").rename(tmp_path / DEBIAN / "libcuda.so.550.1.1")
    handed(where, base)
    assert points(base)["libcuda.so.1"].endswith("libcuda.so.550.1.1")
    assert not list((base / "driver").glob(".*"))


def test_without_a_driver_or_a_card_nothing_is_done(tmp_path: Path) -> None:
    assert handed(container(tmp_path), tmp_path / "cache") == {}
    where = container(tmp_path, "usr/lib64/libcuda.so.1")
    assert handed(where, tmp_path / "cache", CARDSTOCK_ARCHS="") == {}
    assert not (tmp_path / "cache").exists()


def test_links_that_cannot_be_made_are_told_and_end_nothing(tmp_path: Path) -> None:
    where = container(tmp_path, "usr/lib64/libcuda.so.1")
    (tmp_path / "file").write_text("")
    got = driver_library.hand_on(ENV, tmp_path / "file", where)
    assert got.variables == {} and "cannot be made" in got.told and "going on" in got.told


def test_a_mount_that_is_not_there_and_a_cache_that_lies_are_passed_over(tmp_path: Path) -> None:
    where = container(tmp_path, mounts="36 35 0:1 / /gone/libcuda.so.1 ro - ext4 a b\n", cache=LISTED + "nonsense\n")
    assert handed(where, tmp_path / "cache") == {}


def test_a_library_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    assert driver_library.lacking(lambda name: name) == ""

    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    assert "libcuda.so.1: cannot open" in driver_library.lacking(refuse)
