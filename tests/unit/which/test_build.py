"""Building and publishing the program `which`: what the engine is told, what is built in, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from images.catalogue import KIND, TAG, Catalogue
from images.commands.which import WhichOptions, build_program, public_key, publish_program
from images.core import CardstockError, CheckFailed, NothingSelected, UsageError
from images.docker import build_inputs
from images.docker.buildx import run_bake
from images.registry import ArtifactPart, Repository, artifact
from images.which import build, publish
from images.which.build import PROGRAM, SOURCES, BuiltIn, bake_file, read_program, write_context
from images.which.publish import prove, publish_which, see_catalogue
from images.which.questions import Question, by_program, by_pull, differences, usual_questions
from tests.helpers.catalogues import SM75, catalogue
from tests.helpers.contexts import context, silent
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.matrices import ROOT, matrix, variants
from tests.helpers.nonempty import nonempty
from tests.helpers.registries import registry

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
    asked = some_questions()[:40]
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


def some_questions() -> list[Question]:
    """Of the usual ones a few."""
    return list(usual_questions(variants()))[::24]


@dataclass
class Place:
    """An engine whose builds leave images and programs that answer as they are told to, and a registry."""

    engine: FakeEngine
    repository: str
    answers: list[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "home"))
    with registry() as (host, shelf):
        made = Place(FakeEngine(tmp_path / "engine", shelf), f"{host}/team/qwen", [])

        def bake(*asked: Any, **how: Any) -> None:
            run_bake(*asked, **how)
            (told,) = json.loads(asked[1][0].read_text())["target"].get("program", {"output": [""]})["output"]
            if told:
                program(Path(told.partition("dest=")[2]), *made.answers)

        monkeypatch.setattr(build, "run_bake", bake)
        monkeypatch.setattr(publish, "usual_questions", lambda _: some_questions())
        monkeypatch.setattr(build_inputs, "secrets", lambda *_: ())  # it asks apt
        yield made


def put_catalogue(repository: Repository, folder: Path) -> None:
    file = folder / "catalogue.json"
    file.write_text(catalogue(SM75).to_json())
    artifact.push(repository, TAG, KIND, [ArtifactPart(file, "application/json")], {})


def test_it_is_built_as_an_image_and_as_a_file(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = context(engine=place.engine.as_engine())
    build_program(made, WhichOptions())
    assert capsys.readouterr().out == f"{matrix().image}:which\n"
    facts = place.engine.inspect(f"{matrix().image}:which")
    assert facts is not None
    assert "dev.cardstock.which" in facts.labels
    build_program(made, WhichOptions(file=str(tmp_path / "program"), source=place.repository))
    assert capsys.readouterr().out == f"{tmp_path / 'program'}\n"
    assert (tmp_path / "program").stat().st_mode & 0o111
    assert not list(tmp_path.glob(".program*"))


def test_a_build_that_leaves_nothing(place: Place) -> None:
    (place.engine.folder / "leaves nothing").touch()
    with pytest.raises(CheckFailed, match="left no image"):
        build_program(context(engine=place.engine.as_engine()), WhichOptions())


def test_it_is_published_by_digest_and_its_tag_is_written_last(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = context(engine=place.engine.as_engine())
    repository = made.repository(place.repository)
    put_catalogue(repository, tmp_path)
    right = (by_pull(one, catalogue(SM75), place.repository, matrix(), variants()) for one in some_questions())
    place.answers += map(json.dumps, right)
    publish_program(made, WhichOptions(to=place.repository))
    named = repository.manifest("which")
    assert named is not None
    assert capsys.readouterr().out == f"{place.repository}@{named.digest}\n"


def test_a_program_that_answers_other_gets_no_tag(place: Place, tmp_path: Path) -> None:
    made = context(engine=place.engine.as_engine())
    repository = made.repository(place.repository)
    put_catalogue(repository, tmp_path)
    place.answers += ["{}"] * len(some_questions())
    with pytest.raises(CheckFailed, match="other than pull does"):
        publish_program(made, WhichOptions(to=place.repository))
    assert repository.manifest("which") is None


def test_a_machine_of_a_question_is_as_nvml_tells_it() -> None:
    machine = {
        "driver": "535.104.05",
        "cards": [{"name": "Tesla T4", "uuid": "GPU-1", "arch": "7.5", "memory": 15 << 30, "index": 0}],
        "lost": [{"index": 1, "address": "0000:3b:00.0", "what": "lost"}],
    }
    told = by_pull({"machine": machine}, catalogue(), REPOSITORY, matrix(), variants())
    assert told["answer"]["images"][0]["run"][3:5] == ["--gpus", "device=GPU-1"]
    assert "error" in by_pull({"machine": {**machine, "cards": []}}, catalogue(), REPOSITORY, matrix(), variants())


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
