"""Publishing, its pure parts and its shelf: what is refused, which tags move, what two publishers do to each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from images.build.build import revision
from images.build.job import Job, make_job
from images.catalogue.model import Catalogue, with_image
from images.catalogue.store import attach_file, change_catalogue, fetch_catalogue, set_tag
from images.core import process
from images.core.errors import CardstockError, CheckFailed, RegistryFailure, Unsafe
from images.device_code import audit as auditing
from images.device_code.sources import read_folder
from images.distribution import disk_space as publish_disk
from images.distribution import publish_checks as checks
from images.distribution import sbom
from images.distribution.disk_space import Disk
from images.distribution.publish import moving_tags
from images.docker.facts import ImageFacts
from images.matrix.variants import make_variants
from images.proof.smoke.record import LevelResult, ProofRecord
from images.registry.artifact import ArtifactPart
from images.registry.client import Repository
from images.render.checkout import Checkout
from images.render.dockerfile import compile_templates
from images.render.labels import INPUT, VARIANT
from tests.helpers.advisories import DAY, assessments, listed
from tests.helpers.catalogues import CPU, NOW, SM75, SM75_SDPA, catalogue, digest, image
from tests.helpers.contexts import context, silent
from tests.helpers.elf_files import library, sm
from tests.helpers.matrices import ROOT, matrix, variants, with_lists
from tests.helpers.registries import FakeRegistry, registry


def job(name: str = SM75, state: Any = "locked") -> Job:
    checkout = Checkout(ROOT)
    return make_job(checkout, matrix(), compile_templates(checkout.templates()), variants().valid[name], state)


def record(name: str, *levels: LevelResult) -> ProofRecord:
    return ProofRecord(name, "r@sha256:1", "sha256:1", NOW, None, None, "26", levels)


PASSED = (LevelResult(1, "audit", "passed", facts={"audited archs": ["7.5"]}), LevelResult(2, "stack", "passed"))


@pytest.mark.parametrize(
    "name, names",
    [
        (SM75, (SM75, "sm75")),
        (SM75_SDPA, (SM75_SDPA,)),
        (CPU, (CPU,)),
        ("cu124-vllm0.8.5.post1-xformers-sm70_75", ("cu124-vllm0.8.5.post1-xformers-sm70_75",)),
        ("cu130-vllm0.33.0-flash-attn-sm89", ("cu130-vllm0.33.0-flash-attn-sm89", "sm89")),
        ("cu129-vllm0.19.1-flash-attn-sm89", ("cu129-vllm0.19.1-flash-attn-sm89", "sm89-cu129")),
        ("cu128-vllm0.11.0-flash-attn-sm89", ("cu128-vllm0.11.0-flash-attn-sm89",)),
    ],
)
def test_the_recommended_image_of_an_arch_has_its_tag_too(name: str, names: tuple[str, ...]) -> None:
    assert moving_tags(matrix(), variants(), variants().valid[name]) == names


def test_each_image_of_an_archs_list_has_a_tag_of_its_own() -> None:
    listed = with_lists(sm86=("cu130 flash-attn", "cu128 flash-attn", "cu118 flash-attn"))
    made = make_variants(listed)
    same = [one for one in made.valid.values() if one.id.endswith("flash-attn-sm86")]
    tags = {one.stack: moving_tags(listed, made, one)[1:] for one in same}
    assert (tags["cu130"], tags["cu128"], tags["cu118"]) == (("sm86",), ("sm86-cu128",), ("sm86-cu118",))
    assert tags["cu126"] == ()


# -- what is never published


def test_an_unlocked_stack_is_refused() -> None:
    checks.refuse_unlocked([job()])
    with pytest.raises(Unsafe, match="unlocked stack is never published") as caught:
        checks.refuse_unlocked([job(), job(state="unlocked"), job(CPU, state="stale")])
    assert caught.value.exit_code == 7
    assert "./inv lock --stack cu124" in caught.value.do


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "dockerfiles").mkdir()
    (tmp_path / "dockerfiles/x").write_text("1\n")
    (tmp_path / "matrix.yaml").write_text("schema: 1\n")
    (tmp_path / "README.md").write_text("read\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        process.run(["git", *who, *words], cwd=tmp_path)
    return tmp_path


def test_inputs_must_be_committed(checkout: Path) -> None:
    commit = checks.clean_revision(checkout)
    assert len(commit) == 40
    (checkout / "README.md").write_text("no input of an image\n")
    assert checks.clean_revision(checkout) == commit
    (checkout / "dockerfiles/y").write_text("new\n")
    with pytest.raises(Unsafe, match="not what the commit holds") as caught:
        checks.clean_revision(checkout)
    assert "dockerfiles/y" in caught.value.cause


def test_an_image_is_dirty_by_its_inputs_alone(checkout: Path, tmp_path: Path) -> None:
    commit = checks.clean_revision(checkout)
    (checkout / "README.md").write_text("no input of an image\n")
    (checkout / "notes").write_text("new, and none either\n")
    assert revision(checkout) == commit
    (checkout / "dockerfiles/x").write_text("2\n")
    assert revision(checkout) == f"{commit}-dirty"


GB = 1000**3


def test_a_push_needs_room_for_the_whole_image_and_twice_its_largest_layer() -> None:
    assert publish_disk.needed(6 * GB, 3 * GB) == (6_600_000_000, 6_600_000_000)


@pytest.mark.parametrize(
    "engine, temporary, told",
    [
        (Disk("/e", 1, 7 * GB), Disk("/tmp", 2, 4 * GB), ""),
        (Disk("/e", 1, 5 * GB), Disk("/tmp", 2, 4 * GB), "6.00 GB needed, 5.00 GB free"),
        (Disk("/e", 1, 7 * GB), Disk("/tmp", 2, 2 * GB), "3.00 GB needed, 2.00 GB free"),
        (Disk("/e", 1, 8 * GB), Disk("/tmp", 1, 8 * GB), "9.00 GB needed, 8.00 GB free"),
        (Disk("/e", 1, 10 * GB), Disk("/tmp", 1, 10 * GB), ""),
        (None, Disk("/tmp", 1, 2 * GB), "3.00 GB needed, 2.00 GB free"),
        (Disk("/e", None, 6 * GB), Disk("/tmp", None, 3 * GB), ""),
    ],
)
def test_a_push_that_a_disk_has_no_room_for_is_refused(engine: Disk | None, temporary: Disk, told: str) -> None:
    wanted = (6 * GB, 3 * GB)
    if not told:
        publish_disk.refuse_small("x:1", wanted, engine, temporary)
        return
    with pytest.raises(CardstockError, match=f"too small to publish x:1: {told}") as caught:
        publish_disk.refuse_small("x:1", wanted, engine, temporary)
    assert "prune" in caught.value.do


def test_without_git_nothing_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(Unsafe, match="must come from a git checkout"):
        checks.clean_revision(tmp_path)


def test_an_image_of_other_inputs_is_refused() -> None:
    one = job()
    facts = ImageFacts("i", (), (), {INPUT: one.input_hash, VARIANT: SM75}, {}, "", (), (), 1, "", "amd64", ())
    checks.refuse_foreign(one, facts)
    for label in (INPUT, VARIANT):
        with pytest.raises(Unsafe, match="is not the image of these inputs"):
            checks.refuse_foreign(one, replace(facts, labels={**facts.labels, label: "other"}))


@pytest.mark.parametrize(
    "name, archs, refused",
    [
        (SM75, (50, 60, 70, 75, 80, 90), False),
        (SM75, (70, 75), True),
        (SM75, (75,), True),
        ("cu124-vllm0.8.5.post1-xformers-sm70_75_80_86_89_90", (70, 75, 80, 86, 90), True),
        ("cu130-vllm0.33.0-flash-attn-sm80_86_89_90_100_120", (80, 90, 100, 120), True),
        (CPU, (75,), False),
    ],
)
def test_cut_libraries_of_nvidias_are_refused(tmp_path: Path, name: str, archs: tuple[int, ...], refused: bool) -> None:
    site = tmp_path / "site-packages"
    (site / "nvidia/cublas/lib").mkdir(parents=True)
    (site / "torch/lib").mkdir(parents=True)
    (site / "nvidia/cublas/lib/libcublasLt.so.12").write_bytes(library([sm(*archs)]))
    (site / "nvidia/cublas/lib/libcufft.so.11").write_bytes(library([sm(52)]))  # an empty shell of another card
    (site / "torch/lib/libtorch_cuda.so").write_bytes(library([sm(75)]))
    found = auditing.audit("image", read_folder(tmp_path))
    assert len(found.libraries) == 3
    if not refused:
        checks.refuse_cut_nvidia(matrix(), job(name), found)
        return
    with pytest.raises(Unsafe, match="NVIDIA's own libraries were cut"):
        checks.refuse_cut_nvidia(matrix(), job(name), found)


def test_what_is_not_proven_gets_no_tag() -> None:
    checks.refuse_unproven(job(), record(SM75, *PASSED))
    with pytest.raises(CheckFailed, match="pushed but not proven"):
        checks.refuse_unproven(job(), record(SM75, *PASSED, LevelResult(3, "canary", "failed", "NaN")))
    with pytest.raises(CheckFailed) as caught:
        checks.refuse_unproven(job(), record(SM75, PASSED[1]))
    assert caught.value.cause == "the audit does not cover 7.5"
    checks.refuse_unproven(job(CPU), record(CPU, LevelResult(1, "audit", "not run", "a CPU"), PASSED[1]))


# -- the bill of materials


def test_a_bill_names_every_package_and_is_the_same_again() -> None:
    told = {
        "python": [["torch", "2.6.0", "BSD-3-Clause"], ["My_Pkg", "1", ""]],
        "debian": [["tini", "0.19.0-1", "amd64"]],
    }
    packages = sbom.parse(f"noise\n{json.dumps(told)}\n")
    text = sbom.make(SM75, image(SM75).digest, packages, "2026-11-21T12:28:59.438755935Z")
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert sorted(part["purl"] for part in bill["components"]) == [
        "pkg:deb/debian/tini@0.19.0-1?arch=amd64",
        "pkg:pypi/my-pkg@1",
        "pkg:pypi/torch@2.6.0",
    ]
    assert bill["metadata"]["component"]["version"] == image(SM75).digest
    assert sbom.make(SM75, image(SM75).digest, packages, "2026-11-21T12:28:59.438755935Z") == text


@pytest.mark.parametrize("output", ["", "no", "{}", '{"python": [[1]], "debian": []}'])
def test_an_image_that_does_not_tell_is_no_bill(output: str) -> None:
    with pytest.raises(CheckFailed, match="does not tell what is in it"):
        sbom.parse(output)


# -- the shelf


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Repository, FakeRegistry]]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    with registry() as (host, shelf):
        yield Repository(f"{host}/team/images", sleep=lambda _: None), shelf


def with_one(name: str) -> Any:
    return lambda before: with_image(before, image(name), dict(catalogue(name).layers), [name], NOW)


def test_a_catalogue_is_written_and_read(place: tuple[Repository, FakeRegistry]) -> None:
    repository, _ = place
    assert fetch_catalogue(repository) == (None, "")
    after = change_catalogue(repository, with_one(SM75))
    assert fetch_catalogue(repository)[0] == after
    assert list(after.current) == [SM75]


def test_two_publishers_lose_nothing(place: tuple[Repository, FakeRegistry]) -> None:
    repository, _ = place
    met: list[bool] = []

    def change(before: Catalogue) -> Catalogue:
        if not met:  # another one is faster, once
            met.append(True)
            change_catalogue(repository, with_one(CPU))
        found: Catalogue = with_one(SM75)(before)
        return found

    change_catalogue(repository, change)
    read, _ = fetch_catalogue(repository)
    assert read is not None
    assert set(read.current) == {SM75, CPU}


def test_a_write_that_another_overwrites_is_made_again(
    place: tuple[Repository, FakeRegistry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one had looked before, and writes after: what it writes knows nothing of the first."""
    repository, shelf = place
    change_catalogue(repository, with_one(CPU))
    theirs = shelf.manifests["catalogue"]
    overwritten: list[float] = []

    def overwrite(seconds: float) -> None:
        if not overwritten:
            shelf.manifests["catalogue"] = theirs
        overwritten.append(seconds)

    monkeypatch.setattr(repository, "pause", overwrite)
    change_catalogue(repository, with_one(SM75))
    read, _ = fetch_catalogue(repository)
    assert read is not None
    assert set(read.current) == {SM75, CPU}
    assert len(overwritten) == 2


def test_a_catalogue_that_never_rests_is_given_up(place: tuple[Repository, FakeRegistry]) -> None:
    repository, _ = place
    count: list[int] = []

    def change(before: Catalogue) -> Catalogue:
        count.append(1)
        salt = str(len(count))
        layers = {**catalogue(CPU).layers, digest(f"own {CPU} {salt}"): 7}
        change_catalogue(repository, lambda other: with_image(other, image(CPU, salt), layers, [CPU], NOW))
        found: Catalogue = with_one(SM75)(before)
        return found

    with pytest.raises(RegistryFailure, match="changes faster"):
        change_catalogue(repository, change)


def test_a_catalogue_whose_write_breaks_leaves_the_old_one(place: tuple[Repository, FakeRegistry]) -> None:
    repository, shelf = place
    before = change_catalogue(repository, with_one(SM75))
    shelf.on, shelf.faults = "PUT /v2/team/images/manifests/catalogue", [500] * 6
    with pytest.raises(RegistryFailure):
        change_catalogue(repository, with_one(CPU))
    assert fetch_catalogue(repository)[0] == before


def test_a_tag_is_pointed_at_what_is_there_alone(place: tuple[Repository, FakeRegistry]) -> None:
    repository, _ = place
    one = repository.put_manifest(b'{"schemaVersion": 2}', "one")
    two = repository.put_manifest(b'{"schemaVersion": 2, "x": 1}', "two")
    set_tag(repository, "moving", one)
    set_tag(repository, "moving", two)
    named = repository.manifest("moving")
    assert named is not None and named.digest == two
    with pytest.raises(RegistryFailure, match="has no sha256:0"):
        set_tag(repository, "moving", "sha256:" + "0" * 64)


def test_what_hangs_on_an_image_is_listed_once(place: tuple[Repository, FakeRegistry], tmp_path: Path) -> None:
    repository, _ = place
    subject = repository.put_manifest(b'{"schemaVersion": 2}', "image")
    file = tmp_path / "sbom.json"
    for text in ("1", "1", "2"):
        file.write_text(text)
        last = attach_file(repository, subject, "application/x", ArtifactPart(file, "application/x"))
    index = repository.manifest(subject.replace(":", "-"))
    assert index is not None
    assert [one["digest"] for one in index.content["manifests"]] == [last]
    attached = repository.manifest(last)
    assert attached is not None
    assert attached.content["subject"]["digest"] == subject


def test_an_old_list_of_advisories_is_said_and_a_very_old_one_refused(tmp_path: Path) -> None:
    report, err = silent()
    given = assessments(tmp_path, listed())
    here = context(report, root=tmp_path, matrix=given.matrix, variants=given.variants, assessments=given)
    checks.refuse_stale_advisories(here, DAY, accepted=False)
    assert err.getvalue() == ""
    checks.refuse_stale_advisories(here, DAY + timedelta(31), accepted=False)
    assert "31 days old" in err.getvalue()
    with pytest.raises(Unsafe, match="nothing is published by it"):
        checks.refuse_stale_advisories(here, DAY + timedelta(91), accepted=False)
    checks.refuse_stale_advisories(here, DAY + timedelta(91), accepted=True)
