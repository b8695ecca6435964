"""How many packages were looked up, by whom, and what packages there are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images.advisories.lookups import Lookup, coverage, exact, lookup_file, read_lookups
from images.advisories.packages import DEBIAN_FILE, carried_packages, debian_record, lock_packages, read_debian
from images.core.errors import UsageError
from tests.helpers.advisories import DAY, HEAD, carried, known, variant
from tests.helpers.matrices import ROOT

BY_HAND = HEAD + 'by_hand:\n  - {ecosystem: pypi, packages: [torch], source: "a copy", date: 2026-11-27}\n'


def test_what_nobody_looked_up_is_counted() -> None:
    one = carried({"openssl": "3"}, torch="2.6.0", numpy="2.0", pillow="13")
    asked = {"pypi": Lookup("OSV", "pypi", DAY, frozenset({"numpy==2.0", "pillow==12"}))}
    covered = coverage(known(head=BY_HAND), asked, [one])  # type: ignore[arg-type]
    assert (covered.by_service, covered.by_hand, covered.not_looked_up) == (1, 1, 2)
    assert not covered.complete
    assert covered.text() == "packages looked up by a service: 1; read by hand: 1; not looked up: 2"


def test_all_that_was_asked_about_is_complete() -> None:
    one = carried({"openssl": "3"}, torch="2.6.0")
    asked = {
        "pypi": Lookup("OSV", "pypi", DAY, exact(one.python)),
        "debian": Lookup("tracker", "debian", DAY, exact(one.debian)),
    }
    assert coverage(known(), asked, [one, one]).complete  # type: ignore[arg-type]


def test_packages_that_are_not_even_listed_are_said() -> None:
    one = carried_packages(variant(), None, {})
    assert not one.whole
    covered = coverage(known(), {}, [one])
    assert covered.unknown == ("Debian packages: not even listed", "a stack without a lock: only its pins are known")
    assert "not even listed" in covered.text()


def test_a_lock_has_its_packages_and_the_matrix_the_version_of_an_address() -> None:
    packages = lock_packages(ROOT / "dockerfiles/locks", "cu124-vllm")
    assert packages is not None
    assert packages["starlette"] == "1.10.0"
    assert lock_packages(ROOT / "dockerfiles/locks", "cu118-vllm") is None
    one = carried_packages(variant(), {"vllm": "https://example.com/a.whl", "torch": "2.6.0"}, {})
    assert one.python["vllm"] == "0.8.5.post1"


def test_a_look_up_is_kept_and_read(tmp_path: Path) -> None:
    assert read_lookups(tmp_path) == {}
    one = Lookup("OSV", "pypi", DAY, frozenset({"b==2", "a==1"}))
    path = tmp_path / lookup_file("pypi")
    path.parent.mkdir(parents=True)
    path.write_text(one.to_json())
    assert read_lookups(tmp_path) == {"pypi": one}
    path.write_text("{}")
    with pytest.raises(UsageError, match="is not the record of a look-up"):
        read_lookups(tmp_path)


def test_the_debian_packages_of_an_image_are_kept_and_read(tmp_path: Path) -> None:
    assert read_debian(tmp_path) == {}
    rows = [["libssl3", "3.0.11-1", "openssl", "3.0.11-1"], ["bsdutils", "1:2.38", "util-linux", "2.38"]]
    path = tmp_path / DEBIAN_FILE
    path.parent.mkdir(parents=True)
    path.write_text(debian_record(f"a line before\n{json.dumps(rows)}\n", "cpu", "2026-11-27"))
    assert read_debian(tmp_path) == {"openssl": "3.0.11-1", "util-linux": "2.38"}
    assert json.loads(path.read_text())["image"] == "cpu"
    path.write_text("[]")
    with pytest.raises(UsageError, match="is not a list of packages"):
        read_debian(tmp_path)


@pytest.mark.parametrize("output", ["", "no JSON", "[]", "[[1, 2]]", "7"])
def test_an_image_that_does_not_tell_is_an_error(output: str) -> None:
    with pytest.raises(UsageError, match="does not tell"):
        debian_record(output, "cpu", "2026-11-27")


def test_the_recorded_packages_are_those_of_an_image() -> None:
    packages = read_debian(ROOT)
    assert {"glibc", "openssl", "python3.11"} <= packages.keys()
