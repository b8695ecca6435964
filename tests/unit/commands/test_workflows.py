"""The workflows: pinned, with few rights, of invoke tasks that exist; and the job matrices that they are given."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.commands import ci_matrix as workflow
from images.core import process
from images.core.errors import UsageError
from images.matrix.variant_table import variant_json
from images.matrix.variants import make_variants
from images.render.checkout import Checkout
from tests.helpers.matrices import variants
from tests.helpers.nonempty import nonempty

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WRITES = {
    ("images.yml", "image"): {"packages": "write", "id-token": "write"},
    ("pages.yml", "deploy"): {"pages": "write", "id-token": "write"},
    ("publish.yml", "gpu"): {"packages": "write", "id-token": "write"},
    ("publish.yml", "images"): {"packages": "write", "id-token": "write"},
    ("publish.yml", "kernel"): {"packages": "write"},
    ("publish.yml", "readme"): {"contents": "write"},
    ("publish.yml", "which"): {"packages": "write", "id-token": "write"},
    ("weekly.yml", "advisories"): {"contents": "write", "pull-requests": "write"},
}
# Hours of compiling; every other job is a matter of minutes.
LONG = {("publish.yml", "kernel"): 350}
EXPRESSION = re.compile(r"\$\{\{")


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def jobs() -> list[tuple[str, str, dict[str, Any]]]:
    return [(path.name, name, job) for path in WORKFLOWS for name, job in read(path)["jobs"].items()]


def runs() -> list[tuple[str, str]]:
    """Each step that runs commands: where it is, and its script."""
    return [
        (f"{file} {name} {step.get('name', '')}", step["run"])
        for file, name, job in jobs()
        for step in job.get("steps", ())
        if "run" in step
    ]


def test_there_are_workflows() -> None:
    assert {path.name for path in WORKFLOWS} >= {"tests.yml", "publish.yml", "images.yml", "weekly.yml"}


@pytest.mark.parametrize(("file", "name", "job"), jobs(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_job_has_few_rights_and_a_limit(file: str, name: str, job: dict[str, Any]) -> None:
    assert read(ROOT / ".github" / "workflows" / file)["permissions"] == {}
    writes = {right: how for right, how in job["permissions"].items() if how != "read"}
    assert writes == WRITES.get((file, name), {})
    if "uses" in job:
        assert job["uses"].startswith("./.github/workflows/")
        return
    assert job["timeout-minutes"] <= LONG.get((file, name), 120)
    for step in job["steps"]:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step.get("uses", "own/step@" + "0" * 40)), step
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_the_same_action_is_the_same_commit_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, pin in re.findall(r"uses: ([\w-]+/[\w-]+)@(\S+ # v\S+)", path.read_text()):
            pins.setdefault(name, set()).add(pin)
    assert {name: len(found) for name, found in pins.items()} == dict.fromkeys(pins, 1)


def test_publishing_waits_and_is_never_cut_off() -> None:
    assert read(ROOT / ".github/workflows/publish.yml")["concurrency"] == {
        "group": "publish",
        "cancel-in-progress": False,
    }


@pytest.mark.parametrize(("where", "script"), runs())
def test_a_script_has_its_values_from_the_environment(where: str, script: str) -> None:
    """What GitHub puts into the text of a script could be a command of somebody else's."""
    assert not EXPRESSION.search(script), where


def test_every_task_and_flag_that_a_workflow_names_is_there() -> None:
    tasks = importlib.import_module("tasks")
    told = 0
    for where, script in runs():
        for line in script.replace("\\\n", " ").splitlines():
            for call in re.findall(r"\./inv ([^|>)]+)", line):
                task, *words = shlex.split(call)
                found = getattr(tasks, task, None)
                assert found is not None, f"{where}: there is no task {task}"
                flags = {flag for argument in found.get_arguments() for flag in argument.names}
                named = {word.removeprefix("--") for word in words if word.startswith("--")}
                assert named <= flags, f"{where}: {task} has no {named - flags}"
                told += 1
    assert told > 10


@pytest.mark.parametrize(("where", "script"), [run for run in runs() if not run[1].startswith(".ci/")])
def test_a_script_is_bash_that_shellcheck_accepts(where: str, script: str) -> None:
    program = str(Path(sys.executable).parent / "shellcheck")
    done = process.run([program, "--shell=bash", "-"], stdin=script, check=False)
    assert done.code == 0, f"{where}\n{done.out}"


# The matrices


def rows(count: int = 1, **changes: Any) -> list[dict[str, Any]]:
    row = {"id": "cpu-x", "tags": ["i:cpu-x"], "stack": "cpu", "engine": "vllm", "archs": [], "kernel": None}
    return [row | {"state": "locked"} | changes for _ in range(count)]


def test_images_are_those_of_locked_stacks_in_lists_that_a_matrix_takes() -> None:
    found = workflow.images([*rows(workflow.MOST_JOBS + 3), *rows(state="unlocked", id="other")])
    assert [len(one) for one in found] == [workflow.MOST_JOBS, 3]
    assert found[1][0] == {"id": "cpu-x", "tag": "i:cpu-x", "archs": ""}
    assert workflow.images([]) == []


def test_a_stack_is_built_for_one_card_with_the_kernel_that_compiles_soonest() -> None:
    found = workflow.stacks(
        [
            *rows(stack="cu124", id="slow", archs=["8.0"], kernel="flash-attn"),
            *rows(stack="cu124", id="many", archs=["7.0", "7.5"]),
            *rows(stack="cu124", id="soon", archs=["7.5"], kernel="xformers"),
            *rows(stack="cu124", id="sdpa", archs=["7.5"], engine="transformers"),
            *rows(stack="cu118", id="never", state="unlocked"),
        ]
    )
    assert [one["id"] for one in found] == ["soon", "sdpa"]


def test_every_kernel_of_the_matrix_has_a_weight() -> None:
    packages = nonempty({one.package for one in variants().kernels})
    weights = [workflow.stacks(rows(2, archs=["7.5"], kernel=package)) for package in packages]
    assert all(len(found) == 1 for found in weights)
    both = [*rows(id="x", archs=["7.5"], kernel="xformers"), *rows(id="f", archs=["7.5"], kernel="flashinfer")]
    assert [one["id"] for one in workflow.stacks(both)] == ["f"]


def kernel(where: str, *variants: str) -> dict[str, Any]:
    return {"id": "flash-sm70_75", "archs": ["7.0", "7.5"], "where": where, "variants": list(variants)}


def test_kernels_are_those_that_are_nowhere_yet() -> None:
    told = [kernel(where) for where in ("store", "registry", "unlocked", "not built")]
    assert workflow.kernels(told) == [{"id": "flash-sm70_75", "archs": "7.0 7.5"}]
    with pytest.raises(UsageError, match="251 jobs"):
        workflow.kernels([told[-1]] * 251)


@pytest.mark.parametrize(("only", "count"), [("cu124-*", 1), ("flash*", 1), ("cpu*", 0), ("*", 2)])
def test_kernels_are_those_of_the_wanted_variants(only: str, count: int) -> None:
    told = [kernel("not built", "cu124-x"), kernel("not built") | {"id": "extra"}]
    assert len(workflow.kernels(told, only)) == count


def test_every_locked_variant_of_this_matrix_is_published() -> None:
    matrix = Checkout(ROOT).matrix()
    variants = make_variants(matrix).valid.values()
    [found] = workflow.images(variant_json(matrix.image, variant, "locked", None) for variant in variants)
    assert [one["id"] for one in found] == [variant.id for variant in variants]


def test_the_line_is_what_github_output_takes() -> None:
    assert workflow.main(["images"], json.dumps(rows())) == 'images=[[{"id":"cpu-x","tag":"i:cpu-x","archs":""}]]'
    with pytest.raises(UsageError, match="no JSON"):
        workflow.main(["images"], "error")
    with pytest.raises(UsageError, match="which jobs"):
        workflow.main(["imgs"], "[]")
    with pytest.raises(UsageError, match="which jobs"):
        workflow.main([], "[]")
    assert workflow.main(["kernels", "cu124-*"], json.dumps([kernel("not built", "cpu")])) == "kernels=[]"
