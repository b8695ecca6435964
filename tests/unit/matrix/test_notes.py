"""Notes on images as `./inv explain` prints them: each once, with the images it speaks of and its source."""

from __future__ import annotations

from pathlib import Path

from images.matrix import note_lines
from images.matrix.reader import read_matrix
from images.matrix.variants import make_variants

VARIANTS = make_variants(read_matrix(Path(__file__).parents[3] / "matrix.yaml")).valid


def test_a_note_of_two_images_is_told_once() -> None:
    old, new = VARIANTS["cu129-vllm0.19.1-triton-sm75"], VARIANTS["cu130-vllm0.33.0-triton-sm75"]
    lines = note_lines([old, new])
    slow = [line for line in lines if "no tensor cores below 8.0" in line]
    assert len(slow) == 1
    assert slow[0].startswith(f"note on {old.id}, {new.id}\n")
    assert "\n  source: [A] " in slow[0]


def test_what_a_compiler_showed_for_volta_is_told_of_volta_alone() -> None:
    told = {
        arch: [line for line in note_lines([VARIANTS[f"cu124-vllm0.8.5.post1-xformers-sm{arch}"]]) if "prefix" in line]
        for arch in (70, 75)
    }
    assert "does not compile for 7.0" in told[70][0]
    assert told[75] == []


def test_an_image_without_notes_has_no_lines() -> None:
    assert note_lines([]) == note_lines([VARIANTS["cpu-vllm0.32.0-sdpa"]]) == []
