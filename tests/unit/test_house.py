"""The house around the package: what ./inv does on a first use, and what the lock and the workflows promise."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from images.core import process, toml
from tests.helpers.nonempty import nonempty

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "dev" / "requirements.lock"

# Makes a virtual environment as python -m venv does, from the outside: each call is one line of the log.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
    -c*version_info*) exit "${TOO_OLD:-0}" ;;
    -c*ensurepip*) exit "${NO_ENSUREPIP:-0}" ;;
    -c*executable*) echo /fake/python ;;
    --version) echo "Python 3.8.1" ;;
    "-m venv --clear .venv")
        sleep 0.2
        rm -rf .venv && mkdir -p .venv/bin
        cp "$0" .venv/bin/python
        ;;
    "-m images.commands.program"*)
        shift 2
        echo "invoke in $PWD:" "$@" ;;
    "-m pip install"*) exit "${PIP_FAILS:-0}" ;;
esac
"""


class House:
    """A checkout with only what inv needs, and a Python that writes down what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "check out"
        (self.root / "dev").mkdir(parents=True)
        shutil.copy(ROOT / "inv", self.root / "inv")
        self.lock = self.root / "dev" / "requirements.lock"
        self.lock.write_text("invoke==3.0.3 --hash=sha256:00\n")
        self.python = folder / "python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)
        self.log = folder / "log"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()

    def inv(self, *words: str, **env: str) -> process.Finished:
        told = {"CARDSTOCK_PYTHON": str(self.python), "LOG": str(self.log), **env}
        return process.run([str(self.root / "inv"), *words], cwd=self.elsewhere, env=told, check=False, timeout=60)

    def made(self) -> int:
        return self.log.read_text().splitlines().count("-m venv --clear .venv") if self.log.exists() else 0


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_first_use_makes_the_environment_and_later_ones_do_not(house: House) -> None:
    first = house.inv("plan", "--only", "cpu *")
    assert first.code == 0
    assert first.out == f"invoke in {house.root}: plan --only cpu *\n"
    assert len(first.err.splitlines()) == 1
    assert "making .venv from dev/requirements.lock" in first.err
    assert "--no-deps --require-hashes -r dev/requirements.lock" in house.log.read_text()
    second = house.inv("plan")
    assert (second.err, house.made()) == ("", 1)


def test_through_a_link_it_finds_its_own_checkout(house: House) -> None:
    link = house.elsewhere / "cardstock"
    link.symlink_to(house.root / "inv")
    done = process.run([str(link)], env={"CARDSTOCK_PYTHON": str(house.python), "LOG": str(house.log)})
    assert done.out == f"invoke in {house.root}:\n"


def test_a_changed_lock_makes_it_anew(house: House) -> None:
    house.inv()
    house.lock.write_text("invoke==3.0.4 --hash=sha256:00\n")
    assert "making .venv" in house.inv().err
    assert house.made() == 2


def test_a_moved_checkout_makes_it_anew(house: House) -> None:
    house.inv()
    house.root = house.root.rename(house.root.parent / "moved")
    assert house.inv().out == f"invoke in {house.root}:\n"
    assert house.made() == 2


def test_a_vanished_python_makes_it_anew(house: House) -> None:
    house.inv()
    (house.root / ".venv" / "bin" / "python").unlink()
    assert house.inv().code == 0
    assert house.made() == 2


def test_a_failed_install_is_told_and_done_over(house: House) -> None:
    failed = house.inv(PIP_FAILS="1")
    assert failed.code == 2
    assert "could not be installed" in failed.err
    assert "HTTPS_PROXY" in failed.err
    assert failed.out == ""
    assert house.inv().code == 0
    assert house.made() == 2


def test_two_first_uses_at_once_make_it_once(house: House) -> None:
    done: list[process.Finished] = []
    threads = [threading.Thread(target=lambda: done.append(house.inv("x"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [finished.code for finished in done] == [0, 0, 0]
    assert house.made() == 1


def test_an_old_python_is_named(house: House) -> None:
    done = house.inv(TOO_OLD="1")
    assert done.code == 2
    assert "no Python 3.10 or newer" in done.err
    assert "is Python 3.8.1" in done.err
    assert "do: install one" in done.err
    assert all(word in done.err for word in ("apt-get", "dnf", "pacman"))
    assert not (house.root / ".venv").exists()


def test_no_python_at_all_is_told(house: House) -> None:
    done = house.inv(CARDSTOCK_PYTHON="python-that-is-not-there")
    assert done.code == 2
    assert "no Python 3.10 or newer" in done.err


def test_a_python_below_a_path_with_a_space(house: House) -> None:
    place = house.root.parent / "my pythons"
    place.mkdir()
    done = house.inv("plan", CARDSTOCK_PYTHON=str(house.python.rename(place / "python")))
    assert (done.code, done.out) == (0, f"invoke in {house.root}: plan\n")


def test_a_checkout_that_cannot_be_written_is_told(house: House) -> None:
    # Root writes everywhere, so the test takes away what `[ -w` says.
    script = house.root / "inv"
    script.write_text(script.read_text().replace('[ -w "$lock" ]', "false"))
    done = house.inv()
    assert done.code == 2
    assert "this checkout cannot be written" in done.err
    assert "do: clone it to a folder of yours" in done.err
    assert house.made() == 0


def test_without_ensurepip_it_says_what_to_install(house: House) -> None:
    done = house.inv(NO_ENSUREPIP="1")
    assert done.code == 2
    assert "do: apt-get install python3-venv" in done.err
    assert house.made() == 0


def locked() -> dict[str, str]:
    """Name -> the whole entry, of each package of the lock."""
    entries = re.split(r"\n(?=[a-z0-9])", LOCK.read_text())
    return {canonicalize_name(entry.split("==")[0]): entry for entry in entries}


def test_every_locked_package_has_hashes() -> None:
    assert [name for name, entry in locked().items() if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_index_and_no_path() -> None:
    assert not re.search(r"://|^\s*--?(index|extra|find|trusted|e\b)|^[./]|\s@\s", LOCK.read_text(), re.MULTILINE)


def test_the_lock_holds_what_the_project_asks_for() -> None:
    said = toml.loads((ROOT / "pyproject.toml").read_text())
    groups = said["dependency-groups"]
    texts = said["project"]["dependencies"] + groups["dev"] + groups["package"]
    wanted = [Requirement(text) for text in texts if isinstance(text, str)]
    entries = locked()
    for want in nonempty(wanted):
        entry = entries.get(canonicalize_name(want.name), "")
        version = re.match(r"[^=]+==([^ ;\\]+)", entry)
        assert version, f"{want.name} is not in the lock"
        assert want.specifier.contains(version[1]), f"the lock has {want.name} {version[1]}, not {want.specifier}"


@pytest.mark.parametrize("name", ["inv", ".ci/run"])
def test_scripts_are_executable(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111 == 0o111
