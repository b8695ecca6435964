"""Images are held against their budgets: what is above is told with its layers, and CI runs it for each image."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from bench import layers as layer_sizes
from bench.budgets import HEADER, Weighed, hold, table_of, weigh
from images.commands.weigh import WeighOptions, weigh_images
from images.core.errors import CheckFailed, NothingSelected
from images.docker.engine import Engine
from images.matrix.model import Budget
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty
from tests.unit.bench.test_sizes import diff_id, saved

CPU = "cpu-vllm0.32.0-sdpa"
MB = 1_000_000
LAYERS = (b"base " * 1000, bytes(range(256)) * 40, b"torch" * 2000, b"seal!" * 200)


class FakeEngine:
    """An engine with the image for the CPU, of four layers; its label names the upper three."""

    def __init__(self, names: str = "os torch seal") -> None:
        self.labels = {"dev.cardstock.layers": names} if names else {}

    def inspect(self, reference: str) -> Any:
        if not reference.endswith(CPU):
            return None
        return SimpleNamespace(layers=tuple(map(diff_id, LAYERS)), labels=self.labels)

    @contextmanager
    def save(self, reference: str) -> Iterator[list[bytes]]:
        yield [saved(*LAYERS)]


@pytest.fixture(autouse=True)
def sizes_of_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """zstd halves, and gzip, which takes most of the time, is asked for by nobody."""
    monkeypatch.setattr(layer_sizes, "zstd_size", lambda file: file.stat().st_size // 2)
    monkeypatch.delattr(layer_sizes, "gzip_size")


BUDGET = matrix().sizes[-1]


def weighed(zstd: float, unpacked: float, budget: Budget | None = BUDGET) -> Weighed:
    return Weighed(CPU, int(zstd * MB), int(unpacked * MB), budget, (("rest", 500 * MB), ("torch", 300 * MB)))


def limits() -> tuple[int, int]:
    assert BUDGET.id == "cpu"
    return BUDGET.zstd, BUDGET.unpacked


def test_an_image_within_its_budget_passes_and_one_without_has_none() -> None:
    zstd, unpacked = limits()
    fine = [weighed(zstd, unpacked), weighed(zstd * 9, unpacked * 9, None)]
    hold(fine, matrix())
    assert [one.over for one in fine] == ["", ""]
    rows = table_of(fine)
    assert all(len(row) == len(HEADER) for row in nonempty(rows))
    assert [(row[2], row[-1]) for row in rows] == [(f"{zstd} MB", ""), ("-", "")]


def test_one_above_is_named_with_size_budget_and_largest_layers() -> None:
    zstd, unpacked = limits()
    with pytest.raises(CheckFailed) as caught:
        hold([weighed(zstd, unpacked), weighed(zstd + 25.4, unpacked)], matrix())
    error = caught.value
    assert error.exit_code == 1
    assert error.what == f"an image is too large: {CPU}: {zstd + 25} MB as zstd, 25 above its {zstd}"
    assert f"{CPU}: rest 500 MB, torch 300 MB" in error.cause
    assert "./inv bench sizes --by package" in error.do
    assert re.fullmatch(r"matrix.yaml:\d+", error.where)
    both = weighed(zstd + 1, unpacked + 2)
    assert both.over.endswith(f"and {unpacked + 2} MB unpacked, 2 above its {unpacked}")


@pytest.mark.parametrize(("names", "lowest"), [("os torch seal", "os"), ("", "layer 1"), ("a b c d e", "layer 1")])
def test_an_image_is_weighed_by_layers_with_their_names_or_numbers(tmp_path: Path, names: str, lowest: str) -> None:
    engine = cast("Engine", FakeEngine(names))
    [one] = weigh(engine, matrix(), tmp_path, {CPU: f"x:{CPU}"})
    assert one.unpacked == sum(map(len, LAYERS))
    assert one.zstd == sum(len(layer) // 2 for layer in LAYERS)
    assert one.budget is not None
    told = dict(one.largest)
    assert lowest in told
    assert list(told.values()) == sorted(told.values(), reverse=True)


def test_the_command_weighs_what_is_built_and_says_what_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, text = silent()
    known = {"matrix": matrix(), "variants": variants(), "locked": {}}
    built = context(report, root=tmp_path, engine=cast("Engine", FakeEngine()), **known)
    weigh_images(built, WeighOptions(only=["cpu*"], json=True))
    [row] = json.loads(capsys.readouterr().out)
    assert row["image"] == CPU
    assert row["zstd"] * 2 == row["unpacked"]
    assert row["budget"]["zstd"] == limits()[0]
    with pytest.raises(NothingSelected, match="is not built"):
        weigh_images(built, WeighOptions(archs=["7.5"], driver="580"))
    assert "weigh" in text.getvalue()


def test_ci_weighs_every_image_that_it_builds() -> None:
    workflows = ROOT / ".github" / "workflows"
    jobs = {
        name: yaml.safe_load((workflows / name).read_text(encoding="utf-8"))["jobs"][job]
        for name, job in (("images.yml", "image"), ("weekly.yml", "build"))
    }
    for job in nonempty(jobs.values()):
        runs = [step.get("run", "") for step in job["steps"]]
        (built,) = [at for at, run in enumerate(runs) if "./inv build --only" in run]
        (held,) = [at for at, run in enumerate(runs) if run == './inv weigh --only "$ID"']
        assert built < held
        assert not any("./inv publish" in run for run in runs[:held])
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^phase ./inv weigh (.*?)\s*#", gate, re.MULTILINE) == ["--only 'cpu*'", "--arch 7.5"]
