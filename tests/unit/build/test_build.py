"""A build from the first step to the last: what is baked, proven and named, and what is left where a step breaks."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest

from images.build import build as building
from images.build.build import BuildSettings, build_images, say_commit
from images.build.job import Job, make_job
from images.build.plan import make_plan
from images.context import Context
from images.core import debian
from images.core.errors import CardstockError, CheckFailed
from images.core.report import Report
from images.proof.smoke.record import LevelResult, ProofRecord
from images.render import BAKE_FILE
from images.render.bakefile import bake_file
from images.render.dockerfile import compile_templates
from images.render.labels import EVIDENCE, INPUT, PROVEN, REVISION, VARIANT
from tests.helpers.contexts import all_locked
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.matrices import matrix, variants
from tests.helpers.small_publisher import CPU, SM75_SDPA, SmallPublisher


class Shop:
    """A small checkout with its engine, and a proof that passes unless ``fails`` names the variant."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngine(folder / "engine")
        self.stall = SmallPublisher(folder / "checkout", self.engine.as_engine(), "test/base:1")
        self.err = io.StringIO()
        self.fails: set[str] = set()
        self.proven: list[str] = []
        file = self.stall.root / BAKE_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(bake_file(matrix(), [variants().valid[name] for name in (CPU, SM75_SDPA)], []))

    @property
    def context(self) -> Context:
        self.err = io.StringIO()
        return all_locked(self.stall.root, self.engine.as_engine(), Report(io.StringIO(), self.err))

    def build(self, *names: str, smoke: bool = True) -> dict[str, str]:
        """Build; variant -> outcome."""
        context = self.context
        plan = make_plan(context, [variants().valid[name] for name in names], self.engine.as_engine())
        return {one.job.variant.id: one.outcome for one in build_images(context, plan, BuildSettings(smoke=smoke))}

    def job(self, name: str) -> Job:
        checkout = self.stall.checkout
        templates = compile_templates(checkout.templates())
        return make_job(checkout, checkout.matrix(), templates, variants().valid[name], "locked")

    def labels(self, name: str) -> dict[str, str]:
        facts = self.engine.inspect(self.job(name).tags[0])
        return dict(facts.labels) if facts else {}

    def prove(self, image: str, expectation: Any, **_: object) -> ProofRecord:
        assert self.engine.inspect(image) is not None
        self.proven.append(expectation.variant_id)
        bad = expectation.variant_id in self.fails
        stack = LevelResult(2, "stack", "failed" if bad else "passed", "torch is another" if bad else "")
        return ProofRecord(expectation.variant_id, image, "sha256:1", "now", None, None, "26", (stack,))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path)
    monkeypatch.setattr(building, "prove_image", made.prove)
    monkeypatch.setattr(debian, "host_mirror", lambda: None)
    return made


def test_an_image_is_baked_proven_labelled_and_named(shop: Shop) -> None:
    assert shop.build(CPU, SM75_SDPA) == {CPU: "built", SM75_SDPA: "built"}
    for name in (CPU, SM75_SDPA):
        job, labels = shop.job(name), shop.labels(name)
        assert (labels[VARIANT], labels[INPUT], labels[PROVEN]) == (name, job.input_hash, "yes")
        assert labels[EVIDENCE].startswith("stack: passed")
        assert len(labels[REVISION].removesuffix("-dirty")) == 40
        assert set(job.tags) <= shop.engine.names()
        assert job.staging not in shop.engine.names()
        assert (shop.stall.root / f"build/records/{name}.json").is_file()
    told = shop.err.getvalue()
    assert "build 2 image(s)" in told and f"to build: {CPU}: vllm on CPU" in told
    assert "#1 0.1 it begins" in (shop.stall.root / f"build/logs/{CPU}.log").read_text()


def test_what_is_there_of_the_same_inputs_is_not_built_again(shop: Shop) -> None:
    shop.build(CPU)
    (shop.engine.folder / "fails").write_text("nothing is to be built")
    assert shop.build(CPU) == {CPU: "up to date"}
    assert shop.proven == [CPU]
    assert f"up to date: {shop.job(CPU).tags[0]}" in shop.err.getvalue()


def test_other_inputs_are_built_and_the_old_image_keeps_its_own_name(shop: Shop) -> None:
    shop.build(CPU)
    old = shop.job(CPU).tags[1]
    shop.stall.change("second")
    assert shop.build(CPU) == {CPU: "built"}
    assert {old, *shop.job(CPU).tags} <= shop.engine.names()
    assert old not in shop.job(CPU).tags


def test_a_broken_build_names_nothing_and_says_why(shop: Shop) -> None:
    (shop.engine.folder / "fails").write_text("#9 1.0 fine\n#9 2.0 error: no space left\nERROR: failed to solve")
    with pytest.raises(CheckFailed, match="the build broke; nothing was tagged") as caught:
        shop.build(CPU)
    assert caught.value.cause == "#9 2.0 error: no space left\nERROR: failed to solve"
    assert caught.value.where.startswith(f"build/logs/{CPU}.log")
    assert shop.engine.names() == set()


def test_a_build_that_leaves_no_image_is_told(shop: Shop) -> None:
    (shop.engine.folder / "leaves nothing").touch()
    with pytest.raises(CheckFailed, match="ended well but left no image"):
        shop.build(CPU)


def test_what_fails_its_proof_keeps_its_working_name_alone_and_is_proven_next_time_unbuilt(shop: Shop) -> None:
    shop.fails.add(CPU)
    with pytest.raises(CheckFailed, match="is built but not proven") as caught:
        shop.build(CPU)
    assert caught.value.cause == "stack: torch is another"
    assert shop.engine.names() == {shop.job(CPU).staging}
    assert (shop.stall.root / caught.value.where).is_file()
    shop.fails.clear()
    assert shop.build(CPU) == {CPU: "built"}
    assert "to build:" not in shop.err.getvalue()
    assert shop.labels(CPU)[PROVEN] == "yes"


def test_without_proof_an_image_says_that_it_has_none_until_it_is_proven(shop: Shop) -> None:
    shop.build(CPU, smoke=False)
    assert (shop.proven, shop.labels(CPU)[PROVEN]) == ([], "no")
    assert shop.build(CPU, smoke=False) == {CPU: "up to date"}
    assert shop.build(CPU) == {CPU: "built"}
    assert shop.labels(CPU)[PROVEN] == "yes"


def test_a_disk_too_small_is_told_before_anything_is_baked(shop: Shop) -> None:
    shop.engine.free = 1_000
    with pytest.raises(CardstockError, match="the disk is too small for this build"):
        shop.build(CPU)
    assert not (shop.stall.root / "build/logs").exists()


def test_the_engine_that_cardstock_brings_drops_what_is_replaced(shop: Shop) -> None:
    shop.build(CPU)
    old = shop.job(CPU).tags[1]
    shop.stall.change("second")
    shop.engine.embedded = True
    shop.engine.add({}, building.local_base())
    shop.build(CPU)
    assert old not in shop.engine.names()
    assert set(shop.job(CPU).tags) <= shop.engine.names()


def test_an_image_of_committed_inputs_is_left_as_it_is(shop: Shop) -> None:
    shop.build(CPU)
    shop.stall.commit()
    job = shop.job(CPU)
    assert shop.labels(CPU)[REVISION].endswith("-dirty")  # the bake file was new
    assert say_commit(shop.stall.checkout, job, shop.engine.as_engine(), "f" * 40)
    assert shop.labels(CPU)[REVISION] == "f" * 40
    assert not say_commit(shop.stall.checkout, job, shop.engine.as_engine(), "e" * 40)
    assert shop.labels(CPU)[REVISION] == "f" * 40


def test_the_second_of_two_builds_waits_and_takes_what_the_first_has_made(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, release = threading.Event(), threading.Event()
    prove, outcomes = shop.prove, list[dict[str, str]]()

    def slow(image: str, expectation: Any, **how: object) -> ProofRecord:
        began.set()
        assert release.wait(20)
        return prove(image, expectation, **how)

    monkeypatch.setattr(building, "prove_image", slow)
    first = threading.Thread(target=lambda: outcomes.append(shop.build(CPU)))
    first.start()
    assert began.wait(20)
    said = io.StringIO()
    context = all_locked(shop.stall.root, shop.engine.as_engine(), Report(io.StringIO(), said))
    plan = make_plan(context, [variants().valid[CPU]], shop.engine.as_engine())  # it is not there yet

    def second() -> None:
        (done,) = build_images(context, plan, BuildSettings())
        outcomes.append({done.job.variant.id: done.outcome})

    other = threading.Thread(target=second)
    other.start()
    while f"waiting for the build of {CPU}: process " not in said.getvalue():
        assert other.is_alive()
    release.set()
    for thread in (first, other):
        thread.join(20)
    assert outcomes == [{CPU: "built"}, {CPU: "up to date"}]
    assert shop.proven == [CPU]


def test_a_container_that_a_killed_run_left_is_told_and_passed_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(reference: str, say: Any = None) -> bool:
        say(f"left as it is: {reference}: the engine says: container 0a is using its referenced image")
        return False

    cleaned: list[str] = []
    monkeypatch.setattr(shop.engine, "drop_name", held)
    monkeypatch.setattr(shop.engine, "cleanup", lambda: cleaned.append("cleaned"))
    assert shop.build(CPU) == {CPU: "built"}
    assert "left as it is: cardstock/staging:" in shop.err.getvalue()
    assert cleaned == ["cleaned"]
    assert shop.labels(CPU)[PROVEN] == "yes"
