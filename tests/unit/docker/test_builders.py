"""Builders of buildx without buildx: what is read of its words, what is handed over, what an error is about."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from images.core import process
from images.core.errors import CardstockError, CheckFailed, EngineUnreachable, RegistryFailure, Unsafe, UsageError
from images.docker.builders import Builder, carried, driver_of, explained, find_builder, last_words, pushed_digests
from images.docker.engine import Engine

FAR = Builder("far", "remote", {})
TO, CACHE = "registry.example.com/team/qwen", "registry.example.com/team/cache"
DIGEST = f"sha256:{'a' * 64}"
TOLD = "Name:   far\nDriver: docker-container\n\nNodes:\nName: far0\n"


class Buildx:
    """Stands in for `docker buildx inspect`: its answers, or its errors, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.asked: list[list[str]] = []
        self.environment: dict[str, str] = {}
        self._answers = list(answers)
        monkeypatch.setattr(process, "run", self.run)

    def run(self, argv: list[str], *, env: dict[str, str], timeout: float) -> process.Finished:
        self.asked.append(argv)
        self.environment = env
        said = self._answers.pop(0)
        if said.startswith("ERROR"):
            raise process.ProcessFailed(argv, 1, said)
        return process.Finished(tuple(argv), 0, said, "")


class FakeEngine:
    """An engine with a CLI of its own, which saves images as these members."""

    def __init__(self, members: dict[str, bytes] | None = None) -> None:
        self.members = members or {}

    def cli_env(self) -> dict[str, str]:
        return {"DOCKER_CONFIG": "/of/the/project", "DOCKER_HOST": "unix:///x"}

    @contextmanager
    def save(self, reference: str) -> Iterator[Iterator[bytes]]:
        assert reference == "cardstock/base:x"
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, content in self.members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        content = packed.getvalue()
        yield iter([content[:700], content[700:]])


def engine(members: dict[str, bytes] | None = None) -> Engine:
    return cast(Engine, FakeEngine(members))


# -- finding


def test_a_builder_is_found_in_the_users_own_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BUILDX_CONFIG", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    said = Buildx(monkeypatch, TOLD, TOLD)
    found = find_builder("far", engine())
    assert (found.name, found.driver) == ("far", "docker-container")
    assert said.asked[1] == ["docker", "buildx", "inspect", "far", "--bootstrap"]
    # The engine's CLI has another configuration; builders are those of the user's.
    assert said.environment["BUILDX_CONFIG"] == str(Path.home() / ".docker/buildx")
    assert found.environment["BUILDX_NO_DEFAULT_ATTESTATIONS"] == "1"


@pytest.mark.parametrize(
    ("answers", "kind", "what"),
    [
        (['ERROR: no builder "far" found'], UsageError, "there is no builder far"),
        (["ERROR: permission denied"], EngineUnreachable, "the builder far cannot be asked"),
        (["Name: x\nDriver: docker\n"], UsageError, "--builder far: it is an engine's own builder"),
        ([TOLD, "ERROR: context deadline exceeded"], EngineUnreachable, "(driver docker-container) does not answer"),
    ],
)
def test_what_is_not_found(monkeypatch: pytest.MonkeyPatch, answers: list[str], kind: type, what: str) -> None:
    Buildx(monkeypatch, *answers)
    with pytest.raises(CardstockError) as caught:
        find_builder("far", engine())
    assert isinstance(caught.value, kind) and what in caught.value.what and "docker buildx" in caught.value.do


@pytest.mark.parametrize("name", ["", "-x", "a b", "--driver=x", "a/b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="is no builder's name"):
        find_builder(name, engine())


def test_what_is_read_of_its_words() -> None:
    assert driver_of(TOLD) == "docker-container" and driver_of("Name: far\n") == ""
    said = "#1 waiting\n------\n > [internal] waiting for connection:\n------\nERROR: context deadline exceeded\n"
    assert last_words(said) == "ERROR: context deadline exceeded"
    assert last_words("") == "it said nothing"


# -- why it broke

SAID = {
    "push": (
        f'ERROR: failed to push {TO}: failed to do request: Head "https://registry.example.com": connection refused',
        RegistryFailure, f"could not push to {TO}", "is reached from the machine where far runs",
    ),
    "login": (
        f"ERROR: failed to push {TO}: failed to authorize: 401 Unauthorized",
        RegistryFailure, f"could not push to {TO}", "docker login registry.example.com",
    ),
    "denied": (
        "ERROR: push access denied, repository does not exist or may require authorization: insufficient_scope",
        RegistryFailure, f"could not push to {TO}", "docker login registry.example.com",
    ),
    "cache": (
        f"ERROR: error writing layer blob: failed to push to {CACHE}: 403 Forbidden",
        RegistryFailure, f"could not push to {CACHE}", "docker login registry.example.com",
    ),
    "base": (
        "ERROR: failed to resolve source metadata for docker.io/library/debian@sha256:a: failed to do request: EOF",
        RegistryFailure, "could not fetch docker.io/library/debian@sha256:a", "bases: packages",
    ),
    "gone": (
        'ERROR: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF',
        EngineUnreachable, "the builder far went away during the build", "--bootstrap",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("said", "kind", "what", "do"), SAID.values(), ids=SAID)
def test_what_a_broken_build_is_about(said: str, kind: type, what: str, do: str) -> None:
    error = explained(FAR, CheckFailed("the build broke", cause=said, where="build/logs/x.log"), TO, CACHE)
    assert isinstance(error, kind) and what in error.what and do in error.do
    assert error.cause == said and error.where == "build/logs/x.log"


def test_a_step_that_broke_stays_what_it_is() -> None:
    error = CheckFailed("the build broke", cause='process "/run/build/venv-install" did not complete: exit code: 1')
    assert explained(FAR, error, TO, CACHE) is error


# -- what goes to a builder, and what comes from it

INDEX = json.dumps({"manifests": [{"digest": DIGEST}]}).encode()
LAYOUT = {"oci-layout": b"{}", "index.json": INDEX, f"blobs/sha256/{'a' * 64}": b"x" * 3000}


def test_an_image_that_only_the_engine_has_goes_along(tmp_path: Path) -> None:
    contexts = (("base", "docker-image://cardstock/base:x"), ("devel", f"docker-image://a@{DIGEST}"), ("k", "/folder"))
    members = {**LAYOUT, "manifest.json": b"[]", "../../outside": b"x", "blobs/sha256/../x": b"x"}
    made = carried(contexts, engine(members), tmp_path / "in")
    assert made == (("base", f"oci-layout://{tmp_path}/in/base@{DIGEST}"), *contexts[1:])
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {f"in/base/{name}" for name in LAYOUT}  # and nothing that points out of it


@pytest.mark.parametrize(
    ("members", "kind", "what"),
    [
        ({"manifest.json": b"[]"}, EngineUnreachable, "cannot be handed to a builder"),
        ({"index.json": b'{"manifests": []}'}, Unsafe, "no image's layout"),
        ({"index.json": json.dumps({"manifests": [{"digest": "sha256:x@y"}]}).encode()}, Unsafe, "no image's layout"),
        ({"index.json": INDEX.replace(b"]", b", {}]")}, Unsafe, "no image's layout"),
    ],
)
def test_what_is_no_layout(tmp_path: Path, members: dict[str, bytes], kind: type, what: str) -> None:
    with pytest.raises(kind, match=what):
        carried((("base", "docker-image://cardstock/base:x"),), engine(members), tmp_path / "in")


def test_what_was_pushed(tmp_path: Path) -> None:
    file = tmp_path / "pushed.json"
    file.write_text(json.dumps({"a": {"containerimage.digest": DIGEST}, "b": {}}))
    assert pushed_digests(file, ["a"]) == {"a": DIGEST}
    with pytest.raises(CardstockError, match="did not say what it pushed for b"):
        pushed_digests(file, ["a", "b"])
