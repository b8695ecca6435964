"""Which functions a stand-in has: the library's own, and never what another library has as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.device_code.dynamic import Dynamic, Kind, Symbol, read_dynamic
from images.device_code.stand_ins.names import StandInError, choose, stem_of
from tests.helpers import site_packages


def library(*symbols: Symbol, soname: str = "libcufft.so.11") -> Dynamic:
    return Dynamic(soname, (), (), (), (), (), symbols)


def function(name: str, version: str = "V", *, default: bool = True, kind: Kind = Kind.FUNCTION) -> Symbol:
    return Symbol(name, version, "", True, False, default, True, kind, 8)


def names(*symbols: Symbol, soname: str = "libcufft.so.11") -> list[str]:
    return [name for name, _ in choose(library(*symbols, soname=soname)).functions]


@pytest.mark.parametrize(
    ("soname", "stem"),
    [
        ("libcudnn_ops.so.9", "cudnn"),
        ("libcusparseLt.so.0", "cusparselt"),
        ("libnvJitLink.so.12", "nvjitlink"),
        ("libnvrtc-builtins.alt.so.13.0", "nvrtc"),
        ("libnvshmem_host.so.3", "nvshmem"),
        ("libnvtx3interop.so.1", "nvtx"),
        ("libcublasLt.so", "cublaslt"),
    ],
)
def test_the_bare_name_of_a_library(soname: str, stem: str) -> None:
    assert stem_of(soname).startswith(stem)


@pytest.mark.parametrize("soname", ["", "cufft.so", "libcufft", 'lib".so.1', "lib/../x.so", "lib1.so", "libé.so.1"])
def test_no_name_of_a_library(soname: str) -> None:
    with pytest.raises(StandInError, match="SONAME"):
        stem_of(soname)


def test_of_a_real_library_the_c_functions_of_its_prefix(tmp_path: Path) -> None:
    found = read_dynamic(site_packages.cufft(tmp_path))
    assert found is not None
    chosen = choose(found)
    assert list(chosen.functions) == [(name, "libcufft.so.11") for name in site_packages.FUNCTIONS]
    assert chosen.left_out == {"C++": 2, "data": 1, "of another prefix": 1}


def test_prefixes_that_are_not_the_name() -> None:
    assert names(function("ncclSend"), function("pncclSend"), function("xncclSend"), soname="libnccl.so.2") == [
        "ncclSend",
        "pncclSend",
    ]
    assert names(function("nvtxMarkA"), function("nvToolsExt"), soname="libnvToolsExt.so.1") == ["nvtxMarkA"]
    assert names(function("cuFileRead", ""), function("_init", ""), soname="libcufile.so.0") == ["cuFileRead"]
    assert names(function("__nvJitLinkCreate_12_4"), soname="libnvJitLink.so.12") == ["__nvJitLinkCreate_12_4"]


@pytest.mark.parametrize(
    "name", ["_ZTVN10__cxxabiv117__class_type_infoE", "_ZNSt6vectorIiE4sizeEv", "malloc", "deflate"]
)
def test_never_what_others_have_too(name: str) -> None:
    assert name not in names(function(name), function("cufftPlan1d"))


@pytest.mark.parametrize(
    ("symbols", "says"),
    [
        ([], "exports no function that begins with cufft"),
        ([function("other")], "exports no function that begins with cufft"),
        ([function("cufftX", "A"), function("cufftX", "B", default=False)], "several versions"),
        ([function("cufftX", "A", default=False)], "several versions"),
        ([function("cufftX"), function("cufftTable", "", kind=Kind.DATA)], "data without a version, cufftTable"),
        ([function("cufftX.cold")], "no names for C"),
        ([function("cufftX", "V; }")], "no names for C"),
        ([function("cufft" + "x" * 300)], "no names for C"),
    ],
)
def test_what_nothing_can_stand_in_for(symbols: list[Symbol], says: str) -> None:
    with pytest.raises(StandInError, match=says):
        choose(library(*symbols))
