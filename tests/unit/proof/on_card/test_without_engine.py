"""The proof without an engine, as far as it goes without an image: how it is entered, the driver, what is started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from images.core.errors import CardstockError, CheckFailed, Unsafe
from images.proof.on_card import prove as proving
from images.proof.on_card import without_engine
from images.proof.on_card.proof import require_passed
from images.proof.on_card.prove import plan_without_card
from images.proof.on_card.records.reading import read_gpu_record
from images.proof.on_card.records.record import GpuRecord, Step
from images.proof.on_card.runs.run import IN_IMAGE, Run
from images.proof.on_card.without_engine import (
    DRIVER,
    Entry,
    Unpacked,
    choose_entry,
    copy_driver,
    driver_files,
    entries,
    environment,
    image_settings,
    inside_environment,
    prepare,
    prove_unpacked,
)
from images.render.labels import INPUT, VARIANT

RECORD = GpuRecord(
    "Tesla T4", "7.5", 1, "535.104.05", "", "unpacked", "cu124-x-sm75", "", {}, (Step("vllm: tiny image", "passed"),)
)
CONFIG = {
    "Env": ["PATH=/opt/venv/bin:/usr/bin", "CARDSTOCK_ARCHS=7.5"],
    "Labels": {VARIANT: "cu124-x-sm75", INPUT: "a"},
}


def test_an_images_settings_are_its_own() -> None:
    env, labels = image_settings(json.dumps({"config": CONFIG}).encode())
    assert env == {"PATH": "/opt/venv/bin:/usr/bin", "CARDSTOCK_ARCHS": "7.5"}
    assert labels[VARIANT] == "cu124-x-sm75"
    for wrong in (b"", b"[]", b'{"config": null}', b'{"config": {"Env": 3}}'):
        with pytest.raises(Unsafe, match="configuration is none"):
            image_settings(wrong)


def test_the_ways_into_an_image_from_the_fastest_on() -> None:
    own, proot, plain = entries(Path("/r"), Path("/c"), Path("/p"), superuser=True)
    words = own.words(["python", "-c", "x; $(y)"])
    assert words[:4] == ["unshare", "--mount", "--propagation", "private"]
    assert words[-3:] == ["python", "-c", "x; $(y)"]  # arguments stay arguments
    assert words[words.index("sh") + 1 :][:4] == ["/r", "/c", "/p", "10001:10001"]
    user = entries(Path("/r"), Path("/c"), Path("/p"), superuser=False)[0].words(["x"])
    assert "--map-root-user" in user
    assert user[user.index("sh") + 4] == ""
    bound = proot.words(["python"])
    assert bound[:3] == ["proot", "-r", "/r"]
    assert {"/dev", "/proc", "/c:/checkout", "/p:/proof"} <= set(bound)
    assert plain.env == {"PROOT_NO_SECCOMP": "1"}
    assert plain.words(["python"]) == bound


def test_the_first_way_that_works_is_taken(tmp_path: Path) -> None:
    missing = Entry("PRoot", lambda words: [str(tmp_path / "no-such-program"), *words], {})
    broken = Entry("a namespace", lambda words: ["sh", "-c", "echo not permitted >&2; exit 1"], {})
    good = Entry("good", lambda words: ["true", *words], {})
    assert choose_entry([broken, missing, good], {"PATH": "/usr/bin"}).name == "good"
    with pytest.raises(CardstockError, match="cannot be started here") as caught:
        choose_entry([broken, missing], {})
    assert "a namespace: not permitted" in caught.value.cause
    assert "apt-get install proot" in caught.value.do


def test_what_is_started_has_the_images_environment_alone() -> None:
    env = inside_environment({"PATH": "/opt/venv/bin", "A": "x y"}, driver=True)
    assert env["LD_LIBRARY_PATH"] == env["TRITON_LIBCUDA_PATH"] == f"/{DRIVER}"
    assert env["PYTHONPATH"] == "/checkout"
    assert environment({"A": "x y"}, ["python", "-V"]) == ["/usr/bin/env", "-i", "A=x y", "python", "-V"]
    assert "LD_LIBRARY_PATH" not in inside_environment({}, driver=False)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's folder with a driver, as Colab has it."""
    folder = tmp_path / "usr/lib64-nvidia"
    folder.mkdir(parents=True)
    (folder / "libcuda.so.535.104.05").write_bytes(b"cuda")
    (folder / "libcuda.so.1").symlink_to("libcuda.so.535.104.05")
    (folder / "libcuda.so").symlink_to("libcuda.so.1")
    (folder / "libnvidia-ml.so.1").write_bytes(b"ml")
    (folder / "libnvidia-ptxjitcompiler.so.535.104.05").write_bytes(b"ptx")
    (folder / "libnvidia-ptxjitcompiler.so.1").symlink_to("libnvidia-ptxjitcompiler.so.535.104.05")
    (folder / "libGL.so.1").write_bytes(b"not asked for")
    (folder / "libnvidia-ml.so.9").symlink_to("nowhere")
    return folder


def test_the_driver_is_found_and_each_file_copied_once(host: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = driver_files({"LD_LIBRARY_PATH": f"relative:{tmp_path / 'empty'}:{host}"}, [])
    assert found == driver_files({}, [str(tmp_path / "none"), str(host)])
    assert set(found) == {
        *("libcuda.so", "libcuda.so.1", "libcuda.so.535.104.05", "libnvidia-ml.so.1"),
        *("libnvidia-ptxjitcompiler.so.1", "libnvidia-ptxjitcompiler.so.535.104.05"),
    }
    into = tmp_path / "root/opt/driver"
    assert copy_driver(found, into) == len(b"cudamlptx")
    assert copy_driver(found, into) == len(b"cudamlptx")  # again, for another driver
    assert (into / "libcuda.so").resolve() == into / "libcuda.so.535.104.05"
    assert (into / "libcuda.so.1").read_bytes() == b"cuda"
    assert sum(not path.is_symlink() for path in into.iterdir()) == 3
    assert driver_files({}, [str(tmp_path)]) == {}


def test_a_driver_that_is_no_driver_is_refused(host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without_engine, "_MOST_DRIVER", 3)
    with pytest.raises(CardstockError, match="too large"):
        copy_driver(driver_files({}, [str(host)]), tmp_path / "x")


def test_a_link_in_the_place_of_a_mount_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"dev", "proc", "sys", "tmp", "checkout", "proof"}
    for name in ("checkout", "dev"):
        (tmp_path / name).rmdir()
        (tmp_path / name).symlink_to("/etc")
        with pytest.raises(Unsafe, match=f"/{name} of the image is a link"):
            prepare(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "opt").symlink_to("/etc")
    with pytest.raises(Unsafe, match="/opt of the image is a link"):
        prepare(tmp_path)


def _image(tmp_path: Path) -> Unpacked:
    root = tmp_path / "image/root"
    root.mkdir(parents=True)
    configuration = json.dumps({"config": CONFIG}).encode()
    return Unpacked(root, configuration, f"sha256:{'1' * 64}", f"sha256:{'2' * 64}")


def _prove(tmp_path: Path, script: str, env: dict[str, str] | None = None) -> tuple[Path, GpuRecord, list[str]]:
    """With a way that runs ``script`` in the place of the proof: $PROOF is where it writes."""
    image, said = _image(tmp_path), list[str]()
    proof = image.root.parent / "proof"

    def way(words: Sequence[str]) -> list[str]:
        if "-m" not in words:
            return ["true"]
        (tmp_path / "words").write_text("\n".join(words))
        return ["sh", "-c", f"PROOF={proof}\n{script}"]

    kept, record = prove_unpacked(
        image, tmp_path, tmp_path / "kept", said.append, ["vllm*"], env or {}, [Entry("a test's way", way, {})]
    )
    return kept, record, said


def test_the_record_of_an_unpacked_image_is_kept(tmp_path: Path, host: Path) -> None:
    (tmp_path / "left.json").write_text(RECORD.to_json())
    script = f"cp {tmp_path}/left.json $PROOF/record.json; mkdir $PROOF/scratch; echo proven"
    kept, record, said = _prove(tmp_path, script, {"LD_LIBRARY_PATH": str(host)})
    assert kept == tmp_path / "kept/tesla-t4-cu124-x-sm75.json"
    assert replace(record, name=kept.stem) == read_gpu_record(kept)
    assert record.place == "unpacked"
    assert said[-1] == "proven"
    assert any("the driver's libraries" in line for line in said)
    words = (tmp_path / "words").read_text().split("\n")
    given = dict(pairwise(words))
    assert (given["--place"], given["--given"], given["--variant"]) == ("unpacked", "host", "cu124-x-sm75")
    assert (given["--image-digest"], given["--image-id"]) == (f"sha256:{'1' * 64}", f"sha256:{'2' * 64}")
    assert given["--only"] == "vllm*"
    assert f"LD_LIBRARY_PATH=/{DRIVER}" in words
    assert (tmp_path / "image/root" / DRIVER / "libcuda.so.1").exists()
    assert not (tmp_path / "image/proof").exists()  # a checkpoint of 4 GB does not stay


def test_a_failed_step_and_a_missing_record_are_told(tmp_path: Path) -> None:
    bad = replace(RECORD, steps=(Step("vllm: tiny image", "failed", "NaN"),))
    (tmp_path / "left.json").write_text(bad.to_json())
    kept, record, _ = _prove(tmp_path, f"cp {tmp_path}/left.json $PROOF/record.json")
    with pytest.raises(CheckFailed, match="failed on Tesla T4: vllm: tiny image") as caught:
        require_passed(kept, record)
    assert Path(caught.value.where).is_file()
    require_passed(kept, RECORD)
    with pytest.raises(CheckFailed, match="left no record: it ended with 7"):
        _prove(tmp_path / "other", "exit 7")


def test_without_a_card_what_needs_none_is_tried_and_the_rest_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(RECORD, card="no card", capability="", steps=(), driver="", memory=0)
    paths = {"tiny": tmp_path / "tiny", "3b": tmp_path / "3b"}
    run = Run(record, tmp_path / "record.json", tmp_path, {"image": None}, paths=paths)
    assert run.entrypoint == IN_IMAGE / "entrypoint"
    assert run.image_env() == {}  # it is there already
    asked: list[Any] = []

    def level(run: Run, content: str, device: str = "", *, card: bool = True) -> dict[str, Any]:
        asked.append(device or card)
        return {}

    monkeypatch.setattr(proving, "level_stack", level)
    monkeypatch.setattr(proving, "level_canary", level)
    for name, action in plan_without_card(run, "no NVIDIA driver"):
        run.step(name, action)
    assert asked == [False, "cpu"]
    verdicts = {step.name: (step.verdict, step.reason) for step in read_gpu_record(run.out).steps}
    assert verdicts["stack: image"] == verdicts["canary on the processor"] == ("passed", "")
    others = {name: told for name, told in verdicts.items() if told[0] != "passed"}
    assert {"vllm: tiny image", "transformers: tiny", "canary on the card", "audit"} <= others.keys()
    assert set(others.values()) == {("not run", "no card: no NVIDIA driver")}
