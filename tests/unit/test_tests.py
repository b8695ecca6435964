"""No test that cannot fail: each one asserts something, whatever it loops over; see tests/helpers/assertions.py."""

from __future__ import annotations

from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest

from tests.helpers.assertions import Module, faults
from tests.helpers.nonempty import nonempty

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests", "images/proof/smoke/levels")


@cache
def modules() -> dict[Path, Module]:
    """All files of tests, parsed, by their paths from the checkout on."""
    paths = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return {path: Module.parse(".".join(path.with_suffix("").parts), (ROOT / path).read_text()) for path in paths}


def test_no_test_can_pass_without_an_assertion() -> None:
    tests = [one.name for module in modules().values() for one in module.functions if one.name.startswith("test_")]
    assert len(tests) > 1000
    assert faults(modules().values()) == []


def test_pytest_finds_every_test(pytestconfig: pytest.Config) -> None:
    """It passes over files that are not called test_….py, and of itself over folders such as build, dist and venv."""
    functions = [(path, one.name) for path, module in modules().items() for one in module.functions]
    tests = {path for path, name in functions if name.startswith("test_")}
    assert [str(path) for path in nonempty(tests) if not path.match("test_*.py")] == []
    passed_over: list[str] = pytestconfig.getini("norecursedirs")
    folders = {folder for path in nonempty(tests) for folder in path.parent.parts}
    assert [name for name in folders if any(fnmatch(name, glob) for glob in passed_over)] == []


def test_nothing_is_refused_as_a_collection_to_loop_over() -> None:
    assert nonempty(range(2)) == [0, 1]
    with pytest.raises(AssertionError, match="nothing to check"):
        nonempty(iter(""))


def judged(body: str, before: str = "") -> str:
    """What is found against a test of this body: "" or the reason."""
    text = dedent(before) + "\ndef test_it():\n" + "".join(f"    {line}\n" for line in dedent(body).strip().split("\n"))
    found = faults([Module.parse("tests.unit.test_x", text), Module.parse("tests.helpers.checks", CHECKS)])
    return "; ".join(found).removeprefix("tests.unit.test_x:").partition("test_it ")[2]


CHECKS = """
def agrees(one): assert one
def make(): return 1
def agrees_all(ones):
    for one in ones: agrees(one)
"""


@pytest.mark.parametrize(
    "body",
    [
        "make()",
        "audit()",
        "with suppress(ValueError):\n    audit()",
        "def check(): assert 1\naudit(check)",
        "pytest.skip('no card')",
        "pytest.raises",
        "process.agrees(1)",
        "agrees_all(found)",
        "agreed = checks.make()",
    ],
)
def test_a_test_that_asserts_nothing_is_found(body: str) -> None:
    imports = "from images.core import process\nfrom tests.helpers.checks import agrees_all, make"
    assert judged(body, imports).startswith("asserts ")
    assert judged(f"{body}\nassert 1", imports) == ""


@pytest.mark.parametrize(
    "loop",
    [
        "for one in found:",
        "for one in ():",
        "for one in []:",
        "for one in {}.items():",
        "for one in [*found]:",
        "for one in sorted(found):",
        "for one in zip((1, 2), found):",
        "for one in range(0):",
        "for one in range(64, len(data)):",
        "for one in (x for x in (1, 2) if x > 2):",
        "while found:",
        "for one in (1, 2):\n    for other in found:",
        "for one in nonempty(found):\n    if one:",
        "for one in nonempty(found):\n    if one: continue",
    ],
)
def test_a_loop_that_may_have_no_turn_is_found(loop: str) -> None:
    indent = " " * (len(loop.splitlines()[-1]) - len(loop.splitlines()[-1].lstrip()) + 4 * loop.endswith(":"))
    for inside in ("assert one", "with pytest.raises(ValueError): read(one)", "pytest.fail('no')", "agrees(one)"):
        body = f"{loop}\n{indent or '    '}{inside}"
        imports = "from tests.helpers.checks import agrees"
        assert judged(body, imports) == "asserts only where nothing may run", body
        assert judged(f"{body}\nassert found", imports) == ""


@pytest.mark.parametrize(
    "body",
    [
        "assert all(x for x in found)",
        "assert all([x for x in (1, 2) if x])",
        "assert not any(x in text for x in found)",
        "assert all(map(check, found))",
    ],
)
def test_a_promise_about_all_of_nothing_is_found(body: str) -> None:
    assert judged(body) == "asserts only where nothing may run"


@pytest.mark.parametrize(
    "body",
    [
        "assert found",
        "with pytest.raises(ValueError, match='x'):\n    audit()",
        "if found:\n    pytest.fail('found')",
        "mock.assert_called_once()",
        "agrees(1)",
        "checks.agrees(1)",
        "own(1)",
        "with engine() as one:\n    assert one",
        "try:\n    audit()\nfinally:\n    assert 1",
        "for one in (1, 2):\n    assert one",
        "for one in {'a': 1}.items():\n    assert one",
        "for one in range(3):\n    assert one",
        "for one in nonempty(found):\n    assert one",
        "for one in enumerate(nonempty(found)):\n    assert one",
        "for one in (1, *found):\n    with pytest.raises(ValueError):\n        read(one)",
        "for one in nonempty(found):\n    if one:\n        assert one\n    else:\n        assert two",
        "assert all(x for x in (1, 2))",
        "assert not any(x in text for x in nonempty(found))",
        "assert any(x for x in found)",
        "async def scene():\n    await agrees(1)\nasyncio.run(scene())",
    ],
)
def test_a_test_that_can_fail_is_left_alone(body: str) -> None:
    imports = "from tests.helpers import checks\nfrom tests.helpers.checks import agrees\ndef own(x): agrees(x)"
    assert judged(body, imports) == ""
