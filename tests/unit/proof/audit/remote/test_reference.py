"""Names of images in registries."""

from __future__ import annotations

import pytest

from images.core import UsageError
from images.proof.audit.remote.reference import parse_image_name

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("text", "repository", "reference"),
    [
        ("docker.io/vllm/vllm-openai:v0.8.5", "docker.io/vllm/vllm-openai", "v0.8.5"),
        ("docker.io/ubuntu", "docker.io/ubuntu", "latest"),
        ("localhost/a", "localhost/a", "latest"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b", "latest"),
        ("[::1]:5000/a:b", "[::1]:5000/a", "b"),
        (f"ghcr.io/me/app@{DIGEST}", "ghcr.io/me/app", DIGEST),
        (f"ghcr.io/me/app:v1@{DIGEST}", "ghcr.io/me/app", DIGEST),
    ],
)
def test_names(text: str, repository: str, reference: str) -> None:
    name = parse_image_name(text)
    assert name is not None
    assert (name.text, name.repository, name.reference) == (text, repository, reference)


@pytest.mark.parametrize("text", ["ubuntu", "ubuntu:22.04", "vllm/vllm-openai:v1", "./x", "../x/y", "", "/abs/path"])
def test_what_names_no_registry(text: str) -> None:
    assert parse_image_name(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "a.b/c@sha512:00",
        f"a.b/c@{DIGEST}0",
        "a.b/c:",
        "a.b/c@",
        "a.b/c:.x",
        "a.b/c:x y",
        "a.b/C",
        "a.b/",
        f"a.b/{'c' * 2000}",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError):
        parse_image_name(text)
