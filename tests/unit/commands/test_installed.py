"""The console script `cardstock`: from the wheel's files alone, typed as people type it; and each command's example."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from invoke.collection import Collection
from invoke.parser import Parser

import tasks
from dev.package.contents import PLACE, WITHOUT, commands_of, contents
from dev.package.reached import imports, reached
from images.commands.installed import COMMANDS, IN_CHECKOUT
from images.commands.program import Inv, spelled_out
from images.core import process
from tests.helpers.matrices import ROOT
from tests.helpers.nonempty import nonempty

# Types each line in one process, and prints exit code and what was said, a JSON list.
TYPE = """
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
import cardstock
said = []
for words in json.loads(sys.argv[2]):
    out, sys.argv, code = io.StringIO(), ["cardstock", *words], 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cardstock.main()
        except SystemExit as end:
            code = end.code or 0
    said.append([code, out.getvalue()])
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, as pip would lay them."""
    folder = tmp_path_factory.mktemp("site")
    for path, place in contents(ROOT).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / place)
    return folder


def typed(site: Path, *lines: list[str], **environment: str) -> list[tuple[int, str]]:
    """Exit code and text of each line, in a folder that has nothing of Cardstock's."""
    empty = site.parent / "empty"
    empty.mkdir(exist_ok=True)
    env = {"CARDSTOCK_HOME": str(empty / "home"), "DOCKER_HOST": f"unix://{empty}/none.sock", **environment}
    argv = [sys.executable, "-I", "-c", TYPE, str(site), json.dumps(lines)]
    return [(code, text) for code, text in json.loads(process.run(argv, cwd=empty, env=env, timeout=200).out)]


LINES: Mapping[str, list[list[str]]] = {
    "advisories": [["--only", "cpu*"], ["--update", "--write"], ["--record-debian", "x"], ["--complete"]],
    "audit": [["nothing-here"], ["x.whl", "--record"]],
    "cards": [["--card", "T4"], ["--card", "T4", "--json"], ["--card", "GTX 980"], ["--card", "RTX 4O90"]],
    "catalogue": [[], ["--html", "page", "--offline", "none.json"]],
    "cluster": [[], ["--hosts", "none.yaml"]],
    "demo": [["--server", "http://127.0.0.1:9"], ["--port", "0"]],
    "engine": [["--status"]],
    "fit": [
        ["--model", "3b-awq", "--card", "T4"],
        ["--model", "7b", "--card", "T4"],
        ["--model", "72b", "--card", "T4"],
    ],
    "load": [[], ["--dir", "none"]],
    "pull": [[], ["--card", "RTX 4O90", "--from", "127.0.0.1:9/x"], ["--offline", "none.json", "--card", "T4"]],
    "serve": [
        [],
        ["--model", "3b-awq", "--print", "--card", "T4"],
        ["--stop", "x"],
        ["--model", "3b-awq"],
        ["--model", "3b-awq", "--kubernetes", "--card", "T4"],
    ],
    "warm": [[], ["--model", "3b-awq"], ["--model", "3b-awq", "--key", "x"]],
}


def test_every_command_names_itself_and_the_others_as_typed(site: Path) -> None:
    """doctor looks at the network, so it is typed in tests/engine/test_package.py."""
    assert {*LINES, "doctor"} == set(COMMANDS)
    lines = [[name, *words] for name, several in LINES.items() for words in several]
    lines += [[name, "--help"] for name in COMMANDS]
    for words, (_, text) in zip(nonempty(lines), typed(site, *lines), strict=True):
        assert "a defect in cardstock" not in text, (words, text)
        assert "No module named" not in text, (words, text)
        wrong = [line for line in text.splitlines() for name in COMMANDS if f"./inv {name}" in line]
        assert [line for line in wrong if "in a checkout" not in line and "git clone" not in line] == [], words


def test_the_next_command_is_one_that_is_there(site: Path) -> None:
    (code, text), (_, fitted) = typed(
        site, ["cards", "--card", "T4", "--driver", "535.104"], ["fit", "--model", "3b-awq", "--card", "T4"]
    )
    assert code == 0
    assert "Tesla T4: cu124-vllm0.8.5.post1-xformers-sm75" in text
    assert "next: cardstock pull --from REPO --card T4 --driver 535.104" in text
    assert "next: cardstock serve --model 3b-awq --card T4" in fitted


def test_what_records_show_is_what_a_checkout_shows(site: Path) -> None:
    """The package keeps the hashes of today's images: without them a proof would pass for one of an earlier build."""
    ((code, text),) = typed(site, ["cards", "--card", "H200", "--json"])
    assert code == 0
    words = ["cards", "--card", "H200", "--json"]
    here = process.run([sys.executable, "-m", "images.commands.program", *words], cwd=ROOT, timeout=120).out
    assert json.loads(text[text.index("{") :]) == json.loads(here)


@pytest.mark.parametrize("words", [["build", "--arch", "7.5"], ["render"], ["test", "--gpu"]])
def test_a_command_of_a_checkout_says_where_it_is_had(site: Path, words: list[str]) -> None:
    ((code, text),) = typed(site, words)
    assert code == 2
    assert text.splitlines() == [
        f"error: {words[0]} is a command of a checkout, and this is the installed cardstock",
        f"  do: git clone https://github.com/cardstock-images/cardstock, and there ./inv {words[0]}",
    ]


def test_what_writes_into_a_checkout_is_refused(site: Path) -> None:
    lines = [["advisories", "--update", "--write"], ["audit", "x.whl", "--record"]]
    for code, text in nonempty(typed(site, *lines)):
        assert code == 2
        assert "is a file of a checkout, and this is the installed cardstock" in text


def test_settings_are_the_users_own(site: Path, tmp_path: Path) -> None:
    (tmp_path / "cardstock").mkdir()
    (tmp_path / "cardstock" / "site.yaml").write_text("ca: /no/such/file.pem\n")
    ((code, text),) = typed(site, ["cards", "--card", "T4", "--from", "127.0.0.1:9/x"], XDG_CONFIG_HOME=str(tmp_path))
    assert code == 2
    assert "ca: no file /no/such/file.pem" in text


def test_the_list_has_the_users_half_and_no_more(site: Path) -> None:
    ((code, text),) = typed(site, ["--list"])
    assert code == 0
    named = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "]
    assert named == list(COMMANDS)


def test_both_halves_are_the_whole() -> None:
    assert sorted([*COMMANDS, *IN_CHECKOUT]) == sorted(tasks.__all__)
    assert commands_of(ROOT) == COMMANDS


def test_the_wheel_has_nothing_of_the_build_half() -> None:
    places = set(contents(ROOT).values())
    assert f"{PLACE}/images/commands/pull.py" in places
    assert f"{PLACE}/matrix.yaml" in places
    assert {place.split("/")[0] for place in places} == {"cardstock"}
    barred = (
        "bench/",
        "tests/",
        "docs/",
        "images/build/",
        "images/kernels/",
        "dockerfiles/rendered",
        "dockerfiles/build",
    )
    assert [place for place in nonempty(places) if place.removeprefix(f"{PLACE}/").startswith(barred)] == []
    assert not any("Dockerfile" in place or place.endswith(".j2") for place in places)


def test_what_is_left_out_is_imported_nowhere_but_where_it_is_not_reached() -> None:
    """`cards` asks images.build in a checkout only; nothing else of the wheel knows the rooms that it lacks."""
    modules = [path for path in contents(ROOT) if path.suffix == ".py" and ROOT / "images" in path.parents]
    users = {path.name for path in nonempty(modules) if any(name.startswith(WITHOUT) for name in imports(ROOT, path))}
    assert users == {"cards.py"}


def test_reached_follows_faces_and_functions(tmp_path: Path) -> None:
    files = {
        "a/__init__.py": "",
        "a/one.py": "from a.room import thing\ndef f():\n    import a.late\n",
        "a/late.py": "",
        "a/room/__init__.py": "if TYPE_CHECKING:\n    from a.room.inner import thing as thing\n"
        "    from a.room.other import rest as rest\n",
        "a/room/inner.py": "from a import two\n",
        "a/room/other.py": "",
        "a/two.py": "import b.x\n",
        "b/__init__.py": "",
        "b/x.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = reached(tmp_path, ["a.one"], without=["b"])
    assert sorted(found) == ["a", "a.late", "a.one", "a.room", "a.room.inner", "a.two"]


@pytest.mark.parametrize("name", tasks.__all__)
def test_help_begins_with_an_example_that_the_parser_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Inv(name="inv", binary="./inv").run(["./inv", name, "--help"])
    assert not caught.value.code
    text = capsys.readouterr().out
    first = text.splitlines()[0]
    assert first.startswith(f"./inv {name}")
    words = spelled_out(shlex.split(first)[1:])
    contexts = [one for one in Collection.from_module(tasks).to_contexts() if one.name == name]
    (parsed,) = Parser(contexts=contexts).parse_argv(words)
    assert parsed.name == name
    flags = [flag for flag in getattr(tasks, name).flags if flag.help]
    assert all(flag.help.split()[0] in text for flag in flags)
