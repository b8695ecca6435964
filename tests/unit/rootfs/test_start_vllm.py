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


# A server that takes flags, an engine that is given settings; the card is a torch that says when it is opened.
SERVER_WITH_FLAGS = """
import gc, json, multiprocessing, os, sys, time

def main():
    from vllm.v1.engine import utils
    from vllm.v1.engine.core import run
    context = utils.get_mp_context()
    time.sleep(0.5 if "--slow" in sys.argv else 0)
    os.environ["SET_BY_THE_SERVER"] = "1"
    os.environ.pop("TAKEN_AWAY", None)
    given = {"settings": {"seen": context.Queue() if "--queue" in sys.argv else [1]}}
    engines = [context.Process(target=run, name=f"Engine{at}", kwargs=given) for at in range(1 + ("--two" in sys.argv))]
    for engine in engines:
        if "--late" in sys.argv:
            time.sleep(0.1)
        engine.start()
    for engine in engines:
        engine.join(60)
    told = [[engine.name, engine.exitcode, engine.pid == engines[0].pid, engine.is_alive()] for engine in engines]
    print(json.dumps([told, context.get_start_method()]), flush=True)

if __name__ == "__main__":
    if "--refused" in sys.argv:
        sys.exit("no such flag")
    main()
"""
ENGINE_WITH_SETTINGS = """
import json, multiprocessing, os, sys
import torch

def run(settings):
    here = [name for name in ("vllm.v1.worker.gpu_worker", "vllm.entrypoints.openai.api_server") if name in sys.modules]
    row = [multiprocessing.current_process().name, here, os.environ.get("SET_BY_THE_SERVER"),
           os.environ.get("TAKEN_AWAY"), torch.threads, torch.cuda.opened]
    asked = sys.modules.get("triton.runtime.cache")
    assert (asked is not None and asked.asked) == torch.cuda.opened
    sys.stdout.write("engine " + json.dumps(row) + "\\n")  # at once: two engines write here
    sys.stdout.flush()
    sys.exit(3)
"""
TORCH = """
import torch.cuda
threads = 7

def get_num_threads():
    return 5

def set_num_threads(count):
    global threads
    threads = count
"""
CUDA = """
opened = False

def synchronize():
    global opened
    opened = True
"""
FORKS = "import multiprocessing\nget_mp_context = lambda: multiprocessing.get_context('fork')\n"


@pytest.fixture
def early(vllm: Path) -> Path:
    """The same with flags, a worker, and a card."""
    files = {
        "vllm/entrypoints/openai/api_server.py": SERVER_WITH_FLAGS,
        "vllm/v1/engine/core.py": ENGINE_WITH_SETTINGS,
        "vllm/v1/engine/utils.py": FORKS,
        "vllm/v1/worker/gpu_worker.py": "",
        "triton/runtime/cache.py": "asked = False\ndef triton_key():\n    global asked\n    asked = True\n",
        "torch/__init__.py": TORCH,
        "torch/cuda.py": CUDA,
    }
    for name, text in files.items():
        (vllm / name).parent.mkdir(parents=True, exist_ok=True)
        (vllm / name).write_text(text)
    return vllm


def engines(folder: Path, *words: str, **environment: str) -> tuple[list[list[Any]], Any]:
    """What each engine saw, and what the server says of them."""
    lines, told = started(folder, *words, CARDSTOCK_FORK_ENGINE="early", TAKEN_AWAY="1", **environment)
    return [json.loads(line.removeprefix("engine ")) for line in lines if line.startswith("engine ")], told


WORKER, API = "vllm.v1.worker.gpu_worker", "vllm.entrypoints.openai.api_server"


@pytest.mark.parametrize("words", [(), ("--late",)])
def test_an_early_engine_has_imported_its_worker_and_does_what_it_is_sent(early: Path, words: tuple[str, ...]) -> None:
    seen, (told, method) = engines(early, *words)
    # Not the server: that the other process imports meanwhile. The environment and torch's threads are those of now.
    assert seen == [["Engine0", [WORKER], "1", None, 5, True]]
    assert told == [["Engine0", 3, True, False]] and method == "fork"


@pytest.mark.parametrize(
    "words",
    [("-tp", "2"), ("--tensor-parallel-size=2",), ("--tensor_parallel_size", "2"), ("--tensor", "2"), ("--config", "f"),
     ("--data-parallel-size-local", "1"), ("--device-ids", "1"), ("-pp2",)],
)  # fmt: skip
def test_an_early_engine_leaves_the_cards_to_its_workers_where_there_may_be_others(
    early: Path, words: tuple[str, ...]
) -> None:
    seen, _ = engines(early, *words)
    assert seen == [["Engine0", [WORKER], "1", None, 5, False]]


def test_a_flag_that_says_nothing_of_workers_leaves_the_card_to_the_engine(early: Path) -> None:
    seen, _ = engines(early, "--dtype", "half", "--max-num-seqs", "4", "--port=8000", "--trust-remote-code")
    assert seen[0][-1] is True


def test_where_vllm_does_not_fork_its_engine_is_started_as_ever(early: Path) -> None:
    # On WSL it spawns, for NVML's sake.
    (early / "vllm/v1/engine/utils.py").write_text(FORKS.replace("'fork'", "'spawn'"))
    seen, (told, method) = engines(early, "--tensor-parallel-size", "2")
    assert method == "spawn" and told == [["Engine0", 3, True, False]]
    assert [row[:2] for row in seen] == [["Engine0", []]]


def test_a_second_engine_is_started_as_ever(early: Path) -> None:
    seen, (told, _) = engines(early, "--two")
    assert sorted(row[0] for row in seen) == ["Engine0", "Engine1"]
    assert [row[:3] for row in told] == [["Engine0", 3, True], ["Engine1", 3, False]]
    assert next(row for row in seen if row[0] == "Engine1")[1] == [API]


def test_work_that_cannot_be_sent_goes_to_a_process_that_inherits_it(early: Path) -> None:
    seen, (told, _) = engines(early, "--queue")
    assert seen == [["Engine0", [API], "1", None, 7, False]] and told == [["Engine0", 3, True, False]]


def test_an_engine_that_died_before_it_had_work_is_replaced(early: Path) -> None:
    (early / "vllm/v1/worker/gpu_worker.py").write_text("import os\nos._exit(1)\n")
    seen, (told, _) = engines(early, "--slow")
    assert seen == [["Engine0", [API], "1", None, 7, False]] and told == [["Engine0", 3, True, False]]


def test_an_engine_that_dies_as_it_is_given_its_work_has_ended_for_vllm(early: Path) -> None:
    (early / "vllm/v1/worker/gpu_worker.py").write_text("import os, time\ntime.sleep(0.3)\nos._exit(9)\n")
    (early / "vllm/entrypoints/openai/api_server.py").write_text(
        SERVER_WITH_FLAGS.replace("        engine.start()", "        time.sleep(0.6)\n        engine.start()")
    )
    seen, (told, _) = engines(early)
    assert seen == [] and told == [["Engine0", 9, True, False]]


def test_an_early_engine_ends_with_a_server_that_refuses_its_flags(early: Path) -> None:
    done = process.run(
        [sys.executable, "-B", str(START), "--refused"],
        env={"PYTHONPATH": str(early), "CARDSTOCK_FORK_ENGINE": "early"}, check=False, timeout=60,
    )  # fmt: skip
    assert done.code == 1 and done.err == "no such flag\n"


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
