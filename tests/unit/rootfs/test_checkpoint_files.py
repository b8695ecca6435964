"""What of a model's folder is read. tests/inside/test_awq.py has the loader itself refuse the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import checkpoint_files  # type: ignore[import-not-found,unused-ignore]


def index(folder: Path, *names: str) -> None:
    where = {str(at): name for at, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def test_safetensors_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_bytes(b"")
    index(tmp_path, "b.safetensors", "a.safetensors", "b.safetensors")
    assert [path.name for path in checkpoint_files.shards(tmp_path)] == ["a.safetensors", "b.safetensors"]
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(checkpoint_files.LoadError, match=r"b\.safetensors|only safetensors"):
        checkpoint_files.shards(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"])
def test_weights_that_can_hold_code_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(checkpoint_files.LoadError, match=rf"{name}: only safetensors .* can run code"):
        checkpoint_files.shards(tmp_path)


def test_a_folder_without_weights_lacks_them(tmp_path: Path) -> None:
    with pytest.raises(checkpoint_files.LoadError, match=r"lacks model\.safetensors: only safetensors are read"):
        checkpoint_files.shards(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "sub/x.safetensors", "pytorch_model-1.bin"])
def test_an_index_names_safetensors_of_its_own_folder(tmp_path: Path, name: str) -> None:
    index(tmp_path, name)
    with pytest.raises(checkpoint_files.LoadError, match="only safetensors files of the folder itself"):
        checkpoint_files.shards(tmp_path)


@pytest.mark.parametrize(
    "config",
    [{"_attn_implementation": "evil/kernel"}, {"vision_config": {"attn_implementation": "evil/kernel@main:f"}},
     {"a": [{"experts_implementation": "evil/kernel"}]}],
)  # fmt: skip
def test_a_config_that_names_kernels_of_a_repository_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(checkpoint_files.LoadError, match="asks for code of another repository"):
        checkpoint_files.refuse_code(config, tmp_path)
    checkpoint_files.refuse_code({"_attn_implementation": "sdpa", "auto_map": {"AutoConfig": "own.Own"}}, tmp_path)
