"""`save` and `load` as typed: what is refused with the next command, what is printed for the other machine."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from images.commands.load import LoadOptions, load_images, print_layers
from images.commands.program import spelled_out
from images.commands.save import SaveOptions, save_images
from images.core import process
from images.core.errors import CheckFailed, NothingSelected, UsageError
from images.render.labels import EVIDENCE, PROVEN, VARIANT
from tests.helpers.classic_engine import ClassicEngine
from tests.helpers.contexts import context, silent
from tests.helpers.matrices import matrix
from tests.helpers.small_images import archive, configuration, diff_id, layer

SM90 = "cu130-vllm0.33.0-flash-attn-sm90"
NAME = f"{matrix().image}:{SM90}"
LABELS = {VARIANT: SM90, PROVEN: "yes", EVIDENCE: "audit: passed; canary: passed (cpu)"}
LAYERS = [layer("base", 700_000), layer("own", 800_000)]

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="the program zstd is not here: not run")


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARDSTOCK_HOME", str(tmp_path / "state"))


def engine(labels: dict[str, str]) -> ClassicEngine:
    return ClassicEngine(archive(LAYERS, labels, NAME))


def test_an_image_that_is_not_there_is_refused_with_what_builds_it(tmp_path: Path) -> None:
    here = context(engine=ClassicEngine().as_engine())
    with pytest.raises(NothingSelected, match="is not built") as caught:
        save_images(here, SaveOptions(only=[SM90], folder=str(tmp_path / "out")))
    assert caught.value.do == f"./inv build --only '{SM90}'"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", [PROVEN, EVIDENCE])
def test_an_image_that_is_not_proven_is_refused(missing: str, tmp_path: Path) -> None:
    labels = {name: value for name, value in LABELS.items() if name != missing}
    with pytest.raises(CheckFailed, match="built but not proven, so it is not saved"):
        save_images(context(engine=engine(labels).as_engine()), SaveOptions(only=[SM90], folder=str(tmp_path)))


def test_bad_flags_are_told_before_an_engine_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--split"):
        save_images(context(), SaveOptions(only=[SM90], folder=str(tmp_path), split="60"))
    with pytest.raises(UsageError, match="No such file"):
        save_images(context(), SaveOptions(only=[SM90], folder=str(tmp_path), have=str(tmp_path / "none")))
    with pytest.raises(UsageError, match="load was told no folder"):
        load_images(context(), LoadOptions())


@needs_zstd
def test_what_is_printed_is_what_works_on_the_other_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a folder"
    report, err = silent()
    here = context(report, engine=engine(LABELS).as_engine())
    save_images(here, SaveOptions(only=[SM90], folder=str(folder), split="1MB"))
    said = err.getvalue()
    assert f"{NAME} was built of other inputs than this checkout has" in said
    assert f"{SM90}: audit: passed; canary: passed (cpu)" in said
    assert "2 pieces of 1.00 MB at most, 1.51 MB in all; 2 of 2 layers" in said
    assert f"next: ./inv load '{folder}'    # on the other machine" in said
    line = next(line.strip() for line in said.splitlines() if "docker load" in line)
    listed = process.run(["sh", "-c", line.replace("docker load", "tar -t")])
    assert "manifest.json" in listed.out.splitlines()
    report, err = silent()
    there = ClassicEngine()
    load_images(context(report, engine=there.as_engine()), LoadOptions(folder=str(folder)))
    assert there.names == {NAME: diff_id(configuration(LAYERS, LABELS))}
    assert f"next: ./inv smoke --image {NAME} --gpus all    # prove it here" in err.getvalue()
    assert f"next: ./inv serve --image {NAME} --model FOLDER" in err.getvalue()
    capsys.readouterr()
    print_layers(context(silent()[0], engine=there.as_engine()))
    (tmp_path / "have.json").write_text(capsys.readouterr().out)
    save_images(here, SaveOptions(only=[SM90], folder=str(tmp_path / "b"), have=str(tmp_path / "have.json"), json=True))
    told = json.loads(capsys.readouterr().out)
    assert not any(one["sent"] for one in told["layers"].values())
    load_images(context(silent()[0], engine=there.as_engine()), LoadOptions(folder=str(tmp_path / "b"), json=True))
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["variant"], one["layers_given"]) == (SM90, 0)


def test_the_folder_of_load_needs_no_flag() -> None:
    assert spelled_out(shlex.split("load out --json")) == ["load", "--dir", "out", "--json"]
    assert spelled_out(["load", "--list"]) == ["load", "--list"]
    assert spelled_out(["load"]) == ["load"]
