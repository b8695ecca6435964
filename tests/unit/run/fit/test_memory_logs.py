"""fit's sums against what vLLM logged on cards of other people (tests/golden/memory_logs.yaml has the sources)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from images.matrix.arch import Arch
from images.run.fit.activations import Load, encoded_pictures, raw_pictures, step_buffers, text_peak, vision_peak
from images.run.fit.backends import CardBackend, Setting
from images.run.fit.choose import fit
from images.run.fit.find import read_model
from images.run.fit.fit_table import fit_json, fit_lines
from images.run.fit.memory import NCCL, WORKSPACE, add_up
from images.run.fit.model import Model
from images.run.fit.parallel import Split
from images.run.fit.usable_memory import GIB
from images.run.fit.weights import kv_bytes
from tests.helpers.fits import ask
from tests.helpers.nonempty import nonempty

LOGS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[3] / "golden" / "memory_logs.yaml").read_text(encoding="utf-8")
)
EXACT = 2**20
# What is not exact may be this much above a log, and never below.
ABOVE = 1.05
PEAK_ABOVE = 1.20


def _name(log: dict[str, Any]) -> str:
    return f"{log['model']}-tp{log['tp']}-{log['vllm']}-{log['engine']}"


def _with(key: str) -> list[Any]:
    found = [log for log in LOGS if key in log]
    assert found, key
    return [pytest.param(log, id=_name(log)) for log in found]


def _backend(log: dict[str, Any], model: Model) -> CardBackend:
    seen = Setting("vision attention", log.get("vision", "FLASH_ATTN"), "", "")
    plain = model.form in ("awq", "gptq") and log["engine"] == "V0"
    kernel = "" if model.form == "16-bit" else model.form if plain else f"{model.form}_marlin"
    return CardBackend(
        "vllm", Version(log["vllm"]), Arch(8, 0), "bfloat16", kernel, log["engine"] == "V1", plain, (), (seen,)
    )


def _loaded(log: dict[str, Any]) -> int:
    model = read_model(log["model"])
    split = Split(log["tp"], 1, bool(log.get("whole_vision")))
    load = Load(2048, batched=log.get("batched", 2048))
    return add_up(model, _backend(log, model), split, load, 200 * GIB).loaded


def _digits(log: dict[str, Any]) -> int:
    return len(str(log["loading"]).partition(".")[2])


def _peak(log: dict[str, Any]) -> int:
    model, split = read_model(log["model"]), Split(log["tp"], 1)
    backend, load = _backend(log, model), Load(log["prompt"], image_tokens=log["pictures"] // 2 or 1)
    held = encoded_pictures(model, log["pictures"]) + raw_pictures(model, log["pictures"])
    # A picture and a video are looked at one after the other.
    see = vision_peak(model, backend, split, min(16384, log["pictures"]))
    return max(see, text_peak(model, backend, log["tp"], load, last=True)) + held + WORKSPACE


@pytest.mark.parametrize("log", _with("loading"))
def test_loading_takes_what_fit_says(log: dict[str, Any]) -> None:
    said = _loaded(log)
    digit = 0.5 * 10 ** -_digits(log) * GIB
    logged = float(log["loading"]) * GIB
    if log["held"] == "exact":
        assert abs(said - logged) <= EXACT
    else:
        assert logged - digit <= said <= ABOVE * logged


@pytest.mark.parametrize("log", _with("peak"))
def test_computing_takes_at_most_what_fit_says(log: dict[str, Any]) -> None:
    said = _peak(log)
    assert said >= log["peak"] * GIB
    assert log.get("loose") or said <= PEAK_ABOVE * log["peak"] * GIB


@pytest.mark.parametrize("log", _with("total"))
def test_what_is_left_of_a_card_was_enough_for_computing_as_fit_says(log: dict[str, Any]) -> None:
    taken = 0.9 * log["total"] * GIB - _loaded(log) - log["cache"] * GIB
    said = _peak(log) + (NCCL if log["tp"] > 1 else 0)
    assert taken <= said <= 1.4 * taken


@pytest.mark.parametrize("log", _with("tokens"))
def test_a_cache_holds_as_many_tokens_as_fit_says(log: dict[str, Any]) -> None:
    model = read_model(log["model"])
    each = kv_bytes(model, model.shape.layers, log["tp"])
    assert abs(log["tokens"] * each - log["cache"] * GIB) <= 0.005 * GIB + 16 * each


def test_the_table_says_where_each_figure_is_from() -> None:
    assert len(LOGS) >= 20
    for log in LOGS:
        assert log["source"].startswith(("https://github.com/", "text: "))
        assert log["held"] in ("exact", "high") and (log["held"] == "exact" or log["why"])
    assert sum(log["source"].startswith("https://") for log in LOGS) >= 10


def _table() -> str:
    rows = ["| model | cards | vLLM | loading, logged | `fit` | computing, logged | `fit` | |", "| --- " * 8 + "|"]
    for log in nonempty(LOGS):
        if "loading" not in log:
            continue
        # As many digits as the log has.
        said = f"{_loaded(log) / GIB:.{_digits(log)}f}"
        peak = (f"{log['peak']:.2f}", f"{_peak(log) / GIB:.2f}") if "peak" in log else ("", "")
        figures = (log["loading"], said, *peak, log["held"])
        cards = f"{log['tp']} x {log['card']}" if log["tp"] > 1 else log["card"]
        rows.append(f"| {log['model']} | {cards} | {log['vllm']} {log['engine']} | " + " | ".join(figures) + " |")
    return "\n".join(rows)


def test_the_page_shows_the_table() -> None:
    assert _table() in (Path(__file__).parents[4] / "docs" / "fit.md").read_text(encoding="utf-8"), _table()


def test_newer_versions_keep_buffers_of_a_step() -> None:
    model = read_model("7b")
    old, new = ({"vllm": v, "engine": "V1"} for v in ("0.11.0", "0.22.0"))
    assert step_buffers(model, _backend(old, model), Load(2048)) == 0
    assert step_buffers(model, _backend(new, model), Load(2048)) == 3 * 2048 * 3584 * 2


def test_what_is_loaded_is_told() -> None:
    found = fit(ask("72b", "A100 40GB", 4, by="cu128-vllm0.11.0-flash-attn-sm80"))
    assert f"{found.sum.loaded / GIB:.2f}" == "34.43"
    assert "    34.43 GiB  of it once the model is loaded, as vLLM logs it" in fit_lines(found)
    assert fit_json(found, [])["memory"]["loaded"] == found.sum.loaded
