"""examples/prove_on_colab.ipynb: a notebook of form 4, whose commands are the product's own."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from images.commands.doctor import DoctorOptions
from images.commands.records import RecordsOptions
from images.commands.test import TestOptions
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty
from tests.helpers.typed_lines import options_of

NOTEBOOK = ROOT / "examples/prove_on_colab.ipynb"
KINDS: dict[str, type[Any]] = {"doctor": DoctorOptions, "records": RecordsOptions, "test": TestOptions}


def wrong_in(notebook: Any) -> list[str]:
    """What the form of notebooks (nbformat 4.5) does not allow."""
    wrong = [name for name in ("cells", "metadata", "nbformat", "nbformat_minor") if name not in notebook]
    if wrong or (notebook["nbformat"], notebook["nbformat_minor"]) != (4, 5):
        return [*wrong, "its form is not 4.5"]
    ids = [cell.get("id", "") for cell in notebook["cells"]]
    wrong += [f"id {one!r}" for one in ids if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) or ids.count(one) > 1]
    for cell in notebook["cells"]:
        more = {"execution_count", "outputs"} if cell.get("cell_type") == "code" else set()
        if set(cell) != {"cell_type", "id", "metadata", "source"} | more:
            wrong.append(f"cell {cell.get('id')}: {sorted(cell)}")
        elif not isinstance(cell["source"], list) or not all(isinstance(line, str) for line in cell["source"]):
            wrong.append(f"cell {cell['id']}: its source is no list of lines")
        elif any(not line.endswith("\n") for line in cell["source"][:-1]):
            wrong.append(f"cell {cell['id']}: lines run into each other")
        elif cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"] is not None):
            wrong.append(f"cell {cell['id']}: it holds what somebody's run printed")
    return wrong


def notebook() -> Any:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def code_cells() -> list[str]:
    return ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]


def test_it_is_a_notebook() -> None:
    assert wrong_in(notebook()) == []
    assert notebook()["cells"][0]["cell_type"] == "markdown"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda made: made.update(nbformat=3), "form"),
        (lambda made: made.pop("metadata"), "metadata"),
        (lambda made: made["cells"][0].update(outputs=[]), "cell what"),
        (lambda made: made["cells"][2].update(execution_count=3), "somebody's run"),
        (lambda made: made["cells"][2].update(source="!nvidia-smi"), "no list of lines"),
        (lambda made: made["cells"][2].update(source=["a", "b"]), "run into each other"),
        (lambda made: made["cells"][2].update(id="what"), "id 'what'"),
    ],
)
def test_what_is_no_notebook_is_told(change: Any, told: str) -> None:
    made = notebook()
    change(made)
    assert told in " ".join(wrong_in(made))


def test_its_commands_are_the_products_own() -> None:
    lines = [line[1:] for cell in code_cells() for line in cell.splitlines() if line.startswith("!./inv ")]
    parsed: dict[str, Any] = {}
    for line in nonempty(lines):
        name = line.split()[1]
        parsed[name] = options_of(line, KINDS[name])
    asked = parsed["test"]
    assert isinstance(asked, TestOptions)
    assert asked.gpu
    assert asked.without_engine
    assert asked.source.startswith("ghcr.io/")
    checked = parsed["records"]
    assert isinstance(checked, RecordsOptions)
    assert checked.action == "check"
    assert "doctor" in parsed


def test_its_python_is_python() -> None:
    found = 0
    for cell in nonempty(code_cells()):
        plain = "\n".join("" if re.match(r"[!%]", line) else line for line in cell.splitlines())
        found += len(ast.parse(plain).body)
    assert found > 0


def test_where_it_looks_is_where_the_proof_writes() -> None:
    from images.build import RECORDS

    assert any(f'Path("{RECORDS}")' in cell for cell in code_cells())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (address,) = re.findall(r'^Repository = "(.+)"$', project, re.MULTILINE)
    assert any(f"git clone --depth 1 {address}" in cell for cell in code_cells())
    assert Path(address).name in "".join(code_cells())
