"""What an image's imports cost, as the program tells that runs in it; torch and the server are of a few lines here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import imports_inside
from images.core import process

START = Path(__file__).parents[3] / "dockerfiles/rootfs/opt/cardstock/start_vllm.py"
FILES = {
    "home/start_vllm.py": START.read_text(),
    "home/import_structure.py": START.with_name("import_structure.py").read_text(),
    "home/module_places.py": START.with_name("module_places.py").read_text(),
    "home/app.py": "import generate\n",
    "home/generate.py": "",
    "site/torch.py": "sum(range(3_000_000))\n",
    "site/uvicorn.py": "",
    "site/transformers.py": "sum(range(3_000_000))\n",
    "site/vllm/entrypoints/openai/api_server.py": "import torch, transformers, gc\nassert not gc.isenabled()\n",
}


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_torch_and_all_are_told_from_one_process(tmp_path: Path, backend: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    program = tmp_path / "imports_inside.py"
    place = f'HOME = "{imports_inside.HOME}"'
    text = Path(imports_inside.__file__).read_text()
    assert place in text
    program.write_text(text.replace(place, f'HOME = "{tmp_path / "home"}"'))
    argv = [sys.executable, "-B", str(program), backend]
    told = json.loads(process.run(argv, env={"PYTHONPATH": str(tmp_path / "site")}).out)
    assert set(told) == {"torch", "server", "modules"}
    assert 0 < told["torch"] < told["server"]
    counted = json.loads(process.run([*argv, "count"], env={"PYTHONPATH": str(tmp_path / "site")}).out)
    assert counted["modules"] == told["modules"]
    assert counted["opened"] >= 4
