"""Publishing and pulling for real: an engine, a registry on loopback, signatures, lies, and faults on the way."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import images.build.plan as building
from images.cards.data import Card, all_cards
from images.cards.names import match_card as named
from images.catalogue.model import Catalogue, PublishedImage
from images.catalogue.resolve import match_images
from images.catalogue.store import SigningKeys, fetch_catalogue, set_tag
from images.core import process
from images.core.errors import CardstockError, CheckFailed, NothingSelected, RegistryFailure, Unsafe
from images.distribution import pull as pulling
from images.distribution.publish import Published, publish
from images.distribution.pull_layers import Started
from images.distribution.rollback import roll_back
from images.docker.engine import Engine
from images.matrix.drivers import parse_driver
from images.registry.client import Repository
from images.registry.cosign import PASSWORD, Cosign, find_cosign
from images.registry.oci_image import read_image
from images.render.labels import REVISION
from tests.conftest import say
from tests.engine.faulty import Fault, FaultPlan, faulty
from tests.engine.real_registry import RealRegistry
from tests.helpers.matrices import matrix, variants
from tests.helpers.small_publisher import CPU, SM75, SM75_SDPA, SmallPublisher, short_sleep

PLANS: list[FaultPlan] = []


@pytest.fixture(scope="module", autouse=True)
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print how many faults were tried."""
    yield
    say(request.config, f"faults tried while publishing and pulling: {sum(plan.done for plan in PLANS)}")


def card(name: str) -> Card:
    return named(name, all_cards()).card


def tags(repository: str) -> dict[str, str]:
    """Tag -> digest, of all but cosign's and the referrers' own."""
    target = Repository(repository)
    manifests = {tag: target.manifest(tag) for tag in target.tags() if not tag.startswith("sha256-")}
    return {tag: manifest.digest for tag, manifest in manifests.items() if manifest}


def catalogue(repository: str, keys: SigningKeys | None = None) -> Catalogue:
    return pulling.read(Repository(repository, sleep=short_sleep), keys)


def pull(engine: Engine, repository: str, name: str, driver: str, keys: SigningKeys | None = None) -> str:
    """`invoke pull --card NAME --driver DRIVER`, up to what is printed; the local name it gets."""
    target = Repository(repository, sleep=short_sleep)
    matches = match_images(
        pulling.read(target, keys), matrix(), variants(), [card(name)], parse_driver(driver)
    ).matches[0]
    pulling.verify(target, matches.image, keys)
    local = f"test/pulled:{matches.image.variant}"
    pulling.pull(engine, target, matches.image, [local], sleep=short_sleep)
    return local


# -- the whole way


def test_from_a_build_to_another_machine_signed(
    small_publisher: SmallPublisher, repository: str, keys: SigningKeys, empty_engine: Engine
) -> None:
    cpu, sdpa, sm75 = small_publisher.publish(repository, CPU, SM75_SDPA, SM75, keys=keys)
    left = small_publisher.engine.inspect(small_publisher.job(SM75).tags[0])
    assert left is not None
    assert left.digests == ()  # when a build replaces this image, nothing holds it
    assert small_publisher.proofs == [CPU, SM75_SDPA, SM75]
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
    written = json.loads((small_publisher.root / "build/catalogue.json").read_text())
    assert [image["variant"] for image in written["images"]] == sorted([CPU, SM75_SDPA, SM75])


def test_what_is_published_is_not_published_again(small_publisher: SmallPublisher, repository: str) -> None:
    first = small_publisher.publish(repository, SM75)
    before = tags(repository)
    assert small_publisher.publish(repository, SM75) == first
    assert small_publisher.built == [SM75]
    assert tags(repository) == before


def test_zstd_layers_go_round(small_publisher: SmallPublisher, repository: str, empty_engine: Engine) -> None:
    (image,) = small_publisher.publish(repository, SM75_SDPA, packing="zstd")
    found = read_image(Repository(repository), image.digest)
    assert found is not None
    assert {layer.media_type for layer in found.layers} == {"application/vnd.oci.image.layer.v1.tar+zstd"}
    assert pull(empty_engine, repository, "Tesla T4", "550.54.14") == f"test/pulled:{SM75_SDPA}"


def test_bill_of_materials_and_provenance_hang_on_the_image_and_are_signed(
    small_publisher: SmallPublisher, repository: str, keys: SigningKeys
) -> None:
    (image,) = small_publisher.publish(repository, SM75, keys=keys)
    target = Repository(repository)
    index = target.manifest(image.digest.replace(":", "-"))
    assert index is not None
    attached = {one["artifactType"]: target.manifest(one["digest"]) for one in index.content["manifests"]}
    assert set(attached) == {"application/vnd.cyclonedx+json", "application/vnd.in-toto+json"}
    assert all(one and one.content["subject"]["digest"] == image.digest for one in attached.values())
    for kind in ("cyclonedx", "slsaprovenance1"):
        how = ["--type", kind, "--key", str(keys.signer), "--insecure-ignore-tlog=true", "--allow-http-registry"]
        result = process.run([find_cosign(), "verify-attestation", *how, f"{repository}@{image.digest}"])
        said = json.loads(base64.b64decode(json.loads(result.out)["payload"]))
        assert said["subject"][0]["digest"]["sha256"] == image.digest[7:]
    assert said["predicate"]["buildDefinition"]["internalParameters"]["inputs"]["sha256"] == image.input


def test_rolled_back_tags_name_the_image_before(
    small_publisher: SmallPublisher, repository: str, keys: SigningKeys
) -> None:
    (old,) = small_publisher.publish(repository, SM75, keys=keys)
    small_publisher.change("second\n")
    (new,) = small_publisher.publish(repository, SM75, keys=keys)
    assert tags(repository)["sm75"] == tags(repository)[SM75] == new.digest != old.digest
    assert [
        image.digest
        for image in roll_back(small_publisher.publisher(repository, keys).destination, [variants().valid[SM75]])
    ] == [old.digest]
    named = tags(repository)
    assert (named["sm75"], named[SM75], named[new.tag]) == (old.digest, old.digest, new.digest)
    assert catalogue(repository, keys).current[SM75] == old
    with pytest.raises(NothingSelected):
        roll_back(small_publisher.publisher(repository, keys).destination, [variants().valid[SM75]])


def republish(
    small_publisher: SmallPublisher,
    repository: str,
    build: Callable[[building.Plan], object],
    *,
    prove_again: bool = False,
) -> list[Published]:
    """Publish the image for 7.5 with another build."""
    publisher = small_publisher.publisher(repository)
    return publish(publisher, small_publisher.plan(publisher, SM75), build, prove_again=prove_again)


def test_a_machine_with_a_card_adds_its_evidence(small_publisher: SmallPublisher, repository: str) -> None:
    (image,) = small_publisher.publish(repository, SM75)
    before = tags(repository)
    small_publisher.card = "NVIDIA GeForce RTX 2080 Ti"
    republish(small_publisher, repository, small_publisher.build, prove_again=True)
    text = catalogue(repository).by_digest[image.digest].summary()
    assert text.endswith("server: passed (NVIDIA GeForce RTX 2080 Ti, driver 535.104.05)")
    assert small_publisher.built == [SM75]
    small_publisher.fails.add(SM75)
    with pytest.raises(CheckFailed, match="is published, and fails here") as caught:
        republish(small_publisher, repository, small_publisher.build, prove_again=True)
    assert "--rollback" in caught.value.do
    assert catalogue(repository).by_digest[image.digest].summary() == text
    assert {**tags(repository), "catalogue": ""} == {**before, "catalogue": ""}


def test_an_image_built_before_its_commit_names_the_commit(small_publisher: SmallPublisher, repository: str) -> None:
    (small_publisher.root / "dockerfiles/rootfs/salt").write_text("not committed yet\n")
    small_publisher.make(small_publisher.job(SM75), revision=f"{'0' * 40}-dirty")
    small_publisher.commit()
    (image,) = republish(small_publisher, repository, lambda _: None)
    found = read_image(Repository(repository), image.image.digest)
    assert found is not None
    commit = process.run(["git", "rev-parse", "HEAD"], cwd=small_publisher.root).out.strip()
    assert found.labels[REVISION] == image.image.revision == commit


def test_a_push_without_room_on_the_disk_is_refused(
    small_publisher: SmallPublisher, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "free_bytes", lambda self: 1000)
    with pytest.raises(CardstockError, match="the disk is too small to publish"):
        small_publisher.publish(repository, SM75)
    assert tags(repository) == {}


# -- what is never published


def test_inputs_that_no_commit_holds_are_refused(small_publisher: SmallPublisher, repository: str) -> None:
    (small_publisher.root / "dockerfiles/rootfs/salt").write_text("not committed\n")
    with pytest.raises(Unsafe, match="not what the commit holds") as caught:
        small_publisher.publish(repository, SM75)
    assert "dockerfiles/rootfs/salt" in caught.value.cause
    assert (small_publisher.built, tags(repository)) == ([], {})


def test_an_image_that_fails_its_proof_gets_no_tag_and_the_old_one_stands(
    small_publisher: SmallPublisher, repository: str
) -> None:
    small_publisher.publish(repository, SM75)
    before = tags(repository)
    small_publisher.change("worse\n")
    small_publisher.fails.add(SM75)
    with pytest.raises(CheckFailed, match="pushed but not proven"):
        small_publisher.publish(repository, SM75)
    assert tags(repository) == before


def test_an_image_of_other_inputs_is_refused(small_publisher: SmallPublisher, repository: str) -> None:
    def build_other(jobs: object) -> None:
        small_publisher.make(small_publisher.job(SM75), input="0" * 64)

    with pytest.raises(Unsafe, match="is not the image of these inputs"):
        republish(small_publisher, repository, build_other)
    assert tags(repository) == {}


# -- a registry that lies


def published(small_publisher: SmallPublisher, repository: str, keys: SigningKeys | None = None) -> PublishedImage:
    (image,) = small_publisher.publish(repository, SM75, keys=keys)
    return image


def forged(registry: RealRegistry, image: PublishedImage, change: Callable[[bytes], bytes]) -> None:
    """Change what the registry has under the image's own digest."""
    path = registry.blob(image.digest)
    path.write_bytes(change(path.read_bytes()))


def test_a_tampered_manifest_is_refused(
    small_publisher: SmallPublisher, repository: str, registry: RealRegistry, engine: Engine
) -> None:
    image = published(small_publisher, repository)
    forged(registry, image, lambda raw: raw.replace(image.layers[1].encode(), image.layers[0].encode()))
    # The registry itself notices on the way out (exit code 6), or what it gives is refused here (7).
    with pytest.raises((Unsafe, RegistryFailure)):
        pull(engine, repository, "RTX 2080 Ti", "535.104")


def test_a_manifest_that_lies_on_the_way_is_refused(
    small_publisher: SmallPublisher, repository: str, registry: RealRegistry, engine: Engine
) -> None:
    image = published(small_publisher, repository)
    with faulty(registry.port) as plan:
        add_faults(plan, Fault(f"GET /v2/team/qwen/manifests/{image.digest}", "lie"))
        with pytest.raises(Unsafe, match="is not what its digest says") as caught:
            pull(engine, f"127.0.0.1:{plan.port}/team/qwen", "RTX 2080 Ti", "535.104")
    assert caught.value.exit_code == 7


def test_a_tag_that_was_pointed_elsewhere_is_refused(
    small_publisher: SmallPublisher, repository: str, engine: Engine
) -> None:
    image, other = small_publisher.publish(repository, SM75, SM75_SDPA)
    set_tag(Repository(repository), image.tag, other.digest)
    with pytest.raises(Unsafe, match="was pointed at something else"):
        pull(engine, repository, "RTX 2080 Ti", "535.104")


def test_an_image_with_other_labels_is_refused(
    small_publisher: SmallPublisher, repository: str, engine: Engine
) -> None:
    """The catalogue is made to name, as the image of 7.5, one that says it is for 8.0."""
    published(small_publisher, repository)
    small_publisher.change("lying\n")
    job = small_publisher.job(SM75)
    small_publisher.make(job, archs="8.0")
    with pytest.raises(Unsafe, match="says other things of itself"):
        republish(small_publisher, repository, lambda _: None)
    assert catalogue(repository).current[SM75].tag != f"{SM75}-{job.input_hash[:12]}"


def test_what_another_key_signed_is_refused(
    small_publisher: SmallPublisher, repository: str, keys: SigningKeys, engine: Engine, tmp_path: Path
) -> None:
    image = published(small_publisher, repository)
    with pytest.raises(Unsafe, match="is not signed by this signer"):
        pull(engine, repository, "RTX 2080 Ti", "535.104", keys)
    program = find_cosign()
    process.run([program, "generate-key-pair"], cwd=tmp_path, env={PASSWORD: "x"})
    stranger = SigningKeys(Cosign(program, {PASSWORD: "x"}), tmp_path / "cosign.key", tmp_path / "cosign.pub")
    _, digest = fetch_catalogue(Repository(repository))
    for one in (digest, image.digest):
        stranger.cosign.sign(repository, one, stranger.private)
    with pytest.raises(Unsafe, match="is not signed by this signer"):
        pull(engine, repository, "RTX 2080 Ti", "535.104", keys)
    pull(engine, repository, "RTX 2080 Ti", "535.104", stranger)


# -- faults


def add_faults(plan: FaultPlan, *faults: Fault) -> None:
    plan.faults = list(faults)
    PLANS.append(plan)


def restart_soon(registry: RealRegistry) -> Callable[[], None]:
    """Kill the registry now, and start it again in a moment."""

    def act() -> None:
        registry.stop()
        threading.Timer(0.4, registry.start).start()

    return act


PUSH = ("POST /v2/team/qwen/blobs/uploads", "PUT /v2/team/qwen/blobs/uploads", "PUT /v2/team/qwen/manifests/sha256:")
AFTER = (f"PUT /v2/team/qwen/manifests/{SM75}", "PUT /v2/team/qwen/manifests/sm75", "PUT /v2/team/qwen/manifests/cat")


def test_a_push_outlives_what_passes(small_publisher: SmallPublisher, registry: RealRegistry, repository: str) -> None:
    with faulty(registry.port) as plan:
        kinds: tuple[int | str, ...] = (500, 429, 503, "reset")
        places = [*PUSH, *AFTER]
        faults = [Fault(on, kinds[n % 4], "0") for n, on in enumerate(places)]
        add_faults(plan, *faults, Fault("GET /v2/team/qwen/manifests", "cut"), Fault("GET /v2/team/qwen/blobs", "slow"))
        through = f"127.0.0.1:{plan.port}/team/qwen"
        (image,) = small_publisher.publish(through, SM75)
        assert plan.faults == []
    assert tags(repository)[SM75] == tags(repository)["sm75"] == image.digest
    assert catalogue(repository).current[SM75] == image
    small_publisher.clear(f"127.0.0.1:{plan.port}")


@pytest.mark.parametrize("place", [PUSH[1], AFTER[1], AFTER[2]])
def test_a_push_that_breaks_leaves_old_tags_and_can_be_run_again(
    small_publisher: SmallPublisher, registry: RealRegistry, repository: str, place: str
) -> None:
    old = published(small_publisher, repository)
    small_publisher.change("next\n")
    with faulty(registry.port) as plan:
        through = f"127.0.0.1:{plan.port}/team/qwen"
        add_faults(plan, *[Fault(place, 503) for _ in range(6)])
        with pytest.raises(RegistryFailure):
            small_publisher.publish(through, SM75)
        now = tags(repository)
        assert set(now.values()) <= {now["catalogue"], *small_publisher.proven}
        if place != AFTER[1]:  # before the catalogue has it, who pulls gets the old one, whole
            assert catalogue(repository).current[SM75] == old
        assert pull(small_publisher.engine, repository, "RTX 2080 Ti", "535.104")
        (new,) = small_publisher.publish(through, SM75)
    assert tags(repository)[SM75] == tags(repository)["sm75"] == new.digest
    assert catalogue(repository).current[SM75] == new
    small_publisher.clear(f"127.0.0.1:{plan.port}")


@pytest.mark.parametrize("place", [PUSH[1], AFTER[0]])
def test_a_registry_killed_while_pushed_to(
    small_publisher: SmallPublisher, registry: RealRegistry, repository: str, place: str
) -> None:
    with faulty(registry.port) as plan:
        add_faults(plan, Fault(place, restart_soon(registry)))
        (image,) = small_publisher.publish(f"127.0.0.1:{plan.port}/team/qwen", SM75)
        assert plan.faults == []
    assert tags(repository)[SM75] == image.digest
    assert catalogue(repository).current[SM75] == image
    small_publisher.clear(f"127.0.0.1:{plan.port}")


def test_a_pull_outlives_what_passes(
    small_publisher: SmallPublisher, registry: RealRegistry, repository: str, empty_engine: Engine
) -> None:
    image = published(small_publisher, repository)
    with faulty(registry.port) as plan:
        add_faults(
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
    small_publisher: SmallPublisher, registry: RealRegistry, repository: str, empty_engine: Engine
) -> None:
    image = published(small_publisher, repository)
    with faulty(registry.port) as plan:
        add_faults(
            plan,
            Fault("GET /v2/team/qwen/manifests/catalogue", restart_soon(registry)),
            Fault(f"blobs/{image.layers[0]}", restart_soon(registry)),
        )
        local = pull(empty_engine, f"127.0.0.1:{plan.port}/team/qwen", "RTX 2080 Ti", "535.104")
        assert plan.faults == []
    facts = empty_engine.inspect(local)
    assert facts is not None
    assert facts.id == image.config


@pytest.mark.parametrize("kind", ["lie", "short"])
def test_a_layer_that_lies_is_refused_and_nothing_is_named(
    small_publisher: SmallPublisher, registry: RealRegistry, repository: str, empty_engine: Engine, kind: str
) -> None:
    image = published(small_publisher, repository)
    with faulty(registry.port) as plan:
        add_faults(plan, *[Fault(f"blobs/{image.layers[0]}", kind) for _ in range(8)])
        with pytest.raises(Unsafe, match="not what its digest says"):
            pull(empty_engine, f"127.0.0.1:{plan.port}/team/qwen", "RTX 2080 Ti", "535.104")
    assert empty_engine.inspect(f"test/pulled:{SM75}") is None


def test_a_pull_that_broke_off_goes_on_where_it_was(
    small_publisher: SmallPublisher, registry: RealRegistry, repository: str, empty_engine: Engine, tmp_path: Path
) -> None:
    """Layer by layer: a layer that came is not fetched again, and one that broke off goes on at its last byte."""
    image = published(small_publisher, repository)
    first, second = image.layers[:2]
    home = tmp_path / "pulled"
    Started(home, image.digest).begin()  # an earlier pull of the engine's own was killed
    with faulty(registry.port) as plan:
        target = Repository(f"127.0.0.1:{plan.port}/team/qwen", sleep=short_sleep)
        add_faults(plan, *[Fault(f"blobs/{first}", "cut") for _ in range(3)], *[Fault(f"blobs/{second}", 503)] * 9)
        with pytest.raises(RegistryFailure):
            pulling.pull(empty_engine, target, image, ["test/pulled:x"], sleep=short_sleep, home=home)
        assert empty_engine.inspect("test/pulled:x") is None
        plan.faults, plan.asked = [], []
        pulling.pull(empty_engine, target, image, ["test/pulled:x"], sleep=short_sleep, home=home)
        assert not [line for line in plan.asked if first in line]
    assert registry.log.read_text().count(f"blobs/{first}") >= 4
    facts = empty_engine.inspect("test/pulled:x")
    assert facts is not None
    assert facts.id == image.config
    assert empty_engine.run("test/pulled:x", ["-c", "x"], entrypoint=["/opt/venv/bin/python"]).code == 0
    assert not list(home.iterdir())


def test_what_the_engine_could_not_pull_comes_layer_by_layer(
    small_publisher: SmallPublisher, registry: RealRegistry, repository: str, empty_engine: Engine, tmp_path: Path
) -> None:
    image = published(small_publisher, repository)
    target = Repository(repository, sleep=short_sleep)
    with faulty(registry.port) as plan:
        through = Repository(f"127.0.0.1:{plan.port}/team/qwen", sleep=short_sleep)
        # The first question is ours, for the sizes. One answer of 404 ends the engine's pull; the next is ours again.
        asked = f"GET /v2/team/qwen/manifests/{image.digest}"
        add_faults(plan, Fault(asked, "none"), Fault(asked, 404))
        pulling.pull(empty_engine, through, image, ["test/pulled:x"], sleep=short_sleep, home=tmp_path)
        assert plan.faults == []
    facts = empty_engine.inspect("test/pulled:x")
    assert facts is not None
    assert facts.id == image.config
    assert pulling.pull(empty_engine, target, image, ["test/pulled:x"], home=tmp_path).endswith(image.digest)
