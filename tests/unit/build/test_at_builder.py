"""A build at a builder of its own, without one: a registry in memory has what it pushed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from images.build import build as building
from images.build.at_builder import AtBuilder, unpacked_sizes
from images.build.build import BuildSettings, BuiltImage, build_images
from images.build.plan import make_plan
from images.core import debian
from images.core.errors import CheckFailed, RegistryFailure
from images.core.report import Report
from images.distribution.push import Layer, Packed, remember
from images.docker import build_inputs
from images.docker.builders import Builder
from images.docker.engine import Engine
from images.docker.facts import ImageFacts
from images.proof.smoke.record import LevelResult, ProofRecord
from images.registry.client import Repository
from images.registry.descriptor import Blob, digest_of
from images.registry.oci_image import CONFIG, LAYER, RemoteImage, make_manifest
from images.render.bakefile import target_name
from images.render.labels import PROVEN, VARIANT
from tests.helpers.bake_stand_in import Images, configuration, digest
from tests.helpers.contexts import all_locked
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.matrices import variants
from tests.helpers.registries import FakeRegistry, registry
from tests.helpers.small_publisher import CPU, SmallPublisher

LAYERS = ["base", "own"]


class PullingEngine(FakeEngine):
    """Takes what its registry has, also an image that it has never seen."""

    def __init__(self, folder: Path, shelf: FakeRegistry) -> None:
        super().__init__(folder, shelf)
        self.takes = True

    def pull(self, reference: str, say: object = None) -> None:
        assert self.shelf is not None
        self.pulled.append(reference)
        manifest = json.loads(self.shelf.manifests[reference.partition("@")[2]][1])
        told = json.loads(self.shelf.blobs[manifest["config"]["digest"]])
        images = Images(self.folder)
        images.add(told["config"]["Labels"], LAYERS if self.takes else ["others"], reference)
        images.save()

    def tag(self, reference: str, new: str) -> None:
        images = Images(self.folder)
        images.names[new] = images.names[reference]
        images.save()


class Far:
    """The builder: what it was told, and what it pushes."""

    def __init__(self, shelf: FakeRegistry) -> None:
        self.shelf, self.told, self.breaks = shelf, cast("dict[str, Any]", {}), ""
        self.pushes = True

    def bake(self, root: Path, files: Sequence[Path], targets: Sequence[str], env: object, log: Path, report: object,
             *, builder: str, metadata: Path) -> None:  # fmt: skip
        self.told = json.loads(files[1].read_text())["target"] | {"builder": builder}
        if self.breaks:
            raise CheckFailed("the build broke; nothing was tagged", cause=self.breaks, where="x.log")
        raw = configuration({"labels": {"made": "there"}, "layers": LAYERS})
        self.shelf.blobs[digest_of(raw)] = raw
        parts = [Blob(f"{LAYER}gzip", digest(one.encode()), len(one)) for one in LAYERS]
        manifest = make_manifest(Blob(CONFIG, digest_of(raw), len(raw)), parts)
        if self.pushes:
            self.shelf.manifests[digest_of(manifest)] = ("application/vnd.oci.image.manifest.v1+json", manifest)
        metadata.write_text(json.dumps({one: {"containerimage.digest": digest_of(manifest)} for one in targets}))


class Stall:
    """A small checkout, its engine, its builder."""

    def __init__(self, folder: Path, shelf: FakeRegistry, host: str) -> None:
        self.engine, self.far, self.shelf = PullingEngine(folder / "engine", shelf), Far(shelf), shelf
        self.publisher = SmallPublisher(folder / "checkout", self.engine.as_engine(), "test/base:1")
        self.repository = f"{host}/team/qwen"
        self.fails = False

    def build(self, cache: str = "") -> BuiltImage:
        at = AtBuilder(Builder("far", "remote", {}), Repository(self.repository), cache=cache)
        context = all_locked(self.publisher.root, self.engine.as_engine(), Report(io.StringIO(), io.StringIO()))
        plan = make_plan(context, [variants().valid[CPU]], self.engine.as_engine())
        (built,) = build_images(context, plan, BuildSettings(at=at))
        return built

    def prove(self, image: str, expectation: Any, **_: object) -> ProofRecord:
        level = LevelResult(2, "stack", "failed" if self.fails else "passed")
        return ProofRecord(CPU, image, "sha256:1", "now", None, None, "26", (level,))


@pytest.fixture
def stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stall]:
    with registry() as (host, shelf):
        made = Stall(tmp_path, shelf, host)
        monkeypatch.setattr(building, "prove_image", made.prove)
        monkeypatch.setattr(debian, "host_mirror", lambda: None)
        monkeypatch.setattr(building, "run_bake", made.far.bake)
        monkeypatch.setattr(build_inputs, "named_contexts", lambda *_: (("base", f"docker-image://a@{'b' * 64}"),))
        monkeypatch.setattr(building, "carried", lambda contexts, engine, folder: contexts)
        yield made


def test_what_it_pushed_is_pulled_proven_labelled_there_and_named_here(stall: Stall) -> None:
    built = stall.build()
    job, pushed = built.job, built.pushed
    assert pushed is not None and pushed.labels["made"] == "there" and pushed.labels[PROVEN] == "yes"
    assert stall.engine.pulled[-1] == f"{stall.repository}@{pushed.digest}" and len(stall.engine.pulled) == 2
    facts = stall.engine.inspect(job.tags[0])
    assert facts is not None and facts.id == pushed.config and facts.labels[VARIANT] == CPU
    assert not {name for name in stall.engine.names() if "@" in name or name == job.staging}
    assert not [asked for asked in stall.shelf.asked if asked.startswith("PUT") and "/manifests/sha256:" not in asked
                and "/blobs/" not in asked]  # fmt: skip
    assert stall.far.told["builder"] == "far"
    target = stall.far.told[target_name(CPU)]
    assert target["tags"] == [] and "cache-to" not in target
    assert target["output"] == [
        f"type=image,name={stall.repository},push-by-digest=true,name-canonical=true,push=true,store=false,"
        "oci-mediatypes=true,compression=gzip,force-compression=true"
    ]


def test_its_cache_is_one_of_the_variant(stall: Stall) -> None:
    stall.build(cache="r.example/cache")
    target = stall.far.told[target_name(CPU)]
    assert target["cache-from"] == [f"type=registry,ref=r.example/cache:cache-{CPU}"]
    assert target["cache-to"][0].startswith(f"type=registry,ref=r.example/cache:cache-{CPU},mode=max,")


def test_what_fails_its_proof_is_named_nowhere(stall: Stall) -> None:
    stall.fails = True
    with pytest.raises(CheckFailed, match="built but not proven"):
        stall.build()
    job = stall.publisher.job(CPU)
    assert not set(job.tags) & stall.engine.names() and job.staging in stall.engine.names()
    stall.fails = False
    built = stall.build()  # it lies here under its working name: it is proven, not built again
    assert built.outcome == "built" and built.pushed is None and set(job.tags) <= stall.engine.names()


def test_what_does_not_come_back_as_it_was_pushed(stall: Stall) -> None:
    stall.engine.takes = False
    with pytest.raises(RegistryFailure, match="does not come back as the image that was pushed"):
        stall.build()
    stall.engine.takes, stall.far.pushes = True, False
    stall.shelf.manifests.clear()
    with pytest.raises(RegistryFailure, match="is not there"):
        stall.build()
    assert not set(stall.publisher.job(CPU).tags) & stall.engine.names()


def test_a_builder_that_cannot_push_is_told(stall: Stall) -> None:
    stall.far.breaks = f"ERROR: failed to push {stall.repository}: 401 Unauthorized"
    with pytest.raises(RegistryFailure, match="the builder far could not push to"):
        stall.build()


# -- what publishing need not do again


def remote(media_type: str, *empty: bool) -> RemoteImage:
    layers = tuple(Blob(media_type, digest(str(at).encode()), 10 + at) for at in range(2))
    told = json.dumps({"history": [{"empty_layer": one} for one in empty]}).encode()
    return RemoteImage(digest(b"m"), digest_of(told), layers, (digest(b"a"), digest(b"b")), {}, told)


def test_its_layers_are_known_as_packed(tmp_path: Path) -> None:
    packed, image = Packed(tmp_path), remote(f"{LAYER}gzip")
    remember(packed, "gzip", image, (100, 200))
    assert packed.layer(image.diff_ids[1], "gzip") == Layer(image.layers[1].digest, 11, 200)
    assert packed.layer(image.diff_ids[1], "zstd") is None
    config = packed.config(image.config)
    assert config is not None and config.read_bytes() == image.configuration


@pytest.mark.parametrize("media_type", [f"{LAYER}zstd", "application/vnd.oci.image.layer.v1.tar"])
def test_layers_of_another_packing_are_packed_here(tmp_path: Path, media_type: str) -> None:
    packed, image = Packed(tmp_path), remote(media_type)
    remember(packed, "gzip", image, (100, 200))
    assert packed.layer(image.diff_ids[0], "gzip") is None and packed.config(image.config) is None


@pytest.mark.parametrize(
    ("empty", "told", "sizes"),
    [
        ((False, True, False), (30, 0, 70), (70, 30)),  # the engine tells the newest first
        ((False, False), (0, 70), (70, 0)),
        ((), (30, 70), (100, 0)),  # no history: the whole for the first
        ((False, True, True), (0, 0, 70), (100, 0)),
    ],
)
def test_sizes_unpacked(empty: tuple[bool, ...], told: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    class Told:
        def layer_sizes(self, reference: str) -> tuple[int, ...]:
            return told

    facts = ImageFacts("x", (), (), {}, {}, "", (), (), 100, "", "amd64", ())
    assert unpacked_sizes(cast(Engine, Told()), "x", remote(f"{LAYER}gzip", *empty), facts) == sizes
