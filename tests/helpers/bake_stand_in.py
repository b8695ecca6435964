"""Stands in for `docker buildx bake`: reads bake files as they are written, and leaves images in a folder.

An image is its labels and its layers' text; its id is the digest of the configuration that `configuration` makes of
them. Only what the commands of Cardstock ask for is understood. A file "fails" in the folder has the words of a build
that breaks; a file "leaves nothing" stands for one that ends well and makes no image. What was asked for is in
"asked.json": each target, with the files of the folders that it is given. A target that leaves files leaves "made".
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def configuration(image: dict[str, Any]) -> bytes:
    """An image's configuration, as registries and engines keep it."""
    layers = [digest(layer.encode()) for layer in image["layers"]]
    return json.dumps({"config": {"Labels": image["labels"]}, "rootfs": {"diff_ids": layers}}).encode()


class Images:
    """The images of a folder: their names, and what is in them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "images.json"
        told = json.loads(self._file.read_text()) if self._file.is_file() else {"names": {}, "content": {}}
        self.names: dict[str, str] = told["names"]
        self.content: dict[str, dict[str, Any]] = told["content"]

    def add(self, labels: dict[str, str], layers: list[str], *names: str) -> str:
        """Make an image, and give it names; its id."""
        image = {"labels": labels, "layers": layers}
        identifier = digest(configuration(image))
        self.content[identifier] = image
        self.names |= dict.fromkeys(names, identifier)
        return identifier

    def save(self) -> None:
        self._file.write_text(json.dumps({"names": self.names, "content": self.content}))


def listed(where: str) -> list[str]:
    return sorted(path.name for path in Path(where).iterdir()) if Path(where).is_dir() else []


def bake(folder: Path, files: list[Path], wanted: list[str]) -> None:
    """Make the images of these targets, later files over earlier ones."""
    targets: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, target in json.loads(file.read_text()).get("target", {}).items():
            targets.setdefault(name, {}).update(target)
    images = Images(folder)
    contexts = {name: targets[name].get("contexts", {}) for name in wanted}
    given = {name: {key: listed(where) for key, where in contexts[name].items()} for name in wanted}
    asked = {name: targets[name] | {"given": given[name]} for name in wanted}
    (folder / "asked.json").write_text(json.dumps(asked))
    for name in wanted:
        target = targets[name]
        for output in target.get("output", []):
            if output.startswith("type=local,dest="):
                Path(output.partition("dest=")[2], "made").write_text(name)
        source = target.get("contexts", {}).get("built", "").removeprefix("docker-image://")
        base = images.content.get(images.names.get(source, ""), {"labels": {}, "layers": [f"base of {name}"]})
        layers = list(base["layers"])
        if "COPY" in target.get("dockerfile-inline", ""):
            context = Path(target["context"])
            layers += [path.read_text() for path in sorted(context.rglob("*")) if path.is_file()]
        labels = {**base["labels"], **target.get("labels", {})}
        images.add(labels, layers, *target.get("tags", []))
        print(f"#1 [{name} 1/1] RUN the build\n#1 0.1 it begins\n#1 DONE 2.0s")
    images.save()


def main(folder: Path, words: list[str]) -> int:
    if (folder / "fails").is_file():
        print((folder / "fails").read_text())
        return 1
    assert words[:3] == ["buildx", "bake", "--progress=plain"], words
    files = [Path(words[at + 1]) for at, word in enumerate(words) if word == "-f"]
    rest = [word for at, word in enumerate(words) if at > 2 and word != "-f" and words[at - 1] != "-f"]
    if not (folder / "leaves nothing").exists():
        bake(folder, files, rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
