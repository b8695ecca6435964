"""The parts of the canary that need no torch: patches, comparison, what counts as broken output."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from images.proof.tiny_model import checkpoint, golden, picture, tokenizer
from tests.helpers.nonempty import nonempty

sys.path.insert(0, str(Path(__file__).parents[4] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import canary  # type: ignore[import-not-found,unused-ignore]

GOLDEN: dict[str, Any] = json.loads((checkpoint.GOLDEN / "golden.json").read_text())


def test_patches_are_in_qwens_order() -> None:
    """Every number of a patch row against the picture, by the order's definition: merged squares of 2 x 2 patches."""
    height, width = 56, 84
    rgb = np.frombuffer(picture.pixels("green", width, height), np.uint8).reshape(height, width, 3)
    patches, grid = canary.patchify(rgb, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    assert grid == [1, 4, 6] and patches.shape == (24, 3 * 2 * 14 * 14) and patches.dtype == np.float32
    places = [(2 * r + dr, 2 * c + dc) for r in range(2) for c in range(3) for dr in range(2) for dc in range(2)]
    for row, (y, x) in zip(patches, places, strict=True):
        block = row.reshape(3, 2, 14, 14)
        assert np.array_equal(block[:, 0], block[:, 1])
        source = rgb[14 * y : 14 * y + 14, 14 * x : 14 * x + 14].astype(np.float64) / 255
        wanted = (source - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
        assert np.allclose(block[:, 0].transpose(1, 2, 0), wanted, atol=1e-6)


def test_a_mark_becomes_as_many_as_the_picture_has_merged_patches() -> None:
    pad = GOLDEN["image_token_id"]
    case = next(case for case in GOLDEN["cases"] if len(case["pictures"]) == 2)
    assert canary.expand([1, pad, 2, pad, 3], GOLDEN, case) == [1] + [pad] * 20 + [2] + [pad] * 16 + [3]


def test_the_same_logits_pass_and_others_do_not() -> None:
    logits = canary.decode_logits(GOLDEN["cases"][0])
    assert logits.shape == (len(GOLDEN["cases"][0]["tokens"]), tokenizer.vocab_size())
    assert canary.compare("x", logits * (1 + 5e-5), logits).ok
    assert not canary.compare("x", logits * (1 + 2e-4), logits).ok
    assert not canary.compare("x", logits[:-1], logits).ok
    for value in (np.nan, np.inf):
        broken = logits.copy()
        broken[0, 3] = value
        check = canary.compare("x", broken, logits)
        assert not check.ok and "1 logits are not finite" in check.detail


def test_golden_logits_choose_the_golden_tokens_by_the_stated_lead() -> None:
    for case in nonempty(GOLDEN["cases"]):
        logits = canary.decode_logits(case)
        assert logits.argmax(axis=1).tolist() == case["tokens"]
        ranked = np.sort(logits, axis=1)
        assert np.allclose(ranked[:, -1] - ranked[:, -2], case["gaps"], atol=1e-3)


@pytest.mark.parametrize(
    ("said", "ok"),
    [([[0, 0, 0], [0]], False), ([[5, 5], [5]], False), ([[1, 2], [1, 2]], False), ([[1, 2], [3, 2]], True)],
)
def test_degenerate_output_is_seen(said: list[list[int]], ok: bool) -> None:
    assert canary.degenerate(said).ok is ok


def test_a_checkpoint_of_other_bytes_is_named_before_a_model_is_loaded(tmp_path: Path) -> None:
    folder = checkpoint.write_checkpoint(tmp_path / "tiny").folder
    assert canary.check_files(folder, GOLDEN).ok
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    (folder / "merges.txt").unlink()
    checks = canary.run(folder, GOLDEN, ["sdpa"], "cpu")
    assert [check.ok for check in checks] == [False]
    assert "merges.txt" in checks[0].detail and "model.safetensors" in checks[0].detail


def test_patches_of_another_size_are_cut_as_the_golden_answers_say() -> None:
    golden_of = json.loads(checkpoint.QWEN3.golden.read_text())
    rgb = canary.decode_picture(next(iter(golden_of["pictures"].values())))
    patches, grid = canary.patchify(rgb, golden_of["mean"], golden_of["std"], golden_of["patch"])
    assert grid == [1, rgb.shape[0] // 16, rgb.shape[1] // 16] and patches.shape == (grid[1] * grid[2], 3 * 2 * 16 * 16)
    case = next(case for case in golden_of["cases"] if len(case["pictures"]) == 2)
    pad = golden_of["image_token_id"]
    assert canary.expand([pad, 1, pad], golden_of, case) == [pad] * 20 + [1] + [pad] * 16


def test_other_families_are_tried_in_one_way_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(canary, "versions", dict)
    words: list[str] = []
    for tiny in checkpoint.FAMILIES:
        folder = checkpoint.write_checkpoint(tmp_path / tiny.family, tiny).folder
        words += ["--also" if words else "--model", str(folder), *([] if words else ["--golden"]), str(tiny.golden)]
    assert canary.main([*words, "--json"]) == 1
    names = [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert names[:5] == ["checkpoint", "tokenizer", "sdpa", "eager", "sdpa"]
    assert names[5:] == [
        f"{family}: {name}" for family in ("qwen2_vl", "qwen3_vl") for name in ("checkpoint", "tokenizer", "sdpa")
    ]


def test_a_broken_environment_is_a_failed_check_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    folder = checkpoint.write_checkpoint(tmp_path / "tiny").folder
    checks = canary.run(folder, GOLDEN, ["sdpa", "eager"], "cpu")
    assert [(check.name, check.ok) for check in checks] == [
        ("checkpoint", True), ("tokenizer", False), ("sdpa", False), ("eager", False), ("sdpa", False)
    ]  # fmt: skip
    assert "ModuleNotFoundError" in checks[2].detail or "ImportError" in checks[2].detail


def test_a_golden_file_is_compared_in_every_part() -> None:
    assert golden.differences(GOLDEN, GOLDEN) == []
    for change, result in {
        "text": "case text: text differs",
        "tokens": "case text: tokens differs",
        "logits": "case text: relative error",
    }.items():
        other = copy.deepcopy(GOLDEN)
        case = other["cases"][0]
        if change == "logits":
            logits = canary.decode_logits(case) * 1.001
            case["logits"] = base64.b64encode(zlib.compress(logits.astype("<f4").tobytes())).decode()
        else:
            case[change] = case[change][:-1]
        found = golden.differences(GOLDEN, other)
        assert any(line.startswith(result) for line in found), found
    renamed = copy.deepcopy(GOLDEN)
    renamed["sha256"]["config.json"] = hashlib.sha256(b"").hexdigest()
    assert golden.differences(GOLDEN, renamed) == ["sha256 differs"]
