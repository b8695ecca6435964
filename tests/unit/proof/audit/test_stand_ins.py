"""Level 1's look at stand-ins: listed, meant, their own library's names alone, and in nobody's way."""

from __future__ import annotations

from pathlib import Path

from images.device_code.stand_ins.made import Made, StandIn, dumps
from images.device_code.stand_ins.source import SAID
from images.proof.audit.loader_tables import ImageTables
from images.proof.audit.stand_ins import judge_stand_ins
from tests.helpers.compiled import compiled
from tests.unit.proof.audit.test_closure import SITE, read, table

FILE = "nvidia/cufft/lib/libcufft.so.11"
GLOB = "nvidia/*/lib/libcufft.so.*"


def image(*exports: str, name: str = FILE, soname: str = "libcufft.so.11") -> ImageTables:
    """An image with one stand-in, as listed."""
    made = ImageTables()
    made.files[SITE + name] = table(soname, exports=exports or ("cufftCreate", "cufftExecC2C"))
    made.stand_ins[SITE + name] = made.listed[SITE + name] = "0" * 64
    return made


def test_a_listed_one_that_the_matrix_means_passes() -> None:
    assert judge_stand_ins(image(), [GLOB]) == ()
    assert judge_stand_ins(image("cudnnCreate", name="n/libcudnn_ops.so.9", soname="libcudnn_ops.so.9"), ["n/*"]) == ()
    assert judge_stand_ins(ImageTables(), []) == ()


def test_one_that_no_list_has_and_one_that_is_listed_and_is_not_there_are_told() -> None:
    unlisted = image()
    unlisted.listed.clear()
    assert judge_stand_ins(unlisted, [GLOB]) == (f"{FILE} is a stand-in, and no list of the image's has it",)
    lost = image()
    del lost.files[SITE + FILE], lost.stand_ins[SITE + FILE]
    assert f"{FILE} is listed as a stand-in, and is not there" in judge_stand_ins(lost, [GLOB])
    real = image()
    real.stand_ins.clear()
    told = judge_stand_ins(real, [GLOB])
    assert f"{FILE} is listed as a stand-in, and is none" in told
    assert f"{FILE} is there, and the matrix leaves it out ({GLOB})" in told
    other = image()
    other.listed[SITE + FILE] = "1" * 64
    assert "its SHA-256 differs" in judge_stand_ins(other, [GLOB])[0]


def test_the_matrix_and_the_image_say_the_same() -> None:
    assert judge_stand_ins(image(), []) == (f"{FILE} is a stand-in, and the matrix names none there",)
    told = judge_stand_ins(image(), [GLOB, "nvidia/*/lib/libcurand.so.*"])
    assert told == ("nothing stands in for nvidia/*/lib/libcurand.so.*, which the matrix names",)
    more = image()
    more.files[f"{SITE}nvidia/nvjitlink/lib/libnvJitLink.so.12"] = table("libnvJitLink.so.12")
    gone = judge_stand_ins(more, [GLOB], ["nvidia/*/lib/libnvJitLink.so.*"])
    assert gone[0].startswith("nvidia/nvjitlink/lib/libnvJitLink.so.12 is there, and the matrix leaves it out")


def test_names_of_others_are_refused() -> None:
    told = judge_stand_ins(image("cufftCreate", "_ZSt4cout", "malloc"), [GLOB])
    assert told == (f"{FILE} defines what is not its own library's: _ZSt4cout, malloc",)


def test_one_that_shadows_another_library_is_refused() -> None:
    made = image()
    made.files[f"{SITE}cupy/libcufft-bundled.so"] = table("libcufft-bundled.so", exports=("cufftExecC2C",))
    told = judge_stand_ins(made, [GLOB])
    assert told == (f"{FILE} defines what cupy/libcufft-bundled.so defines as well: cufftExecC2C",)


def test_they_are_known_by_their_sentence_and_their_list_is_read_in_the_same_pass(tmp_path: Path) -> None:
    source = f'static const char text[] = "{SAID}"; long cufftCreate(long at) {{ return text[at]; }}'
    place = tmp_path / SITE
    compiled(place / FILE, source, "-nostdlib", soname="libcufft.so.11")
    found = read(tmp_path)
    assert list(found.stand_ins) == [SITE + FILE]
    digest = found.stand_ins[SITE + FILE]
    row = StandIn(FILE, "libcufft.so.11", "Fourier", 1, {}, 1, digest, 2, "0" * 64, "nvidia-cufft-cu12 11")
    info = place / "cardstock_stand_ins-0.1.0.dist-info"
    info.mkdir()
    (info / "stand_ins.json").write_text(dumps(Made((row,))))
    assert judge_stand_ins(read(tmp_path), [GLOB]) == ()
    (info / "stand_ins.json").write_text('{"stand_ins": [{"file": 3}], "padding": "' + "x" * 64 + '"}')
    told = judge_stand_ins(read(tmp_path), [GLOB])
    assert "is no list of stand-ins" in told[0]
    assert len(told) == 2
