"""Machine code counted without a disassembler: what nvdisasm calls each instruction, LZ4, and what an image is told."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from images.device_code.model import SASS, Entry
from images.matrix.reader import read_matrix
from images.matrix.variants import make_variants
from images.proof.kernel_code import CODE, judge_code
from images.proof.kernel_code.inside import count_machine_code as counting
from images.proof.kernel_code.machine_code import MATRIX
from tests.helpers.nonempty import nonempty

# The lower half of instructions, and what `nvdisasm -c -hex` of CUDA 12.4 and 13.0 calls them, of code that Triton 3.2
# and 3.8 had compiled for these cards; "" stands for what is not counted.
RECORDED = (
    (70, "HMMA", 0x0000002C1A1C7236),  # HMMA.884.F32.F32.STEP0
    (75, "HMMA", 0x000000341040723C),  # HMMA.1688.F32
    (75, "IMMA", 0x000000220C267237),  # IMMA.8816.S8.S8.SAT
    (75, "FFMA", 0x0000002824207223),
    (80, "HMMA", 0x00000004380C723C),  # HMMA.16816.F32
    (80, "IMMA", 0x000000281C147237),  # IMMA.16832.S8.S8.SAT
    (86, "HMMA", 0x0000003A3C34723C),
    (89, "HMMA", 0x0000003A3C34723C),
    (89, "QMMA", 0x000000061C14727A),  # QMMA.16832.F32.E4M3.E4M3
    (90, "HGMMA", 0x40E00000081879F0),  # HGMMA.64x64x16.F32
    (90, "IGMMA", 0x01E00000081879F1),  # IGMMA.64x64x32.S8.S8
    (90, "QGMMA", 0x00E00000041879F3),  # QGMMA.64x64x32.F32.E4M3.E4M3
    (100, "UTCMMA", 0x00FF1E08060075EA),  # UTCHMMA
    (100, "UTCMMA", 0x00FF1406040075EA),  # UTCIMMA
    (120, "HMMA", 0x000000300424723C),
    (120, "IMMA", 0x000000061C147237),
    (70, "", 0x0000000002207381),  # LDG.E.128.SYS
    (70, "", 0x00000A00FF017624),  # IMAD.MOV.U32
    (75, "", 0x0000006227278221),  # FADD
    (75, "", 0x000000004510783B),  # LDSM.16.M88.4
    (75, "", 0x0000000B000A7308),  # MUFU.EX2
    (90, "", 0xFFFFFFFC00FC7947),  # BRA
    (100, "", 0x00000000FF037431),  # HFMA2
    (100, "", 0x000000000314783B),  # LDSM
)


def code(*lower: int) -> bytes:
    return b"".join(struct.pack("<QQ", word, 0x000FC00000000000) for word in lower)


@pytest.mark.parametrize(("arch", "name", "word"), RECORDED)
def test_an_instruction_is_what_nvdisasm_calls_it(arch: int, name: str, word: int) -> None:
    counted = dict(counting.count(code(word, word), arch))
    assert counted == {"instructions": 2, "functions": 1, **({name: 2} if name else {})}


def test_voltas_code_is_another_on_newer_cards() -> None:
    """On 9.0 the same bits are no HMMA: nvdisasm counted 4 HGMMA and no HMMA in the function that has them."""
    assert "HMMA" not in counting.count(code(0x7236), 90)
    assert "HMMA" not in counting.count(code(0x723C), 70)


def cubin(functions: dict[str, bytes]) -> bytes:
    """An ELF file with a section of code for each function, as a cubin has them."""
    names = b"\0.shstrtab\0" + b"".join(f".text.{name}\0".encode() for name in functions)
    body, sections = bytearray(names), [struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    sections.append(struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64, len(names), 0, 0, 1, 0))
    for name, text in functions.items():
        at = names.index(f".text.{name}\0".encode())
        sections.append(struct.pack("<IIQQQQIIQQ", at, 1, 6, 0, 64 + len(body), len(text), 0, 0, 16, 0))
        body += text
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01\x33\x07", 2, 190, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64,
        len(sections), 1,
    )  # fmt: skip
    return head + bytes(body) + b"".join(sections)


def test_functions_of_a_cubin_come_with_their_names() -> None:
    made = cubin({"attend": code(0x723C, 0x7223), "other": code(0x7947)})
    found = {name: dict(counting.count(text, 75)) for name, text in counting.functions(made)}
    assert found["attend"] == {"instructions": 2, "functions": 1, "HMMA": 1, "FFMA": 1}
    assert found["other"] == {"instructions": 1, "functions": 1}


@pytest.mark.parametrize("text", [b"x", b"\x7fELF" + bytes(70), cubin({"a": b""})[:-1]])
def test_what_is_no_cubin_is_refused(text: bytes) -> None:
    with pytest.raises(counting.Unread):
        list(counting.functions(text))


# Blocks by lz4_Block_format.md, and what they become: literals, a run, a copy across its own end, a long count.
@pytest.mark.parametrize(
    ("packed", "becomes"),
    [
        (b"\x50hello", b"hello"),
        (b"\x1fa\x01\x00\x06\x50aaaaa", b"a" * 31),
        (b"\x44abcd\x04\x00\x50bcdab", b"abcdabcdabcd" + b"bcdab"),
        (b"\xf0\x05" + bytes(range(20)), bytes(range(20))),
    ],
)
def test_lz4_is_unpacked(packed: bytes, becomes: bytes) -> None:
    assert counting.unpack_lz4(packed, len(becomes)) == becomes


@pytest.mark.parametrize(
    ("packed", "size"),
    [
        (b"\x50hello", 6),
        (b"\x50hel", 5),
        (b"\x1fa\x02\x00\x06\x50aaaaa", 31),
        (b"\x1fa\x00\x00\x06\x50aaaaa", 31),
        (b"\x1fa\x01\x00\xff\xff\xff", 31),
        (b"\xf0", 20),
    ],
)
def test_broken_lz4_is_refused(packed: bytes, size: int) -> None:
    with pytest.raises(counting.Unread):
        counting.unpack_lz4(packed, size)


def entry(arch: int, suffix: str = "", kind: str = SASS) -> Entry:
    return Entry(kind, arch, suffix, (1, 7), 0, "", 64, 0, 0, 0)


@pytest.mark.parametrize(
    ("card", "archs"), [(75, [75]), (80, [80]), (86, [86]), (87, [86]), (89, [89]), (90, [90]), (120, []), (72, [70])]
)
def test_a_card_runs_the_newest_code_of_its_generation(card: int, archs: list[int]) -> None:
    every = [entry(arch) for arch in (70, 75, 80, 86, 89)] + [entry(90, "a"), entry(120, kind="PTX")]
    assert [one.arch for one in counting.best_code(every, card)] == archs


def test_code_of_one_card_alone_is_no_others() -> None:
    assert counting.best_code([entry(100, "a")], 103) == ()


def test_idle_tensor_cores_are_told_by_card() -> None:
    told = {
        "libraries": {
            "a.so": {"7.5": {"functions": 2, "FFMA": 9}, "8.0": {"functions": 2, "HMMA": 3}, "6.1": {"functions": 1}},
            "b.so": {"8.0": {"functions": 1, "IMMA": 1}},
        },
        "unread": ["c.so for 9.0: it is compressed with zstd"],
    }
    verdict = judge_code(told, ["6.1", "7.5", "8.0", "9.0"])
    assert (verdict.idle, verdict.none) == (("7.5",), ("9.0",))
    assert verdict.unread == ("c.so for 9.0: it is compressed with zstd",)
    assert verdict.told == (
        "attention's machine code: no tensor cores on 7.5, HMMA+IMMA on 8.0, no tensor cores on 6.1"
    )
    assert {row["library"] for row in verdict.rows} == {"a.so", "b.so"}


def test_nothing_found_is_nothing_told() -> None:
    assert judge_code({"libraries": {"a.so": {}}, "unread": []}, ["10.0"]).told == ""


def test_every_attention_has_its_code_or_is_tritons() -> None:
    variants = make_variants(read_matrix(Path(__file__).parents[4] / "matrix.yaml")).valid
    attentions = {variant.attention for variant in nonempty(variants.values()) if variant.archs}
    assert attentions - CODE.keys() == {"triton"}


def test_what_is_counted_is_what_is_judged() -> None:
    counted = {*counting.OPERATIONS.values(), *counting.VOLTA.values()} - {"FFMA"}
    assert counted == set(MATRIX)
