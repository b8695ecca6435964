"""How the server of vLLM is started: what is imported without collecting garbage, as what it runs, where."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from images.core import process

START = Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock" / "start_vllm.py"
# A vLLM of a few lines: each module says on import whether the collector was on.
TOLD = "import gc; print('{0}', __name__, gc.isenabled(), flush=True)\n"
SERVER = """
import gc, json, multiprocessing, sys
print('server', __name__, gc.isenabled(), flush=True)

def main():
    from vllm.v1.engine import utils
    context = utils.get_mp_context()
    from vllm.v1.engine.core import run
    child = context.Process(target=run, args=(context.get_start_method(),))
    child.start()
    child.join()
    print(json.dumps([sys.argv, gc.isenabled(), gc.get_freeze_count() > 0, child.exitcode]), flush=True)

if __name__ == "__main__":
    main()
"""
ENGINE = """
import gc, sys
print('engine', __name__, gc.isenabled(), flush=True)

def run(method):
    print('running', method, 'vllm.entrypoints.openai.api_server' in sys.modules, gc.isenabled(), flush=True)
"""


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH, with a package vllm."""
    files = {
        "entrypoints/openai/api_server.py": SERVER,
        "v1/engine/core.py": ENGINE,
        "v1/engine/utils.py": "import multiprocessing\nget_mp_context = lambda: multiprocessing.get_context('spawn')\n",
        "v1/executor/multiproc_executor.py": TOLD.format("executor"),
    }
    for name, text in files.items():
        place = tmp_path / "vllm" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return tmp_path


def started(folder: Path, *words: str, **environment: str) -> tuple[list[str], Any]:
    """The lines of the whole, and what the server said of itself at its end."""
    done = process.run([sys.executable, "-B", str(START), *words], env={"PYTHONPATH": str(folder), **environment})
    assert done.err == ""
    lines = done.out.splitlines()
    return lines[:-1], json.loads(lines[-1])


def test_a_spawned_engine_imports_the_engine_alone_with_the_collector_off(vllm: Path) -> None:
    lines, (argv, collects, frozen, code) = started(vllm, "--port", "8000")
    assert lines == [
        "server vllm.entrypoints.openai.api_server False",
        "server __main__ True",
        "engine vllm.v1.engine.core True",  # of the server itself: for what it starts
        "engine vllm.v1.engine.core False",
        "executor vllm.v1.executor.multiproc_executor False",
        "running spawn False True",
    ]
    assert argv == ["vllm.entrypoints.openai.api_server", "--port", "8000"]
    assert collects and frozen and code == 0


def test_a_forked_engine_has_what_the_server_has(vllm: Path) -> None:
    lines, (_, _, _, code) = started(vllm, CARDSTOCK_FORK_ENGINE="1")
    assert lines[-1] == "running fork True True" and code == 0
    assert [line for line in lines if line.startswith("executor")] == []


@pytest.mark.parametrize("value", ["0", ""])
def test_the_engine_is_forked_only_where_it_is_asked_for(vllm: Path, value: str) -> None:
    lines, _ = started(vllm, CARDSTOCK_FORK_ENGINE=value)
    assert lines[-1] == "running spawn False True"


def test_modules_beside_the_program_do_not_stand_in_for_others(vllm: Path) -> None:
    (vllm / "vllm/entrypoints/openai/api_server.py").write_text(
        "import json, settings\nprint(json.dumps(settings.WHOSE))\n"
    )
    (vllm / "settings.py").write_text("WHOSE = 'a package of the image'\n")
    assert (START.parent / "settings.py").is_file()
    assert started(vllm)[1] == "a package of the image"


def test_an_older_vllm_has_no_such_engine_and_is_started_all_the_same(vllm: Path) -> None:
    (vllm / "vllm/v1/executor/multiproc_executor.py").unlink()
    lines, (_, _, _, code) = started(vllm)
    assert lines[-1] == "running spawn False True" and code == 0


def test_a_server_that_cannot_be_imported_says_what_it_said_before(vllm: Path) -> None:
    (vllm / "vllm/entrypoints/openai/api_server.py").write_text("import a_missing_module\n")
    done = process.run([sys.executable, "-B", str(START)], env={"PYTHONPATH": str(vllm)}, check=False)
    assert done.code == 1 and "No module named 'a_missing_module'" in done.err


CAPTURED = """
import gc

def freeze():
    gc.collect()
    gc.freeze()
    count = gc.get_freeze_count()
    gc.unfreeze()
    print('set apart', gc.get_freeze_count() >= count > 0, flush=True)
"""
CAPTURING = """
import gc, json
from vllm.utils import gc_utils

def main():
    gc_utils.freeze()
    gc.unfreeze()  # as an engine does when it ends
    print(json.dumps(gc.get_freeze_count()), flush=True)

if __name__ == "__main__":
    main()
"""


def test_what_is_set_apart_while_graphs_are_captured_stays_so_until_the_end(vllm: Path) -> None:
    for name, text in {"utils/gc_utils.py": CAPTURED, "entrypoints/openai/api_server.py": CAPTURING}.items():
        (vllm / "vllm" / name).parent.mkdir(exist_ok=True)
        (vllm / "vllm" / name).write_text(text)
    assert started(vllm) == (["set apart True"], 0)
