"""The three ways through a registry, as the commands go them: `pull`, `publish`, `kernels --wheels --push`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from images.catalogue.model import with_image
from images.catalogue.store import change_catalogue, set_tag
from images.commands.kernels import Wheels, make_wheels, push_wheels
from images.commands.pull import PullOptions, pull_images
from images.context import Context
from images.core.errors import RegistryFailure
from images.core.report import Report
from images.docker.engine import Engine
from images.docker.facts import ImageFacts
from images.kernels import Need
from images.kernels.store import Store
from images.matrix.kernel import Kernel
from images.registry.client import Repository
from images.registry.descriptor import Blob, digest_of
from images.registry.oci_image import make_manifest
from tests.helpers.catalogues import NOW, SM75, image
from tests.helpers.contexts import context
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.registry_behaviours.setting import Setting
from tests.helpers.small_publisher import SmallPublisher
from tests.helpers.wheels import build, kernel, key

PATH = "team/images"
LAYER = bytes(range(256)) * 16
LABELS = {
    "dev.cardstock.variant": SM75,
    "dev.cardstock.input": image(SM75).input,
    "dev.cardstock.stack": "cu124",
    "dev.cardstock.engine": "vllm",
    "dev.cardstock.attention": "xformers",
    "dev.cardstock.archs": "7.5",
    "dev.cardstock.audited-archs": "7.5",
    "dev.cardstock.min-driver": "525.60.13",
    "dev.cardstock.locked": "yes",
}


class Way:
    """One of the three: ``prepare`` puts what it needs into a registry that is well behaved; ``go`` is what is tested.

    `go` returns when all of it was served, and raises what the command raises.
    """

    def __init__(self, at: Setting, root: Path) -> None:
        self.at, self.root = at, root

    def repository(self) -> Repository:
        """The repository, with waits that are written down."""
        at = self.at
        return Repository(f"{at.host}/{PATH}", sleep=at.waits.append, say=at.said.append)

    def prepare(self) -> None:
        """What lies in the registry before."""

    def go(self) -> None:
        """Through the registry."""
        raise NotImplementedError


class LoadingEngine:
    """An engine whose own pull breaks off, so that the layers are fetched one by one; it knows what it was given."""

    endpoint, embedded, docker_version = "unix:///fake.sock", False, "26.1.5"

    def __init__(self) -> None:
        self.loaded = b""
        self.tags: list[str] = []

    def keeps_what_came(self) -> bool:
        return False

    def free_bytes(self) -> int | None:
        return None

    def layers_folder(self) -> str:
        return ""

    def images(self, label: str) -> tuple[ImageFacts, ...]:
        return ()

    def pull(self, reference: str, say: object = None) -> None:
        raise RegistryFailure("the pull broke off", cause="unexpected EOF")

    def load(self, archive: Iterator[bytes]) -> None:
        self.loaded = b"".join(archive)

    def inspect(self, reference: str) -> ImageFacts | None:
        return ImageFacts(reference, (), (), {}, {}, "", (), (), 1, "", "amd64", ()) if self.loaded else None

    def tag(self, reference: str, new: str) -> None:
        self.tags.append(new)


class Pull(Way):
    """`pull --card "RTX 2080 Ti"`: the catalogue, the image's parts, its layers, into an engine."""

    def prepare(self) -> None:
        repository, shelf = self.repository(), self.at.shelf
        config = json.dumps({"config": {"Labels": LABELS}, "rootfs": {"diff_ids": ["sha256:x"]}}).encode()
        shelf.blobs |= {digest_of(config): config, digest_of(LAYER): LAYER}
        layer = Blob("layer", digest_of(LAYER), len(LAYER))
        raw = make_manifest(Blob("config", digest_of(config), len(config)), [layer])
        parts = {"config": digest_of(config), "layers": (layer.digest,), "compressed": layer.size}
        digest = repository.put_manifest(raw, digest_of(raw))
        there = image(SM75).model_copy(update={"digest": digest, **parts})
        set_tag(repository, there.tag, digest)
        change_catalogue(repository, lambda before: with_image(before, there, {layer.digest: layer.size}, [SM75], NOW))

    def go(self) -> None:
        engine = LoadingEngine()
        made = context(Report(io.StringIO(), io.StringIO(), live=False), engine=cast("Engine", engine))
        asked = PullOptions(cards=["RTX 2080 Ti"], driver="535.104", source=f"{self.at.host}/{PATH}")
        pull_images(_with(made, self), asked)
        assert LAYER in engine.loaded
        assert len(engine.tags) == 2


def _with(made: Context, way: Way) -> Context:
    """The context, whose repositories are this way's."""

    class Here(Context):
        def repository(self, name: str) -> Repository:
            assert name == f"{way.at.host}/{PATH}"
            return way.repository()

    return Here(made.checkout, made.report, made.environment, made.connect, made.known)


class Publish(Way):
    """`publish --only SM75` of a small checkout: layers, bill, provenance, tags, the catalogue."""

    def go(self) -> None:
        engine = FakeEngine(self.root / "engine", self.at.shelf)
        stall = SmallPublisher(self.root / "checkout", engine.as_engine(), "test/base:1")
        try:
            (published,) = stall.publish(f"{self.at.host}/{PATH}", SM75)
        finally:
            self.at.said += stall.err.getvalue().splitlines()
        named = self.at.shelf.manifests
        assert {published.tag, SM75, "catalogue", published.digest} <= named.keys()


class _Compiler:
    def __init__(self) -> None:
        self.compiled: list[str] = []

    def check(self, kernels: object) -> None:
        """Nothing."""

    def compile(self, one: Kernel, folder: Path) -> None:
        self.compiled.append(one.id)
        build(folder, *one.capabilities)


class FetchAndPush(Way):
    """`kernels --wheels --push`: a wheel that the registry has, and one that it lacks, which is made and written."""

    def prepare(self) -> None:
        wheels = Wheels(Store(self.root / "first"), self.repository(), Report(io.StringIO(), io.StringIO(), live=False))
        with wheels.store.work() as folder:
            build(folder, "7.5")
            wheels.store.put(key("7.5"), folder)
        push_wheels(wheels, make_wheels(wheels, [Need(kernel("7.5"), key("7.5"))], _Compiler()))

    def go(self) -> None:
        wheels = Wheels(Store(self.root / "other"), self.repository(), Report(io.StringIO(), io.StringIO(), live=False))
        needs = [Need(kernel(arch), key(arch)) for arch in ("7.5", "8.0")]
        compiler = _Compiler()
        push_wheels(wheels, make_wheels(wheels, needs, compiler))
        assert compiler.compiled == [kernel("8.0").id]
        assert {key("7.5").digest, key("8.0").digest} <= self.at.shelf.manifests.keys()


WAYS = {"pull": Pull, "publish": Publish, "wheels": FetchAndPush}
