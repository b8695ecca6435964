"""The tiny checkpoint: the same bytes everywhere, weights exact in every precision, files that engines can read."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys
import zlib
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from packaging.version import Version
from safetensors.numpy import load

from images.core import process
from images.core.errors import UsageError
from images.proof.tiny_model import checkpoint, golden, picture, tokenizer
from images.proof.tiny_model import weights as tiny_weights
from images.run.fit.config import from_config
from images.run.fit.families import KNOWN
from images.run.fit.weights import vision_weights
from tests.helpers.nonempty import nonempty


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return checkpoint.files()


@pytest.fixture(scope="module", params=checkpoint.FAMILIES, ids=lambda tiny: tiny.family)
def weights(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(checkpoint.files(request.param)["model.safetensors"])


@pytest.mark.parametrize("tiny", checkpoint.FAMILIES, ids=lambda tiny: tiny.family)
def test_every_file_has_the_digest_the_golden_answers_were_made_from(tiny: checkpoint.Tiny) -> None:
    digests = {name: hashlib.sha256(body).hexdigest() for name, body in checkpoint.files(tiny).items()}
    assert digests == json.loads(tiny.golden.read_text())["sha256"]


@pytest.mark.parametrize("tiny", checkpoint.FAMILIES, ids=lambda tiny: tiny.family)
def test_fit_reads_each_familys_checkpoint_as_what_it_is(tiny: checkpoint.Tiny) -> None:
    found = from_config(json.loads(checkpoint.files(tiny)["config.json"]))
    assert (found.shape.family, found.form, found.group) == (tiny.family, "awq", 128)
    # Half-precision tensors that are not quantised linears of the decoder: tower, table, head, norms, biases.
    plain = {name: one for name, one in tiny.tensors().items() if one.dtype == np.float16 and "scales" not in name}
    seen = sum(one.size for name, one in plain.items() if "visual" in name)
    assert vision_weights(found, 1) == 2 * seen
    assert KNOWN[found.shape.family].transformers <= Version(tiny.transformers) or tiny.transformers == "0"


def test_another_process_with_another_hash_seed_makes_the_same_bytes(files: dict[str, bytes]) -> None:
    whole = "hashlib.sha256(b''.join(files().values())).hexdigest()"
    code = f"import hashlib; from images.proof.tiny_model.checkpoint import files; print({whole})"
    done = process.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], env={"PYTHONHASHSEED": "7"})
    assert done.out.strip() == hashlib.sha256(b"".join(files.values())).hexdigest()


def test_the_generator_gives_the_numbers_of_splitmix64() -> None:
    def reference(name: str, count: int, limit: int) -> list[int]:
        mask, state = 2**64 - 1, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        out = []
        for _ in range(count):
            state = (state + 0x9E3779B97F4A7C15) & mask
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            out.append((((z ^ (z >> 31)) >> 32) * limit) >> 32)
        return out

    assert tiny_weights.integers("some.name", (40,), 255).tolist() == reference("some.name", 40, 255)


@given(
    arrays.arrays(
        np.int64, st.tuples(st.integers(1, 9), st.integers(1, 6).map(lambda n: 8 * n)), elements=st.integers(0, 15)
    )
)
def test_unpacking_gives_back_what_was_packed(values: Any) -> None:
    words = tiny_weights.pack(values)
    assert words.dtype == np.int32 and words.shape == (values.shape[0], values.shape[1] // 8)
    assert np.array_equal(tiny_weights.unpack(words), values)


def test_the_packing_is_the_gemm_layout() -> None:
    assert tiny_weights.pack(np.arange(8)[None]).view(np.uint32)[0, 0] == 0x75316420


@pytest.mark.parametrize("bad", [np.zeros((2, 7), np.int64), np.full((1, 8), 16), np.full((1, 8), -1)])
def test_packing_refuses_what_does_not_fit(bad: Any) -> None:
    with pytest.raises(ValueError, match="4-bit packing"):
        tiny_weights.pack(bad)


def _bfloat16(values: Any) -> Any:
    """Round-trip through bfloat16 by cutting the low half of the float32: exact only if that half is zero."""
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def test_every_weight_is_exact_in_bfloat16(weights: dict[str, Any]) -> None:
    for name in nonempty(name for name, array in weights.items() if array.dtype == np.float16):
        assert np.array_equal(_bfloat16(weights[name]), weights[name].astype(np.float32)), name
    for name in nonempty(name for name in weights if name.endswith(".qweight")):
        base = name.removesuffix("qweight")
        zeros = np.repeat(tiny_weights.unpack(weights[base + "qzeros"]), tiny_weights.GROUP, axis=0)
        scales = np.repeat(weights[base + "scales"], tiny_weights.GROUP, axis=0).astype(np.float32)
        real = ((tiny_weights.unpack(weights[name]) - zeros) * scales).astype(np.float32)
        assert np.array_equal(_bfloat16(real), real), name
        assert np.array_equal(real.astype(np.float16).astype(np.float32), real), name


def test_the_shapes_pass_the_engines_checks(weights: dict[str, Any]) -> None:
    """AWQ: inputs in whole groups, outputs in eights; Marlin: inputs in 128, outputs in 64, also per projection."""
    quantised = [name for name in weights if name.endswith(".qweight")]
    assert len(quantised) == 7 * tiny_weights.LAYERS and not any("visual" in name for name in quantised)
    for name in quantised:
        inputs, words = weights[name].shape
        assert inputs % 128 == 0 and words * 8 % 64 == 0, name
        assert weights[name.replace("qweight", "scales")].shape == (inputs // 128, words * 8)
    config = json.loads(checkpoint.files()["config.json"])
    assert sum(config["rope_scaling"]["mrope_section"]) * 2 == tiny_weights.HEAD_DIM
    vision = config["vision_config"]
    assert set(range(vision["depth"])) - set(vision["fullatt_block_indexes"]), "a windowed block is wanted too"


def test_an_equal_checkpoint_is_left_alone_and_a_broken_one_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    info = checkpoint.write_checkpoint(folder)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert checkpoint.write_checkpoint(folder) == info
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    (folder / "config.json").write_text("{}")
    assert checkpoint.write_checkpoint(folder) == info
    assert (folder / "config.json").read_bytes() == checkpoint.files()["config.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_of_someone_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        checkpoint.write_checkpoint(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_words_are_single_tokens_and_id_0_is_the_exclamation_mark() -> None:
    assert tokenizer.vocabulary()["!"] == 0
    ids = [*tokenizer.vocabulary().values(), *tokenizer.special_ids().values()]
    assert sorted(ids) == list(range(tokenizer.vocab_size()))
    for word in [*tokenizer.FIRST, *(f" {word}" for word in tokenizer.LATER)]:
        assert tokenizer.token_id(word) in ids


def test_a_token_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        tokenizer.token_id("antidisestablishmentarianism")


@pytest.mark.parametrize("tiny", checkpoint.FAMILIES, ids=lambda tiny: tiny.family)
def test_golden_answers_lead_by_far_and_differ_by_picture(tiny: checkpoint.Tiny) -> None:
    cases = {case["name"]: case for case in json.loads(tiny.golden.read_text())["cases"]}
    assert min(gap for case in cases.values() for gap in case["gaps"]) > 4
    assert cases["picture-red"]["input_ids"] == cases["picture-blue"]["input_ids"]
    assert cases["picture-red"]["tokens"] != cases["picture-blue"]["tokens"]


@pytest.mark.parametrize("tiny", checkpoint.FAMILIES, ids=lambda tiny: tiny.family)
def test_every_golden_case_is_the_one_the_code_describes(tiny: checkpoint.Tiny) -> None:
    described, told = golden.golden_cases(tiny), json.loads(tiny.golden.read_text())
    assert [case["name"] for case in told["cases"]] == [case.name for case in described]
    assert 2 * told.get("patch", 14) == tiny.side
    for record, case in zip(told["cases"], described, strict=True):
        assert record["messages"] == list(case.messages)
        assert record["tokens"] == [tokenizer.token_id(token) for token in case.answer]
        for name, spec in zip(record["pictures"], case.pictures, strict=True):
            stored = zlib.decompress(base64.b64decode(told["pictures"][name]["rgb_zlib"]))
            assert stored == picture.pixels(*spec)
            assert spec[1] % tiny.side == spec[2] % tiny.side == 0  # nothing is resized


def _read_png(data: bytes) -> tuple[int, int, bytes]:
    """Width, height and RGB bytes of an 8-bit RGB PNG without filters, its checksums checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, body, head = 8, b"", b""
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, chunk = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + chunk)
        head, body = (chunk, body) if kind == b"IHDR" else (head, body + (chunk if kind == b"IDAT" else b""))
        at += 12 + length
    width, height, *form = struct.unpack(">IIBBBBB", head)
    assert form == [8, 2, 0, 0, 0] and kind == b"IEND"
    raw, step = zlib.decompress(body), 3 * width + 1
    lines = [raw[start : start + step] for start in range(0, len(raw), step)]
    assert all(line[0] == 0 for line in lines)
    return width, height, b"".join(line[1:] for line in lines)


@pytest.mark.parametrize(("colour", "width", "height"), [("red", 140, 112), ("white", 28, 56), ("black", 300, 250)])
def test_the_png_holds_the_pixels(colour: str, width: int, height: int) -> None:
    assert _read_png(picture.png(colour, width, height)) == (width, height, picture.pixels(colour, width, height))


def test_pictures_of_different_colours_differ() -> None:
    for one, other in permutations(picture.COLOURS, 2):
        assert picture.png(one) != picture.png(other)
    assert picture.data_url("red").startswith("data:image/png;base64,iVBOR")
    with pytest.raises(KeyError):
        picture.png("ultraviolet")
