"""Publishing and pulling for real: an engine, a registry on loopback, signatures, lies, and faults on the way."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import images.build.plan as building
from images.cards.data import Card, all_cards
from images.cards.names import match_card as named
from images.catalogue.model import Catalogue, PublishedImage
from images.catalogue.resolve import match_images
from images.catalogue.store import Keys, fetch_catalogue, point
from images.core import process
from images.core.errors import CardstockError, CheckFailed, NothingSelected, RegistryFailure, Unsafe
from images.core.home import Layout, default_layout
from images.distribution import pull as pulling
from images.distribution.publish import Published, publish
from images.distribution.pull_layers import Started
from images.distribution.rollback import roll_back
from images.docker.connection import connect
from images.docker.embedded import daemon as embedded
from images.docker.embedded.packages import installed
from images.docker.engine import Engine
from images.matrix.drivers import parse_driver
from images.registry.client import Repository
from images.registry.cosign import PASSWORD, Cosign, find_cosign
from images.registry.oci_image import read_image
from images.render.labels import REVISION, VARIANT
from tests.conftest import say
from tests.engine.conftest import needs_root_on_debian
from tests.engine.faulty import Fault, Plan, faulty
from tests.engine.real_registry import RealRegistry
from tests.helpers.matrices import matrix, variants
from tests.helpers.small_publisher import CPU, SM75, SM75_SDPA, Stall, brisk

PLANS: list[Plan] = []


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print how many faults were tried."""
    yield
    say(request.config, f"faults tried while publishing and pulling: {sum(plan.done for plan in PLANS)}")


@pytest.fixture
def stall(engine: Engine, host_image: str, registry: RealRegistry) -> Iterator[Stall]:
    root = Path(tempfile.gettempdir(), f"stall-{uuid.uuid4().hex[:12]}")  # its name is a repository's, too
    made = Stall(root, engine, host_image)
    yield made
    made.clear(registry.host)


@pytest.fixture
def repository(registry: RealRegistry) -> str:
    return f"{registry.host}/team/qwen"


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    """A fresh pair of keys."""
    program = find_cosign(say=print)
    folder = Path(tempfile.mkdtemp(prefix="cosign-"))
    environment = {PASSWORD: "of a test"}
    process.run([program, "generate-key-pair"], cwd=folder, env=environment)
    yield Keys(Cosign(program, environment), folder / "cosign.key", folder / "cosign.pub")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def other_engine(engine: Engine) -> Iterator[Engine]:
    """An engine with a data-root of its own. Its programs are those of the embedded engine, if that one is there."""
    needs_root_on_debian()
    layout = Layout(Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp")))
    there = default_layout()
    if installed(there):
        shutil.copytree(there.prefix, layout.prefix, symlinks=True, copy_function=_link)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", embedded.start(layout, firewall=False, say=print))
        yield connect(layout)
    embedded.stop(layout)
    shutil.rmtree(layout.home)


@pytest.fixture
def empty_engine(other_engine: Engine) -> Engine:
    """The other engine, with nothing in it."""
    for facts in other_engine.images(VARIANT):
        other_engine.untag(facts.id, force=True)
    return other_engine


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def card(name: str) -> Card:
    return named(name, all_cards()).card


def tags(repository: str) -> dict[str, str]:
    """Tag -> digest, of all but cosign's and the referrers' own."""
    shop = Repository(repository)
    found = {tag: shop.manifest(tag) for tag in shop.tags() if not tag.startswith("sha256-")}
    return {tag: manifest.digest for tag, manifest in found.items() if manifest}


def catalogue(repository: str, keys: Keys | None = None) -> Catalogue:
    return pulling.read(Repository(repository, sleep=brisk), keys)


def pull(engine: Engine, repository: str, name: str, driver: str, keys: Keys | None = None) -> str:
    """`invoke pull --card NAME --driver DRIVER`, up to what is printed; the local name it gets."""
    shop = Repository(repository, sleep=brisk)
    found = match_images(pulling.read(shop, keys), matrix(), variants(), [card(name)], parse_driver(driver)).found[0]
    pulling.verify(shop, found.image, keys)
    local = f"test/pulled:{found.image.variant}"
    pulling.pull(engine, shop, found.image, [local], sleep=brisk)
    return local


# -- the whole way


def test_from_a_build_to_another_machine_signed(
    stall: Stall, repository: str, keys: Keys, empty_engine: Engine
) -> None:
    cpu, sdpa, sm75 = stall.publish(repository, CPU, SM75_SDPA, SM75, keys=keys)
    left = stall.engine.inspect(stall.job(SM75).tags[0])
    assert left is not None
    assert left.digests == ()  # when a build replaces this image, nothing holds it
    assert stall.proofs == [CPU, SM75_SDPA, SM75]
    assert tags(repository) == {
        **{image.variant: image.digest for image in (cpu, sdpa, sm75)},
        **{image.tag: image.digest for image in (cpu, sdpa, sm75)},
        "sm75": sm75.digest,
        "catalogue": fetch_catalogue(Repository(repository))[1],
    }
    for image in (cpu, sdpa, sm75):
        assert keys.signer is not None
        keys.cosign.verify(repository, image.digest, keys.signer)
    assert cpu.layers[0] == sdpa.layers[0] == sm75.layers[0]  # shared, so told and pulled once
    local = pull(empty_engine, repository, "RTX 2080 Ti", "535.104", keys)
    facts = empty_engine.inspect(local)
    assert facts is not None
    assert (facts.id, facts.labels["dev.cardstock.variant"]) == (sm75.config, SM75)
    assert empty_engine.run(local, ["-c", "x"], entrypoint=["/opt/venv/bin/python"]).out.startswith('{"python"')
    written = json.loads((stall.root / "build/catalogue.json").read_text())
    assert [image["variant"] for image in written["images"]] == sorted([CPU, SM75_SDPA, SM75])


def test_what_is_published_is_not_published_again(stall: Stall, repository: str) -> None:
    first = stall.publish(repository, SM75)
    before = tags(repository)
    assert stall.publish(repository, SM75) == first
    assert stall.built == [SM75]
    assert tags(repository) == before


def test_zstd_layers_go_round(stall: Stall, repository: str, empty_engine: Engine) -> None:
    (image,) = stall.publish(repository, SM75_SDPA, packing="zstd")
    found = read_image(Repository(repository), image.digest)
    assert found is not None
    assert {layer.media_type for layer in found.layers} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    assert pull(empty_engine, repository, "Tesla T4", "550.54.14") == f"test/pulled:{SM75_SDPA}"


def test_bill_of_materials_and_provenance_hang_on_the_image_and_are_signed(
    stall: Stall, repository: str, keys: Keys
) -> None:
    (image,) = stall.publish(repository, SM75, keys=keys)
    shop = Repository(repository)
    index = shop.manifest(image.digest.replace(":", "-"))
    assert index is not None
    attached = {one["artifactType"]: shop.manifest(one["digest"]) for one in index.content["manifests"]}
    assert set(attached) == {"application/vnd.cyclonedx+json", "application/vnd.in-toto+json"}
    assert all(one and one.content["subject"]["digest"] == image.digest for one in attached.values())
    for kind in ("cyclonedx", "slsaprovenance1"):
        how = ["--type", kind, "--key", str(keys.signer), "--insecure-ignore-tlog=true", "--allow-http-registry"]
        told = process.run([find_cosign(), "verify-attestation", *how, f"{repository}@{image.digest}"])
        said = json.loads(base64.b64decode(json.loads(told.out)["payload"]))
        assert said["subject"][0]["digest"]["sha256"] == image.digest[7:]
    assert said["predicate"]["buildDefinition"]["internalParameters"]["inputs"]["sha256"] == image.input


def test_rolled_back_tags_name_the_image_before(stall: Stall, repository: str, keys: Keys) -> None:
    (old,) = stall.publish(repository, SM75, keys=keys)
    stall.change("second\n")
    (new,) = stall.publish(repository, SM75, keys=keys)
    assert tags(repository)["sm75"] == tags(repository)[SM75] == new.digest != old.digest
    assert [
        image.digest for image in roll_back(stall.publisher(repository, keys).destination, [variants().valid[SM75]])
    ] == [old.digest]
    named = tags(repository)
    assert (named["sm75"], named[SM75], named[new.tag]) == (old.digest, old.digest, new.digest)
    assert catalogue(repository, keys).current[SM75] == old
    with pytest.raises(NothingSelected):
        roll_back(stall.publisher(repository, keys).destination, [variants().valid[SM75]])


def republish(
    stall: Stall, repository: str, build: Callable[[building.Plan], object], *, prove_again: bool = False
) -> list[Published]:
    """Publish the image for 7.5 with another build."""
    publisher = stall.publisher(repository)
    return publish(publisher, stall.plan(publisher, SM75), build, prove_again=prove_again)


def test_a_machine_with_a_card_adds_its_evidence(stall: Stall, repository: str) -> None:
    (image,) = stall.publish(repository, SM75)
    before = tags(repository)
    stall.card = "NVIDIA GeForce RTX 2080 Ti"
    republish(stall, repository, stall.build, prove_again=True)
    told = catalogue(repository).by_digest[image.digest].told()
    assert told.endswith("server: passed (NVIDIA GeForce RTX 2080 Ti, driver 535.104.05)")
    assert stall.built == [SM75]
    stall.fails.add(SM75)
    with pytest.raises(CheckFailed, match="is published, and fails here") as caught:
        republish(stall, repository, stall.build, prove_again=True)
    assert "--rollback" in caught.value.do
    assert catalogue(repository).by_digest[image.digest].told() == told
    assert {**tags(repository), "catalogue": ""} == {**before, "catalogue": ""}


def test_an_image_built_before_its_commit_names_the_commit(stall: Stall, repository: str) -> None:
    (stall.root / "dockerfiles/rootfs/salt").write_text("not committed yet\n")
    stall.make(stall.job(SM75), revision=f"{'0' * 40}-dirty")
    stall.commit()
    (image,) = republish(stall, repository, lambda _: None)
    found = read_image(Repository(repository), image.image.digest)
    assert found is not None
    commit = process.run(["git", "rev-parse", "HEAD"], cwd=stall.root).out.strip()
    assert found.labels[REVISION] == image.image.revision == commit


def test_a_push_without_room_on_the_disk_is_refused(
    stall: Stall, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "free_bytes", lambda self: 1000)
    with pytest.raises(CardstockError, match="the disk is too small to publish"):
        stall.publish(repository, SM75)
    assert tags(repository) == {}


# -- what is never published


def test_inputs_that_no_commit_holds_are_refused(stall: Stall, repository: str) -> None:
    (stall.root / "dockerfiles/rootfs/salt").write_text("not committed\n")
    with pytest.raises(Unsafe, match="not what the commit holds") as caught:
        stall.publish(repository, SM75)
    assert "dockerfiles/rootfs/salt" in caught.value.cause
    assert (stall.built, tags(repository)) == ([], {})


def test_an_image_that_fails_its_proof_gets_no_tag_and_the_old_one_stands(stall: Stall, repository: str) -> None:
    stall.publish(repository, SM75)
    before = tags(repository)
    stall.change("worse\n")
    stall.fails.add(SM75)
    with pytest.raises(CheckFailed, match="pushed but not proven"):
        stall.publish(repository, SM75)
    assert tags(repository) == before


def test_an_image_of_other_inputs_is_refused(stall: Stall, repository: str) -> None:
    def build_other(jobs: object) -> None:
        stall.make(stall.job(SM75), input="0" * 64)

    with pytest.raises(Unsafe, match="is not the image of these inputs"):
        republish(stall, repository, build_other)
    assert tags(repository) == {}


# -- a registry that lies


def published(stall: Stall, repository: str, keys: Keys | None = None) -> PublishedImage:
    (image,) = stall.publish(repository, SM75, keys=keys)
    return image


def forged(registry: RealRegistry, image: PublishedImage, change: Callable[[bytes], bytes]) -> None:
    """Change what the registry has under the image's own digest."""
    path = registry.blob(image.digest)
    path.write_bytes(change(path.read_bytes()))


def test_a_tampered_manifest_is_refused(stall: Stall, repository: str, registry: RealRegistry, engine: Engine) -> None:
    image = published(stall, repository)
    forged(registry, image, lambda raw: raw.replace(image.layers[1].encode(), image.layers[0].encode()))
    # The registry itself notices on the way out (exit code 6), or what it gives is refused here (7).
    with pytest.raises((Unsafe, RegistryFailure)):
        pull(engine, repository, "RTX 2080 Ti", "535.104")


def test_a_manifest_that_lies_on_the_way_is_refused(
    stall: Stall, repository: str, registry: RealRegistry, engine: Engine
) -> None:
    image = published(stall, repository)
    with faulty(registry.port) as plan:
        wronged(plan, Fault(f"GET /v2/team/qwen/manifests/{image.digest}", "lie"))
        with pytest.raises(Unsafe, match="is not what its digest says") as caught:
            pull(engine, f"127.0.0.1:{plan.port}/team/qwen", "RTX 2080 Ti", "535.104")
    assert caught.value.exit_code == 7


def test_a_tag_that_was_pointed_elsewhere_is_refused(stall: Stall, repository: str, engine: Engine) -> None:
    image, other = stall.publish(repository, SM75, SM75_SDPA)
    point(Repository(repository), image.tag, other.digest)
    with pytest.raises(Unsafe, match="was pointed at something else"):
        pull(engine, repository, "RTX 2080 Ti", "535.104")


def test_an_image_with_other_labels_is_refused(stall: Stall, repository: str, engine: Engine) -> None:
    """The catalogue is made to name, as the image of 7.5, one that says it is for 8.0."""
    published(stall, repository)
    stall.change("lying\n")
    job = stall.job(SM75)
    stall.make(job, archs="8.0")
    with pytest.raises(Unsafe, match="says other things of itself"):
        republish(stall, repository, lambda _: None)
    assert catalogue(repository).current[SM75].tag != f"{SM75}-{job.input_hash[:12]}"


def test_what_another_key_signed_is_refused(
    stall: Stall, repository: str, keys: Keys, engine: Engine, tmp_path: Path
) -> None:
    image = published(stall, repository)
    with pytest.raises(Unsafe, match="is not signed by this signer"):
        pull(engine, repository, "RTX 2080 Ti", "535.104", keys)
    program = find_cosign()
    process.run([program, "generate-key-pair"], cwd=tmp_path, env={PASSWORD: "x"})
    stranger = Keys(Cosign(program, {PASSWORD: "x"}), tmp_path / "cosign.key", tmp_path / "cosign.pub")
    _, digest = fetch_catalogue(Repository(repository))
    for one in (digest, image.digest):
        stranger.cosign.sign(repository, one, stranger.private)
    with pytest.raises(Unsafe, match="is not signed by this signer"):
        pull(engine, repository, "RTX 2080 Ti", "535.104", keys)
    pull(engine, repository, "RTX 2080 Ti", "535.104", stranger)


# -- faults


def wronged(plan: Plan, *faults: Fault) -> None:
    plan.faults = list(faults)
    PLANS.append(plan)


def restarted(registry: RealRegistry) -> Callable[[], None]:
    """Kill the registry now, and start it again in a moment."""

    def act() -> None:
        registry.stop()
        threading.Timer(0.4, registry.start).start()

    return act


PUSH = ("POST /v2/team/qwen/blobs/uploads", "PUT /v2/team/qwen/blobs/uploads", "PUT /v2/team/qwen/manifests/sha256:")
AFTER = (f"PUT /v2/team/qwen/manifests/{SM75}", "PUT /v2/team/qwen/manifests/sm75", "PUT /v2/team/qwen/manifests/cat")


def test_a_push_outlives_what_passes(stall: Stall, registry: RealRegistry, repository: str) -> None:
    with faulty(registry.port) as plan:
        kinds: tuple[int | str, ...] = (500, 429, 503, "reset")
        places = [*PUSH, *AFTER]
        faults = [Fault(on, kinds[n % 4], "0") for n, on in enumerate(places)]
        wronged(plan, *faults, Fault("GET /v2/team/qwen/manifests", "cut"), Fault("GET /v2/team/qwen/blobs", "slow"))
        through = f"127.0.0.1:{plan.port}/team/qwen"
        (image,) = stall.publish(through, SM75)
        assert plan.faults == []
    assert tags(repository)[SM75] == tags(repository)["sm75"] == image.digest
    assert catalogue(repository).current[SM75] == image
    stall.clear(f"127.0.0.1:{plan.port}")


@pytest.mark.parametrize("place", [PUSH[1], AFTER[1], AFTER[2]])
def test_a_push_that_breaks_leaves_old_tags_and_can_be_run_again(
    stall: Stall, registry: RealRegistry, repository: str, place: str
) -> None:
    old = published(stall, repository)
    stall.change("next\n")
    with faulty(registry.port) as plan:
        through = f"127.0.0.1:{plan.port}/team/qwen"
        wronged(plan, *[Fault(place, 503) for _ in range(6)])
        with pytest.raises(RegistryFailure):
            stall.publish(through, SM75)
        now = tags(repository)
        listed = catalogue(repository)
        assert listed.current[SM75] == old  # who pulls gets the old one, whole
        assert set(now.values()) <= {old.digest, now["catalogue"], *_proven(stall, registry)}
        (new,) = stall.publish(through, SM75)
    assert tags(repository)[SM75] == tags(repository)["sm75"] == new.digest
    assert catalogue(repository).current[SM75] == new
    stall.clear(f"127.0.0.1:{plan.port}")


def _proven(stall: Stall, registry: RealRegistry) -> set[str]:
    """Digests of images that went through a proof: the only ones that a tag may name."""
    if stall.proofs.count(SM75) < 2:
        return set()
    facts = stall.engine.inspect(stall.job(SM75).tags[0])
    assert facts is not None
    return {name.partition("@")[2] for name in facts.digests}


@pytest.mark.parametrize("place", [PUSH[1], AFTER[0]])
def test_a_registry_killed_while_pushed_to(stall: Stall, registry: RealRegistry, repository: str, place: str) -> None:
    with faulty(registry.port) as plan:
        wronged(plan, Fault(place, restarted(registry)))
        (image,) = stall.publish(f"127.0.0.1:{plan.port}/team/qwen", SM75)
        assert plan.faults == []
    assert tags(repository)[SM75] == image.digest
    assert catalogue(repository).current[SM75] == image
    stall.clear(f"127.0.0.1:{plan.port}")


def test_a_pull_outlives_what_passes(
    stall: Stall, registry: RealRegistry, repository: str, empty_engine: Engine
) -> None:
    image = published(stall, repository)
    with faulty(registry.port) as plan:
        wronged(
            plan,
            Fault("GET /v2/team/qwen/manifests/catalogue", 500),
            Fault("GET /v2/team/qwen/blobs", 429, "0"),
            Fault(f"GET /v2/team/qwen/manifests/{image.digest}", "cut"),
            Fault(f"blobs/{image.layers[1]}", 503),
            Fault(f"blobs/{image.layers[0]}", "slow"),
        )
        local = pull(empty_engine, f"127.0.0.1:{plan.port}/team/qwen", "RTX 2080 Ti", "535.104")
        assert plan.faults == []
    facts = empty_engine.inspect(local)
    assert facts is not None
    assert facts.id == image.config


def test_a_registry_killed_while_pulled_from(
    stall: Stall, registry: RealRegistry, repository: str, empty_engine: Engine
) -> None:
    image = published(stall, repository)
    with faulty(registry.port) as plan:
        wronged(
            plan,
            Fault("GET /v2/team/qwen/manifests/catalogue", restarted(registry)),
            Fault(f"blobs/{image.layers[0]}", restarted(registry)),
        )
        local = pull(empty_engine, f"127.0.0.1:{plan.port}/team/qwen", "RTX 2080 Ti", "535.104")
        assert plan.faults == []
    facts = empty_engine.inspect(local)
    assert facts is not None
    assert facts.id == image.config


@pytest.mark.parametrize("kind", ["lie", "short"])
def test_a_layer_that_lies_is_refused_and_nothing_is_named(
    stall: Stall, registry: RealRegistry, repository: str, empty_engine: Engine, kind: str
) -> None:
    image = published(stall, repository)
    with faulty(registry.port) as plan:
        wronged(plan, *[Fault(f"blobs/{image.layers[0]}", kind) for _ in range(8)])
        with pytest.raises(Unsafe, match="not what its digest says"):
            pull(empty_engine, f"127.0.0.1:{plan.port}/team/qwen", "RTX 2080 Ti", "535.104")
    assert empty_engine.inspect(f"test/pulled:{SM75}") is None


def test_a_pull_that_broke_off_goes_on_where_it_was(
    stall: Stall, registry: RealRegistry, repository: str, empty_engine: Engine, tmp_path: Path
) -> None:
    """Layer by layer: a layer that came is not fetched again, and one that broke off goes on at its last byte."""
    image = published(stall, repository)
    first, second = image.layers[:2]
    home = tmp_path / "pulled"
    Started(home, image.digest).begin()  # an earlier pull of the engine's own was killed
    with faulty(registry.port) as plan:
        shop = Repository(f"127.0.0.1:{plan.port}/team/qwen", sleep=brisk)
        wronged(plan, *[Fault(f"blobs/{first}", "cut") for _ in range(3)], *[Fault(f"blobs/{second}", 503)] * 9)
        with pytest.raises(RegistryFailure):
            pulling.pull(empty_engine, shop, image, ["test/pulled:x"], sleep=brisk, home=home)
        assert empty_engine.inspect("test/pulled:x") is None
        plan.faults, plan.asked = [], []
        pulling.pull(empty_engine, shop, image, ["test/pulled:x"], sleep=brisk, home=home)
        assert not [line for line in plan.asked if first in line]
    assert registry.log.read_text().count(f"blobs/{first}") >= 4
    facts = empty_engine.inspect("test/pulled:x")
    assert facts is not None
    assert facts.id == image.config
    assert empty_engine.run("test/pulled:x", ["-c", "x"], entrypoint=["/opt/venv/bin/python"]).code == 0
    assert not list(home.iterdir())


def test_what_the_engine_could_not_pull_comes_layer_by_layer(
    stall: Stall, registry: RealRegistry, repository: str, empty_engine: Engine, tmp_path: Path
) -> None:
    image = published(stall, repository)
    shop = Repository(repository, sleep=brisk)
    with faulty(registry.port) as plan:
        through = Repository(f"127.0.0.1:{plan.port}/team/qwen", sleep=brisk)
        # One answer of 404 ends the engine's pull; the next question is not the engine's.
        wronged(plan, *[Fault(f"GET /v2/team/qwen/manifests/{image.digest}", 404)])
        pulling.pull(empty_engine, through, image, ["test/pulled:x"], sleep=brisk, home=tmp_path)
        assert plan.faults == []
    facts = empty_engine.inspect("test/pulled:x")
    assert facts is not None
    assert facts.id == image.config
    assert pulling.pull(empty_engine, shop, image, ["test/pulled:x"], home=tmp_path).endswith(image.digest)
