"""The check of a product against the real library finds what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.device_code.dynamic import read_dynamic
from images.device_code.stand_ins.compiler import check_product, compile_stand_in
from images.device_code.stand_ins.names import StandInError, choose
from tests.helpers import site_packages
from tests.helpers.compiled import compiled, needs_gcc

GOOD = "int cufftPlan1d(void) { return 16; } int cufftGetProperty(void) { return 16; }"
GOOD += "int cufftGetErrorString(void) { return 0; } int __cufftInner(void) { return 16; }"


@pytest.mark.parametrize(
    ("source", "version", "soname", "says"),
    [
        (GOOD, "libcufft.so.11", "libcufft.so.12", "SONAME 'libcufft.so.12' instead of 'libcufft.so.11'"),
        (GOOD, "libcufft.so.12", "", "exports beyond the real library's: __cufftInner"),
        (GOOD + "int cufftMore(void) { return 0; }", "libcufft.so.11", "", "beyond the real library's: cufftMore"),
        ("int cufftPlan1d(void) { return 16; }", "libcufft.so.11", "", "differ from the choice: __cufftInner"),
        (GOOD + "int otherPlan1d(void) { return 0; }", "libcufft.so.11", "", "differ from the choice: otherPlan1d"),
    ],
)
def test_a_wrong_product(tmp_path: Path, source: str, version: str, soname: str, says: str) -> None:
    real = read_dynamic(site_packages.cufft(tmp_path / "real"))
    assert real is not None
    versions = f"{version} {{ global: *; }};"
    product = compiled(tmp_path / "libcufft.so.11", source, soname=soname, versions=versions)
    with pytest.raises(StandInError, match=says):
        check_product(product, real, choose(real))


def test_a_product_that_needs_more_than_the_c_library(tmp_path: Path) -> None:
    real = read_dynamic(site_packages.cufft(tmp_path / "real"))
    assert real is not None
    source = GOOD.replace("return 0;", "extern double cbrt(double); return cbrt(x);").replace(
        "int cufftGet", "volatile double x; int cufftGet", 1
    )
    product = compiled(
        tmp_path / "libcufft.so.11", source, "-lm", versions="libcufft.so.11 { global: cufft*; __cufft*; local: *; };"
    )
    with pytest.raises(StandInError, match=r"needs .*libm\.so\.6"):
        check_product(product, real, choose(real))


@pytest.mark.parametrize(
    ("content", "says"), [(b"text", "no loader takes"), (b"\x7fELF\x02\x01" + b"\xff" * 90, "damaged")]
)
def test_a_product_that_is_none(tmp_path: Path, content: bytes, says: str) -> None:
    real = read_dynamic(site_packages.cufft(tmp_path / "real"))
    assert real is not None
    (tmp_path / "libcufft.so.11").write_bytes(content)
    with pytest.raises(StandInError, match=says):
        check_product(tmp_path / "libcufft.so.11", real, choose(real))


def test_what_gcc_says_is_told(tmp_path: Path) -> None:
    needs_gcc()
    with pytest.raises(StandInError, match=r"gcc failed with libx\.so: .*error"):
        compile_stand_in(tmp_path, "libx.so", "no C at all", "{ local: *; };")
