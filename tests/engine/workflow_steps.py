"""Runs a workflow's job as a runner does: its own commands out of the YAML, its environment, its outputs.

What only GitHub has (`uses:`, expressions, `if:`) is told by the test: one that it did not foresee is an error.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from images.core import process

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass
class Runner:
    """``checkout`` is where the workflows are and run; ``known`` are the values of expressions, by their text.

    ``ran`` and ``left`` are the names of steps that ran, and of those whose ``if`` said no or that are an action.
    """

    checkout: Path
    known: dict[str, str]
    ran: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def job(self, file: str, name: str) -> Mapping[str, str]:
        """Run a job's steps in order; its outputs, which later jobs find as ``needs.NAME.outputs.…``."""
        workflow = yaml.safe_load((self.checkout / ".github" / "workflows" / file).read_text(encoding="utf-8"))
        job = workflow["jobs"][name]
        shell = workflow["defaults"]["run"]["shell"]
        assert shell == "bash"
        env = self._environment({**workflow.get("env", {}), **job.get("env", {})})
        for step in job["steps"]:
            title = step.get("name") or step.get("uses") or step["run"]
            if "run" not in step or not self._wanted(step):
                self.left.append(title)
                continue
            self._step(title, step, env)
            self.ran.append(title)
        outputs = {key: self.resolve(value) for key, value in job.get("outputs", {}).items()}
        self.known |= {f"needs.{name}.outputs.{key}": value for key, value in outputs.items()}
        return outputs

    def resolve(self, text: object) -> str:
        """A text with its expressions replaced."""
        return _EXPRESSION.sub(lambda found: self._value(found[1]), str(text))

    def _value(self, expression: str) -> str:
        assert expression in self.known, f"the test knows no value of {expression!r}"
        return self.known[expression]

    def _environment(self, message: Mapping[str, Any]) -> dict[str, str]:
        return {name: self.resolve(value) for name, value in message.items()}

    def _wanted(self, step: Mapping[str, Any]) -> bool:
        return "if" not in step or self._value(str(step["if"])) == "true"

    def _step(self, title: str, step: Mapping[str, Any], env: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory(prefix="cardstock-step-") as folder:
            script, output = Path(folder, "script"), Path(folder, "output")
            script.write_text(step["run"], encoding="utf-8")
            output.touch()
            mine = {**env, **self._environment(step.get("env", {})), "GITHUB_OUTPUT": str(output), "CI": "true"}
            # As GitHub runs `shell: bash`.
            argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
            print(f"--- {title}")
            code = process.stream(argv, print, cwd=self.checkout, env=mine, check=False, timeout=3000)
            assert code == 0, f"the step {title!r} exited with {code}: see its output above"
            for line in output.read_text(encoding="utf-8").splitlines():
                key, _, value = line.partition("=")
                self.known[f"steps.{step['id']}.outputs.{key}"] = value


def cloned(source: Path, to: Path) -> Path:
    """A checkout of ``source``'s last commit with the same development environment, which is not made anew."""
    process.run(["git", "clone", "--quiet", "--no-hardlinks", str(source), str(to)], timeout=300)
    (to / ".venv").mkdir()
    for path in (source / ".venv").iterdir():
        if path.name != ".stamp":
            (to / ".venv" / path.name).symlink_to(path)
    lock = process.run(["sha256sum"], cwd=to, stdin=(to / "dev/requirements.lock").read_text(encoding="utf-8")).out
    (to / ".venv" / ".stamp").write_text(f"{lock.strip()} {os.path.realpath(to)}\n", encoding="utf-8")
    return to


def run_action(folder: Path, inputs: Mapping[str, str], cwd: Path) -> tuple[int, list[str]]:
    """Run the shell steps of a composite action as GitHub does; the exit code of the first that fails, and all lines.

    ``inputs`` are as `with:` has them; what is left out has the action's default. A required one that is left out is
    empty, as with GitHub.
    """
    action = yaml.safe_load((folder / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"]["using"] == "composite"
    assert set(inputs) <= set(action["inputs"])
    known = {f"inputs.{name}": str(said.get("default", "")) for name, said in action["inputs"].items()}
    known |= {f"inputs.{name}": value for name, value in inputs.items()}
    runner, lines = Runner(cwd, known), list[str]()
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        # An input becomes part of no script: expressions stand in variables alone.
        assert "${{" not in step["run"]
        env = {name: runner.resolve(value) for name, value in step.get("env", {}).items()}
        env |= {"GITHUB_ACTION_PATH": str(folder), "CI": "true", "GITHUB_ACTIONS": "true"}
        with tempfile.TemporaryDirectory(prefix="cardstock-action-") as scripts:
            script = Path(scripts, "script")
            script.write_text(step["run"], encoding="utf-8")
            argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
            if code := process.stream(argv, lines.append, cwd=cwd, env=env, check=False, timeout=600):
                return code, lines
    return 0, lines
