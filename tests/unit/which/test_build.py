"""Building and publishing the program `which`: what the engine is told, what is built in, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from images.catalogue import Catalogue
from images.commands.which import WhichOptions, build_program, public_key, publish_program
from images.core import CardstockError, CheckFailed, NothingSelected, UsageError
from images.which import publish
from images.which.build import PROGRAM, SOURCES, BuiltIn, bake_file, read_program, write_context
from images.which.publish import prove, publish_which, see_catalogue
from images.which.questions import by_program, by_pull, differences, usual_questions
from tests.helpers.catalogues import SM75, catalogue
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty

REPOSITORY = "registry.example.com/team/qwen"
KEY = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"


def program(folder: Path, *says: str, code: int = 0, err: str = "") -> Path:
    """A program in which's place."""
    path = folder / "which"
    (folder / "says").write_text("".join(f"{line}\n" for line in says))
    path.write_text(f'#!/bin/sh\ncat "{folder}/says"\necho "{err}" >&2\nexit {code}\n')
    path.chmod(0o755)
    return path


def test_the_build_context_is_go_its_tables_and_what_is_built_in(tmp_path: Path) -> None:
    write_context(ROOT, tmp_path / "context", matrix(), variants(), BuiltIn(REPOSITORY, KEY))
    files = {path.relative_to(tmp_path / "context").as_posix() for path in (tmp_path / "context").rglob("*.*")}
    assert {
        "program/main.go",
        "program/machine_test.go",
        "program/go.mod",
        "program/tables.json",
        "built.json",
    } <= files
    assert not any(name.startswith("program/built") for name in files)
    built = json.loads((tmp_path / "context/built.json").read_text())
    assert (built["repository"], built["key"]) == (REPOSITORY, KEY)
    assert json.loads((tmp_path / "context/program/tables.json").read_text())["form"] == 1


def test_go_needs_no_package_of_others() -> None:
    assert (ROOT / PROGRAM / "go.mod").read_text() == "module cardstock/which\n\ngo 1.19\n"


def test_bake_is_told_of_the_image_and_of_the_file(tmp_path: Path) -> None:
    contexts = {"base": "docker-image://base"}
    told = json.loads(bake_file(ROOT, tmp_path, contexts, (("apt", "/s/apt"),), "x:which", tmp_path / "out"))["target"]
    assert told["image"]["tags"] == ["x:which"]
    assert told["image"]["secret"] == ["id=apt,src=/s/apt"]
    assert told["program"]["output"] == [f"type=local,dest={tmp_path / 'out'}"]
    alone = json.loads(bake_file(ROOT, tmp_path, contexts, (), "x:which", None))["target"]
    assert list(alone) == ["image"]


def test_the_image_has_no_root_and_no_shell() -> None:
    last = (ROOT / SOURCES / "Dockerfile").read_text().partition("FROM scratch AS image\n")[2]
    assert "USER 10001:10001" in last
    assert "RUN" not in last
    assert "\nENV NVIDIA_VISIBLE_DEVICES" not in last


def test_a_build_without_a_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(CardstockError, match="left no program"):
        read_program(tmp_path)


def test_the_usual_questions_have_every_kind_of_card_and_driver() -> None:
    asked = list(usual_questions(variants()))
    archs = {card["arch"] for one in asked for card in one["cards"]}
    assert set(matrix().archs) < archs
    needed = {one.min_driver for one in variants().valid.values()} - {None}
    assert needed <= {one["driver"] for one in asked}
    assert {len(one["cards"]) for one in asked} == {1, 2}


def test_answers_that_are_the_same_and_that_differ(tmp_path: Path) -> None:
    asked = list(usual_questions(variants()))[::24][:40]
    right = [by_pull(one, catalogue(), REPOSITORY, matrix(), variants()) for one in nonempty(asked)]
    assert any("answer" in one for one in right)
    assert any("error" in one for one in right)

    def found(answers: list[str]) -> int:
        told = program(tmp_path, *answers)
        return len(differences(told, asked, catalogue(), REPOSITORY, matrix(), variants(), tmp_path))

    said = [json.dumps(one) for one in right]
    assert found(said) == 0
    assert found([*said[:-1], said[-1].replace("driver", "Driver", 1)]) == 1
    with pytest.raises(CheckFailed, match="answers 39 of 40 questions"):
        found(said[:-1])
    with pytest.raises(CheckFailed, match="does not answer"):
        by_program(program(tmp_path, code=1), asked, catalogue(), REPOSITORY, tmp_path)


def test_a_program_that_answers_other_is_not_published(tmp_path: Path) -> None:
    count = len(list(usual_questions(variants())))
    told = program(tmp_path, *['{"error": {}}'] * count)
    with pytest.raises(CheckFailed, match=f"answers {count} of {count} questions other than pull does"):
        prove(context(), told, REPOSITORY, catalogue(SM75), tmp_path)


def test_a_catalogue_of_another_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="does not take the catalogue") as caught:
        see_catalogue(context(), program(tmp_path, code=7, err="is not signed by this signer"), REPOSITORY, tmp_path)
    assert "is not signed by this signer" in caught.value.cause
    report, err = silent()
    see_catalogue(context(report), program(tmp_path, code=6, err="wants a login"), REPOSITORY, tmp_path)
    assert "was not seen to read the catalogue: wants a login" in err.getvalue()
    see_catalogue(context(report), program(tmp_path), REPOSITORY, tmp_path)
    assert "its signature is of the key that is built in" in err.getvalue()


def test_without_images_there_is_nothing_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: object) -> tuple[Catalogue | None, str]:
        return None, ""

    monkeypatch.setattr(publish, "fetch_catalogue", nothing)
    made = context()
    with pytest.raises(NothingSelected, match="nothing is published in"):
        publish_which(made, made.repository(REPOSITORY), None, "")


def test_keys_that_can_be_built_in(tmp_path: Path) -> None:
    path = tmp_path / "cosign.pub"
    path.write_text(KEY)
    assert public_key(WhichOptions(verify_key=str(path)), None) == KEY
    assert public_key(WhichOptions(), None) == ""
    path.write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="is no public key"):
        public_key(WhichOptions(verify_key=str(path)), None)
    with pytest.raises(UsageError, match="cannot read"):
        public_key(WhichOptions(verify_key=str(tmp_path / "none")), None)


def test_flags_that_do_not_go_together(tmp_path: Path) -> None:
    for options in nonempty([WhichOptions(to=REPOSITORY, file="x"), WhichOptions(to=REPOSITORY, source=REPOSITORY)]):
        with pytest.raises(UsageError, match="--to builds its own repository in"):
            publish_program(context(), options)
    with pytest.raises(UsageError, match="there is no folder"):
        build_program(context(), WhichOptions(file=str(tmp_path / "none" / "which")))
