"""An engine for unit tests: its images lie in a folder, where a stand-in for `docker buildx bake` makes them."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from images.docker.engine import Engine
from images.docker.facts import ImageFacts, Ran, host_of
from images.render.labels import READ_CONTENTS_SCRIPT
from tests.helpers import bake_stand_in
from tests.helpers.bake_stand_in import Images, configuration, digest
from tests.helpers.registries import FakeRegistry

PACKAGES = {"python": [["torch", "2.6.0", "BSD-3-Clause"]], "debian": [["tini", "0.19", "amd64"]]}
READING = {"pins": {"torch": "2.6.0"}, "cuda": "12.4", "python": "3.11.2", "kernel_archs": None}


class FakeEngine:
    """What of `Engine` building and publishing ask. ``shelf`` is the registry that it pulls from."""

    endpoint, version, embedded = "unix:///fake.sock", "26.1.5", False
    local, beside, way_to_cards = True, True, "nvidia"

    def __init__(self, folder: Path, shelf: FakeRegistry | None = None, free: int | None = None) -> None:
        self.folder, self.shelf, self.free = folder, shelf, free
        self.files: dict[str, bytes] = {}  # of every image's file system, as it is exported
        self.pulled: list[str] = []
        self.memory = 64 * 10**9
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {bake_stand_in.__file__} {folder} "$@"\n')
        program.chmod(0o755)

    def as_engine(self) -> Engine:
        return cast("Engine", self)

    def cli_env(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def host(self) -> Any:
        return host_of({"DockerRootDir": str(self.folder), "MemTotal": self.memory})

    def free_bytes(self) -> int | None:
        return self.free

    def make_room(self, need: int, say: object = None) -> int | None:
        return self.free

    def registry_digest(self, reference: str) -> str | None:
        return "sha256:" + "b" * 64

    def add(self, labels: Mapping[str, str], *names: str) -> None:
        images = Images(self.folder)
        images.add(dict(labels), ["base"], *names)
        images.save()

    def names(self) -> set[str]:
        return set(Images(self.folder).names)

    def inspect(self, reference: str) -> ImageFacts | None:
        images = Images(self.folder)
        identifier = images.names.get(reference, reference)
        if identifier not in images.content:
            return None
        tags = tuple(name for name, of in images.names.items() if of == identifier)
        content = images.content[identifier]
        layers = tuple(digest(layer.encode()) for layer in content["layers"])
        size = sum(map(len, content["layers"]))
        return ImageFacts(identifier, tags, (), content["labels"], {}, "", (), (), size, "", "amd64", layers)

    def images(self, label: str = "dev.cardstock.variant") -> tuple[ImageFacts, ...]:
        name, equals, value = label.partition("=")
        found = [self.inspect(identifier) for identifier in Images(self.folder).content]
        return tuple(one for one in found if one and name in one.labels and (not equals or one.labels[name] == value))

    def tags(self, repository: str) -> frozenset[str]:
        return frozenset(name for name in self.names() if name.startswith(f"{repository}:"))

    def untag(self, reference: str, *, force: bool = False) -> bool:
        images = Images(self.folder)
        there = images.names.pop(reference, None) is not None
        images.save()
        return there

    def drop_name(self, reference: str, say: object = None) -> bool:
        return self.untag(reference, force=True)

    def cleanup(self, run_id: str | None = None) -> int:
        return 0

    def layer_sizes(self, reference: str) -> tuple[int, ...]:
        facts = self.inspect(reference)
        return tuple(map(len, facts.layers)) if facts else ()

    def pull(self, reference: str, say: object = None) -> None:
        """Take the image whose configuration the registry's manifest names."""
        assert self.shelf is not None
        self.pulled.append(reference)
        manifest = json.loads(self.shelf.manifests[reference.partition("@")[2]][1])
        images = Images(self.folder)
        images.names[reference] = manifest["config"]["digest"]
        images.save()

    @contextmanager
    def save(self, reference: str) -> Iterator[Iterator[bytes]]:
        """As `docker save` writes it."""
        content = Images(self.folder).content[reference]
        parts = [*(layer.encode() for layer in content["layers"]), configuration(content)]
        yield iter([tar_of({f"blobs/sha256/{digest(part)[7:]}": part for part in parts})])

    @contextmanager
    def export_tar(self, reference: str) -> Iterator[Iterator[bytes]]:
        yield iter([tar_of(self.files, root=True)])

    def run(self, reference: str, command: Sequence[str], **_: object) -> Ran:
        """The image's Python, asked what it is or what is in it."""
        return Ran(0, json.dumps(READING if READ_CONTENTS_SCRIPT in command else PACKAGES) + "\n")


def tar_of(files: Mapping[str, bytes], *, root: bool = False) -> bytes:
    """A tar of these files; with ``root`` the root folder comes first, as an engine has it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        if root:
            folder = tarfile.TarInfo("/")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
