"""An engine with the classic store for unit tests: it loads and saves archives of docker's form, in memory.

As Docker 26.1 was seen to do it: a layer whose chain it has need not be in the archive; one that is gets unpacked and
held against its diff id; what no image needs any more goes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from images.core import process
from images.docker.engine import Engine
from images.docker.facts import ImageFacts, host_of
from images.docker.refusals import refused_pull
from tests.helpers.fake_engine import tar_of
from tests.helpers.small_images import members_of

_ZSTD = b"\x28\xb5\x2f\xfd"


class ClassicEngine:
    """Its images by id, its names, the bytes of its layers by chain; ``given`` has each archive's names of blobs.

    ``loads_left``: so many archives are taken, then it is as if this process were killed.
    """

    embedded = False

    def __init__(self, *archives: bytes, containerd: bool = False, free: int | None = None) -> None:
        self.endpoint, self.version, self.docker_version = f"unix:///{id(self)}", "26.1.5", "26.1.5"
        self.containerd, self.free = containerd, free
        self.configurations: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.chains: dict[tuple[str, ...], bytes] = {}
        self.given: list[list[str]] = []
        self.saves = 0
        self.loads_left = 10**6
        for archive in archives:
            self.load(iter([archive]))
        self.given.clear()

    def as_engine(self) -> Engine:
        return cast("Engine", self)

    def host(self) -> Any:
        return host_of({"DockerRootDir": "/nowhere"})

    def keeps_what_came(self) -> bool:
        return self.containerd

    def free_bytes(self) -> int | None:
        return self.free

    def layers_folder(self) -> str:
        return "/nowhere"

    def layer_sizes(self, reference: str) -> tuple[int, ...]:
        facts = self.inspect(reference)
        return tuple(len(self.chains[facts.layers[: n + 1]]) for n in range(len(facts.layers))) if facts else ()

    def cleanup(self) -> int:
        return 0

    def load(self, archive: Iterator[bytes]) -> None:
        files = dict(members_of(b"".join(archive)))
        self.given.append([name for name in files if name.startswith("blobs/")])
        if not self.loads_left:
            raise KeyboardInterrupt
        self.loads_left -= 1
        for listed in json.loads(files["manifest.json"]):
            raw = files[listed["Config"]]
            diffs = tuple(json.loads(raw)["rootfs"]["diff_ids"])
            for count, (diff, name) in enumerate(zip(diffs, listed["Layers"], strict=True), 1):
                if diffs[:count] in self.chains:
                    continue
                if name not in files:
                    raise refused_pull("the image", f"open /tmp/{name}: no such file or directory")
                content = _unpacked(files[name])
                if f"sha256:{hashlib.sha256(content).hexdigest()}" != diff:
                    raise refused_pull("the image", f"invalid diffID for layer {count}")
                self.chains[diffs[:count]] = content
            identifier = f"sha256:{hashlib.sha256(raw).hexdigest()}"
            self.configurations[identifier] = raw
            self.names |= dict.fromkeys(listed["RepoTags"], identifier)

    def inspect(self, reference: str) -> ImageFacts | None:
        identifier = self.names.get(reference, reference)
        if identifier not in self.configurations:
            return None
        said = json.loads(self.configurations[identifier])
        labels = said["config"].get("Labels") or {}
        layers = tuple(said["rootfs"]["diff_ids"])
        tags = tuple(name for name, of in self.names.items() if of == identifier)
        size = sum(len(self.chains[layers[: n + 1]]) for n in range(len(layers)))
        return ImageFacts(identifier, tags, (), labels, {}, "", (), (), size, "", "amd64", layers)

    def images(self, label: str) -> tuple[ImageFacts, ...]:
        name, equals, value = label.partition("=")
        found = [self.inspect(identifier) for identifier in self.configurations]
        return tuple(one for one in found if one and name in one.labels and (not equals or one.labels[name] == value))

    def tags(self, repository: str) -> frozenset[str]:
        return frozenset(name for name in self.names if name.startswith(f"{repository}:"))

    def tag(self, reference: str, new: str) -> None:
        self.names[new] = self.names.get(reference, reference)

    def untag(self, reference: str, *, force: bool = False) -> bool:
        identifier = self.names.pop(reference, reference)
        if identifier not in self.names.values():
            self.configurations.pop(identifier, None)
        used = [tuple(json.loads(raw)["rootfs"]["diff_ids"]) for raw in self.configurations.values()]
        kept = {diffs[: n + 1] for diffs in used for n in range(len(diffs))}
        self.chains = {chain: content for chain, content in self.chains.items() if chain in kept}
        return True

    @contextmanager
    def save(self, reference: str) -> Iterator[Iterator[bytes]]:
        """As `docker save` writes it."""
        self.saves += 1
        facts = self.inspect(reference)
        assert facts is not None
        layers = {diff: self.chains[facts.layers[: n + 1]] for n, diff in enumerate(facts.layers)}
        blobs = {**layers, facts.id: self.configurations[facts.id]}
        yield iter([tar_of({f"blobs/sha256/{digest[7:]}": content for digest, content in blobs.items()})])


def _unpacked(content: bytes) -> bytes:
    if not content.startswith(_ZSTD):
        return content
    out = io.BytesIO()
    process.pump(["zstd", "-dcq"], [content], out.write)
    return out.getvalue()
