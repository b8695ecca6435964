"""Stand-ins of a built image, called on purpose: each says its sentence once, and its calls are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images.core.errors import CardstockError
from images.device_code.stand_ins.source import CALLS, SAID
from images.docker.engine import Engine
from images.proof.smoke.stand_in_calls import FILE, READ_SCRIPT, read_calls, said_in
from images.render import VARIANT
from tests.helpers.nonempty import nonempty

ROOT = Path(__file__).parents[2]
# The reader of tables goes along: it needs the standard library alone.
READER = ("__init__.py", "device_code/__init__.py", "device_code/elf.py", "device_code/dynamic.py")
WHICH = "import importlib.metadata as m; print(sum(1 for _ in m.distributions(name='cardstock-stand-ins')))"
# Zeros for arguments: what answers through a pointer finds none to write to, and does not count as a call.
CALL = """
import ctypes, importlib.metadata as m, json, os, pathlib, sys
sys.path.insert(0, "/call")
from images.device_code.dynamic import read_dynamic
found = next(iter(m.distributions(name="cardstock-stand-ins")))
told = []
for row in json.loads(found.read_text("stand_ins.json"))["stand_ins"]:
    path = pathlib.Path(found.locate_file(row["file"]))
    library = ctypes.CDLL(str(path))
    for symbol in sorted(one.name for one in read_dynamic(path.read_bytes()).exports):
        before = os.path.exists(FILE) and os.path.getsize(FILE)
        function = getattr(library, symbol)
        status = function(None, None, None, None)
        if os.path.exists(FILE) and os.path.getsize(FILE) != before:
            function(None, None, None, None)
            told.append([row["soname"], symbol, status])
            break
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """A built image that has stand-ins; the smallest, whatever it is for."""
    for facts in sorted(engine.images(VARIANT), key=lambda one: one.size):
        try:
            if engine.run(facts.id, ["-c", WHICH], entrypoint=["python"]).out.strip() not in ("", "0"):
                return facts.id
        except CardstockError:
            continue  # a stub of another test
    pytest.skip("no image with stand-ins is built here: ./inv build --arch cpu")


def test_each_says_its_sentence_once_and_every_call_is_counted(engine: Engine, image: str) -> None:
    """As `torch.fft` and its like come to it; without a card torch gets there with no tensor."""
    files = {f"/call/images/{name}": (ROOT / "images" / name).read_bytes() for name in READER}
    read = "\nimport subprocess\nsubprocess.run([sys.executable, '-c', READ, FILE])\n"
    script = f"FILE = {FILE!r}\nREAD = {READ_SCRIPT!r}\n{CALL}{read}"
    ran = engine.run(image, ["-c", script], entrypoint=["python"], files=files, env={CALLS: FILE})
    told, counted = ran.out.strip().splitlines()
    called = {(soname, function): status for soname, function, status in json.loads(told)}
    found = read_calls(counted, ran.err)
    assert {(one.library, one.function): one.count for one in found.calls} == dict.fromkeys(called, 2)
    assert len(called) == len(found.stand_ins)
    assert {(one.library, one.function) for one in said_in(ran.err)} == called.keys()
    sentences = [line for line in ran.err.splitlines() if line.startswith(SAID)]
    assert len(sentences) == len(called)
    for line in nonempty(sentences):
        assert "this image leaves that library out" in line
        assert "-whole" in line
    for soname, function in nonempty(called):
        assert f"{function} of {soname}" in found.complaint() or len(called) > 5
    assert all(status != 0 for (_, name), status in nonempty(called.items()) if "Create" in name)
    assert found.fact == f"{2 * len(called)} calls of {len(called)} stand-ins"


def test_an_image_that_calls_none_counts_none(engine: Engine, image: str) -> None:
    """Importing torch binds every stand-in and calls none."""
    script = f"import torch, subprocess, sys\nsubprocess.run([sys.executable, '-c', {READ_SCRIPT!r}, {FILE!r}])"
    ran = engine.run(image, ["-c", script], entrypoint=["python"], env={CALLS: FILE, "HOME": "/tmp"})
    found = read_calls(ran.out, ran.err)
    assert found.calls == ()
    assert found.stand_ins
