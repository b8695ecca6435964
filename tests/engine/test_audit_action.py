"""The GitHub Action that audits images: its shell step as a runner runs it, with a registry on loopback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.engine.real_registry import RealRegistry
from tests.engine.test_remote_audit import put_layers
from tests.engine.workflow_steps import run_action
from tests.helpers.elf_files import PTX, Code, container, library, sm
from tests.helpers.remote_images import Files, gzipped

ACTION = Path(__file__).parents[2] / ".github/actions/audit"
LIBRARIES: Files = {
    "opt/site-packages/torch/good.so": library([sm(75, 86)]),
    "opt/site-packages/vllm/flash.so": library([sm(80)]),
    "opt/site-packages/vllm/jit.so": library([container(Code(75), Code(75, PTX, version=(8, 4)))]),
}


@pytest.fixture
def image(registry: RealRegistry, tmp_path: Path) -> str:
    return put_layers(registry, [gzipped(LIBRARIES)], tmp_path)


def run(tmp_path: Path, inputs: Mapping[str, str]) -> tuple[int, str]:
    (tmp_path / "workspace").mkdir(exist_ok=True)
    code, lines = run_action(ACTION, inputs, tmp_path / "workspace")
    return code, "\n".join(lines)


def test_a_build_whose_image_lost_a_card_fails(image: str, tmp_path: Path) -> None:
    code, said = run(tmp_path, {"image": image, "arch": "7.5"})
    assert code == 1
    assert "1 of 3 libraries lack code for 7.5" in said
    assert "opt/site-packages/vllm/flash.so" in said


def test_what_is_excepted_is_let_pass(image: str, tmp_path: Path) -> None:
    code, said = run(tmp_path, {"image": image, "arch": "7.5", "except": "vllm/flash.so\nnothing/*\n"})
    assert code == 0
    assert "--except vllm/flash.so: 1 files are not asked for" in said
    assert "--except nothing/*: 0 files are not asked for" in said


def test_ptx_counts_or_not(image: str, tmp_path: Path) -> None:
    inputs = {"image": image, "arch": "8.6", "except": "vllm/flash.so"}
    assert run(tmp_path, inputs)[0] == 0
    code, said = run(tmp_path, {**inputs, "allow-ptx": "false"})
    assert code == 1
    assert "1 of 2 libraries have PTX alone for some code on 8.6" in said
    assert run(tmp_path, {**inputs, "allow-ptx": "false", "arch": "7.5"})[0] == 0


def test_every_image_is_audited_though_one_fails(image: str, tmp_path: Path) -> None:
    absent = f"{image.partition('@')[0]}:absent"
    code, said = run(tmp_path, {"image": f"{absent}\n\n  {image}\n", "arch": "8.0, 8.6", "except": "torch/*"})
    assert code == 2  # the first one's: there is none
    assert "has no absent" in said
    assert said.count("::group::audit ") == said.count("::endgroup::") == 2
    assert "1 of 2 libraries lack code" not in said


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"image": "", "arch": "7.5"}, "image names no image"),
        ({"image": "x.example/y", "arch": " "}, "arch names no card"),
        ({"image": "x.example/y", "arch": "7.5", "allow-ptx": "no"}, "say true or false"),
    ],
)
def test_inputs_that_say_nothing_are_told(tmp_path: Path, inputs: Mapping[str, str], words: str) -> None:
    code, said = run(tmp_path, inputs)
    assert (code, words in said) == (2, True)


def test_no_input_is_read_by_a_shell(tmp_path: Path, image: str) -> None:
    mark = tmp_path / "mark"
    shell = f"$(touch {mark})`touch {mark}`;touch {mark}"
    for inputs in (
        {"image": f"127.0.0.1:1/{shell}", "arch": "7.5"},
        {"image": image, "arch": shell},
        {"image": image, "arch": "7.5", "except": f"vllm/*\n{shell}"},
        {"image": image, "arch": "7.5", "platform": shell},
        {"image": image, "arch": "7.5", "whole": shell},
    ):
        run(tmp_path, inputs)
        assert not mark.exists()
