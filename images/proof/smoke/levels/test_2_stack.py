"""Level 2, stack: is what is in the image what the matrix says, and nothing else? No card and no network needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from images.core import CheckFailed
from images.docker import TemporaryContainer
from images.proof.audit import loaded_libraries
from images.proof.smoke import (
    CHECKS,
    PROOF,
    Expectation,
    Findings,
    ProofContainers,
    command_paths,
    required_modules,
)

TORCH = "import json, torch; print(json.dumps({'version': torch.__version__, 'cuda': torch.version.cuda}))"


@pytest.fixture(scope="module")
def findings(
    containers: ProofContainers, volume: str, expectation: Expectation, private_cas: frozenset[str]
) -> Findings:
    """All that the checks judge, asked in one container."""
    with containers.sleeping(volume) as container:
        finished = container.run(["python", f"{PROOF}/probe.py", *command_paths(containers.config)])
        if finished.code:
            raise CheckFailed("the probe failed in the image", cause=finished.tail)
        kernel = expectation.kernel.package if expectation.kernel else None
        return Findings(
            expectation=expectation,
            config=containers.config,
            probe=json.loads(finished.out),
            torch=_torch(container),
            xformers_info=_xformers_info(container) if kernel == "xformers" else {},
            imports={name: _import(container, name) for name in required_modules(expectation)}
            | _imports_of_the_server(container, expectation.modules),
            private_cas=private_cas,
        )


def _torch(container: TemporaryContainer) -> dict[str, Any]:
    finished = container.run(["python", "-c", TORCH])
    if finished.code:
        return {"error": finished.tail}
    facts: dict[str, Any] = json.loads(finished.out.splitlines()[-1])
    return facts


def _xformers_info(container: TemporaryContainer) -> dict[str, str]:
    finished = container.run(["python", "-m", "xformers.info"])
    if finished.code:
        return {"error": finished.tail}
    pairs = (line.partition(":") for line in finished.out.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _import(container: TemporaryContainer, name: str) -> str:
    finished = container.run(["python", "-c", f"import {name}"])
    if not finished.code:
        return ""
    # The exception comes first: the first line of a complaint is what the record's reason shows.
    last = (finished.tail or f"exit code {finished.code}").splitlines()[-1]
    return f"{last}\n{finished.tail}"


def _imports_of_the_server(container: TemporaryContainer, modules: Sequence[str]) -> dict[str, str]:
    """What the server imports, in one process; what misses the driver alone is no complaint: only cards bring it."""
    finished = container.run(["python", f"{PROOF}/loaded_libraries.py", *modules])
    if finished.code:
        return dict.fromkeys(modules, finished.tail or f"exit code {finished.code}")
    failed = loaded_libraries.broken_imports(json.loads(finished.out.splitlines()[-1])["failed"])
    return {name: failed.get(name, "") for name in modules}


@pytest.mark.parametrize("name", CHECKS)
def test_stack(name: str, findings: Findings, facts: dict[str, Any]) -> None:
    """One check of images/proof/smoke/stack.py; every complaint is told."""
    facts["python"] = findings.probe["python"]
    facts["torch"] = dict(findings.torch)
    facts["versions"] = {key: findings.probe["versions"].get(key) for key in findings.expectation.pins}
    if findings.xformers_info:
        lines = findings.xformers_info.items()
        facts["xformers"] = {name: value for name, value in lines if name.startswith("build.") or "cutlassF" in name}
    complaints = CHECKS[name](findings)
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)
