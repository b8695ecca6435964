"""Containers that stay, and volumes, by what docker-py is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from images.core.errors import CardstockError
from images.docker.containers import Containers
from images.docker.docker_py import docker, translated


class Client:
    """What of docker-py's client is asked: a container "there" with a folder /cache, and volumes by name."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] = {}
        self.ended: list[str] = []

    @property
    def containers(self) -> Any:
        return self

    volumes = containers

    def get(self, name: str) -> Any:
        if name not in ("there", *self.known):
            raise docker.errors.NotFound("no such thing")
        return type("Found", (), {"get_archive": self.get_archive, "remove": lambda: self.known.pop(name)})

    def get_archive(self, path: str) -> tuple[Iterator[bytes], dict[str, str]]:
        if path == "/cache/broken":
            raise docker.errors.APIError("x", explanation="no space")
        if path != "/cache":
            raise docker.errors.NotFound("no such path")
        return self._chunks(), {}

    def _chunks(self) -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            self.ended.append("let go")

    def create(self, name: str, labels: dict[str, str]) -> None:
        self.known[name] = labels


def test_a_folder_of_a_container_comes_in_chunks_and_is_let_go() -> None:
    client = Client()
    containers = Containers(client, translated)
    with containers.archive("there", "/cache") as chunks:
        assert chunks is not None and next(chunks) == b"a"
        assert client.ended == []
    assert client.ended == ["let go"]
    with containers.archive("there", "/none") as chunks:
        assert chunks is None
    with (
        pytest.raises(CardstockError, match=r"(?s)/cache/broken of there could not be read.*no space"),
        containers.archive("there", "/cache/broken"),
    ):
        pass


def test_a_volume_is_made_with_its_labels_and_removed_once() -> None:
    client = Client()
    containers = Containers(client, translated)
    containers.make_volume("one", {"a": "b"})
    assert client.known == {"one": {"a": "b"}}
    containers.remove_volume("one")
    containers.remove_volume("one")
    assert client.known == {}
