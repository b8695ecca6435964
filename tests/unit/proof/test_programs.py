"""Programs that run in images and on bare hosts: what they do without, and that none hides a module of Python's."""

from __future__ import annotations

import sys
from pathlib import Path

from images.core import process
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

# Folders with programs that are started by their paths: such a folder is searched first for every module.
FOLDERS = (
    "images/proof/acting",
    "images/proof/acting/acted",
    "images/proof/lighter",
    "images/proof/memory",
    "images/proof/on_card",
    "images/proof/on_card/inside",
    "images/proof/on_card/packages",
    "images/proof/on_card/shaped",
    "images/proof/smoke/inside",
    "images/proof/kernel_code/inside",
    "dockerfiles/rootfs/opt/cardstock",
)
# Started on a bare host with a card, or in an image, where there is not all that this project needs.
PROGRAMS = (
    "acting.__main__",
    "acting.worker",
    "lighter.__main__",
    "memory.with_vllm",
    "on_card.inside.seal_logits",
    "on_card.inside.start",
    "on_card.prove",
    "tracing.__main__",
)
# Started by their paths, where this project is not beside them.
ALONE = ("on_card/inside/call_stand_ins.py", "on_card/packages/slim_worker.py")


def test_no_program_has_the_name_of_a_module_of_pythons() -> None:
    paths = [path for folder in FOLDERS for path in nonempty(sorted((ROOT / folder).glob("*.py")))]
    assert not [str(path) for path in paths if path.stem in sys.stdlib_module_names]


def test_what_is_started_by_its_path_alone_needs_pythons_own_library_alone() -> None:
    for program in nonempty(ALONE):
        path = str(ROOT / "images/proof" / program)
        script = f"import runpy; assert runpy.run_path({path!r}, run_name='read')['main']"
        done = process.run([sys.executable, "-I", "-S", "-c", script], cwd=Path("/"), check=False)
        assert (done.code, done.err) == (0, ""), program


def test_the_programs_need_nothing_that_a_bare_host_with_a_card_lacks() -> None:
    missing = ("pydantic", "rich", "docker", "testcontainers", "jinja2", "yaml", "requests")
    for program in nonempty(PROGRAMS):
        own = f"import images.proof.{program} as p; p.main"
        script = f"import sys; sys.modules.update(dict.fromkeys({missing})); {own}"
        assert process.run([sys.executable, "-c", script], cwd=ROOT, check=False).err == ""
