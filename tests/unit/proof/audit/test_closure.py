"""Level 1's closure: what a loader would miss is told, what is known is excused, and nothing beyond it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from images.core.errors import CheckFailed
from images.device_code.sources import read_tar
from images.proof.audit import loader_tables
from images.proof.audit.closure import Unmet, judge_closure
from images.proof.audit.loader_tables import ImageTables, Table, Want
from tests.helpers.compiled import compiled

SITE = "opt/venv/lib/python3.11/site-packages/"


def table(
    soname: str = "",
    *needed: str,
    exports: tuple[str, ...] = (),
    wants: tuple[str, ...] = (),
    paths: tuple[str, ...] = (),
    versions: tuple[str, ...] = (),
    needs: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> Table:
    """A file's table; a symbol with a version is "name@VERSION"."""
    offered: dict[str, tuple[tuple[str, bool], ...]] = {}
    for one in exports:
        name, _, version = one.partition("@")
        offered[name] = (*offered.get(name, ()), (version, True))
    wanted = tuple(Want(name, version, "") for name, _, version in (one.partition("@") for one in wants))
    return Table(soname, needed, paths, frozenset(versions), needs, offered, wanted)


def tables(**files: Table) -> ImageTables:
    """An image of these files: "a__b" is the path "a/b"; beside them a C library."""
    made = ImageTables()
    made.files["usr/lib/x86_64-linux-gnu/libc.so.6"] = table("libc.so.6", exports=("malloc",))
    made.files |= {SITE + name.replace("__", "/"): one for name, one in files.items()}
    return made


def complaints(image: ImageTables, *unmet: Unmet) -> tuple[str, ...]:
    return judge_closure(image, unmet).complaints


def test_what_is_defined_by_a_needed_library_is_met() -> None:
    image = tables(
        torch__libtorch=table("libtorch.so", "libc10.so", "libc.so.6", wants=("c10_init", "malloc")),
        torch__libc10=table("libc10.so", exports=("c10_init",)),
    )
    found = judge_closure(image, ())
    assert (found.complaints, found.known, found.files) == ((), (), 3)


def test_a_missing_library_is_named_and_not_its_symbols_too() -> None:
    image = tables(vllm__C=table("", "libcusparse.so.12", wants=("cusparseCreate",)))
    assert complaints(image) == ("vllm/C needs libcusparse.so.12, which is not in the image",)


def test_a_symbol_that_nothing_in_sight_defines_is_named() -> None:
    image = tables(a__x=table("", "libc.so.6", wants=("malloc", "gone_a", "gone_b")))
    (told,) = complaints(image)
    assert told == "a/x wants 2 symbols that nothing in sight defines: gone_a, gone_b"


def test_a_library_out_of_sight_does_not_count_and_is_told() -> None:
    image = tables(a__x=table("", wants=("far",)), b__y=table("liby.so", exports=("far",)))
    (told,) = complaints(image)
    assert "a/x wants 1 symbol that nothing in sight defines: far; b/y has the first, out of sight" in told


def test_what_loads_a_library_may_define_its_symbols() -> None:
    """As libtorch_nvshmem.so wants those of libc10_cuda.so, which libtorch_python.so brings."""
    image = tables(
        torch__python=table("libtorch_python.so", "libtorch_nvshmem.so", "libc10_cuda.so"),
        torch__nvshmem=table("libtorch_nvshmem.so", wants=("c10_cuda",)),
        torch__c10=table("libc10_cuda.so", exports=("c10_cuda",)),
    )
    assert complaints(image) == ()
    del image.files[SITE + "torch/python"]
    assert len(complaints(image)) == 1


def test_extension_modules_take_from_the_interpreter() -> None:
    image = tables(a__ext=table("", wants=("PyInit", "Expat")))
    assert len(complaints(image)) == 1
    image.files["usr/bin/python3.11"] = table("", "libexpat.so.1", exports=("PyInit",))
    image.files["usr/lib/libexpat.so.1"] = table("libexpat.so.1", exports=("Expat",))
    assert complaints(image) == ()


def test_the_driver_comes_from_the_machine_and_gives_its_own_symbols_alone() -> None:
    image = tables(vllm__C=table("", "libcuda.so.1", wants=("cuMemMap", "cufftExecC2C", "cublasCreate_v2")))
    (told,) = complaints(image)
    assert "cuMemMap" not in told
    assert "cufftExecC2C, cublasCreate_v2" in told
    assert len(complaints(tables(vllm__C=table("", wants=("cuMemMap",))))) == 1  # it does not name the driver


VERSIONED = table("libcusparse.so.12", exports=("create@libcusparse.so.12",), versions=("libcusparse.so.12",))


@pytest.mark.parametrize(
    ("wants", "needs", "told"),
    [
        ("create@libcusparse.so.12", "libcusparse.so.12", ""),
        ("create", "libcusparse.so.12", ""),
        ("create@libcusparse.so.11", "libcusparse.so.12", "create@libcusparse.so.11"),
        ("create", "libcusparse.so.11", "wants the version libcusparse.so.11 of libcusparse.so.12"),
    ],
)
def test_versions_are_held_against_each_other(wants: str, needs: str, told: str) -> None:
    user = table("", "libcusparse.so.12", wants=(wants,), needs=(("libcusparse.so.12", (needs,)),))
    found = complaints(tables(a__x=user, nvidia__libcusparse=VERSIONED))
    assert (told in found[0]) if told else found == ()


def test_a_library_without_versions_is_taken_as_it_is_and_a_plain_symbol_of_one_with_versions_too() -> None:
    user = table("", "liby.so", wants=("one@V1",), needs=(("liby.so", ("V1",)),))
    assert complaints(tables(a__x=user, b__y=table("liby.so", exports=("one",)))) == ()
    assert complaints(tables(a__x=user, b__y=table("liby.so", exports=("one",), versions=("V1",)))) == ()


def test_the_loaders_own_place_goes_before_another_of_that_name() -> None:
    image = tables(
        a__x=table("", "liby.so", wants=("one",), paths=("$ORIGIN/../own",)),
        own__real=table("liby.so", exports=()),
        b__y=table("liby.so", exports=("one",)),
    )
    assert complaints(image) == ()  # no own/liby.so: any of that SONAME
    image.link(SITE + "own/liby.so", SITE + "own/real")
    assert "a/x wants 1 symbol" in complaints(image)[0]


def test_what_is_known_is_excused_and_told_and_nothing_else_of_the_file() -> None:
    row = Unmet("torio/*", ("libav*.so.*", "libtorio.so"), "no FFmpeg here")
    image = tables(
        torio__lib=table("libtorio.so", "libavutil.so.56", wants=("av_init",)),
        torio__ext=table("", "libtorio.so", wants=("from_torio",)),
        other__x=table("", "libavutil.so.56"),
    )
    found = judge_closure(image, [row])
    assert found.complaints == ("other/x needs libavutil.so.56, which is not in the image",)
    assert [one.partition(" ")[0] for one in found.known] == ["torio/ext:", "torio/lib:"]
    assert "no FFmpeg here" in found.known[0]
    image.files[SITE + "torch/lib"] = table("libtorch.so", "libtorio.so")
    told = judge_closure(image, [row]).complaints
    assert "torch/lib needs libtorio.so, which cannot be loaded without libavutil.so.56" in told


def test_known_symbols_are_excused_by_name() -> None:
    image = tables(a__x=table("", wants=("ps_getpid", "gone")))
    found = judge_closure(image, [Unmet("a/*", ("ps_*",), "a debugger has them")])
    assert found.complaints == ("a/x wants 1 symbol that nothing in sight defines: gone",)
    assert found.known == ("a/x: without 1 symbols (a debugger has them)",)


def test_a_damaged_file_is_a_complaint() -> None:
    image = tables()
    image.elf(SITE + "a/x.so", b"\x7fELF\x02\x01" + b"\xff" * 60)
    assert complaints(image)[0].startswith("a/x.so: ")


def test_links_that_lead_in_a_circle_end() -> None:
    image = tables(a__x=table("", "liby.so"))
    image.link("usr/lib/liby.so", "usr/lib/libz.so")
    image.link("usr/lib/libz.so", "usr/lib/liby.so")
    assert complaints(image) == ("a/x needs liby.so, which is not in the image",)


def test_there_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_tables, "_MOST_LINKS", 2)
    image = tables()
    for name in ("a", "b"):
        image.link(name, "c")
    with pytest.raises(CheckFailed, match="more than 2 links"):
        image.link("d", "c")


def tar_of(folder: Path) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder, "/")
    packed.seek(0)
    return packed


def read(folder: Path) -> ImageTables:
    image = ImageTables()
    list(read_tar(tar_of(folder), image))
    return image


@pytest.mark.parametrize("held", [4 << 20, 100])
def test_a_compilers_products_are_read_out_of_a_tar(held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a name that no library has, through links, and through the temporary file."""
    monkeypatch.setattr("images.device_code.sources._HELD", held)
    place = tmp_path / SITE / "x"
    real = compiled(place / "liby.so.1.2", "int one(void) { return 1; }", "-nostdlib", soname="liby.so.1")
    user = "int one(void); int two(void) { return one(); }"
    compiled(place / "user.odd", user, str(real), "-Wl,-rpath,$ORIGIN/../links", "-nostdlib")
    (tmp_path / SITE / "links").mkdir()
    (tmp_path / SITE / "links" / "liby.so.1").symlink_to("../x/liby.so.1.2")
    image = read(tmp_path)
    assert sorted(image.files) == [f"{SITE}x/liby.so.1.2", f"{SITE}x/user.odd"]
    assert image.file_at(f"{SITE}links/liby.so.1") == f"{SITE}x/liby.so.1.2"
    assert complaints(image) == ()
    real.unlink()
    assert complaints(read(tmp_path)) == ("x/user.odd needs liby.so.1, which is not in the image",)
