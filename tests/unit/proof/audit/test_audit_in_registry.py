"""`invoke audit` of an image in a registry: when it is read there, and what is said of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from images.core import CheckFailed, EngineUnreachable, Report, UsageError
from images.proof.audit.target import FromRegistry, audit_command
from images.registry import Repository
from tests.helpers.elf_files import PTX, Code, container, library, sm
from tests.helpers.registries import FakeRegistry, registry
from tests.helpers.remote_images import LARGE, NOISE, Files, gzipped, plain, put_image

FILES: Files = {
    "opt/site-packages/torch/good.so": library([sm(75, 86)]),
    "opt/site-packages/vllm/flash.so": library([sm(80)]),
    "opt/site-packages/vllm/jit.so": library([container(Code(75), Code(75, PTX, version=(8, 4)))]),
}


class Shop:
    """A registry with one image, and the command with it. ``err`` and ``out`` are what was printed."""

    def __init__(self, host: str, shelf: FakeRegistry) -> None:
        self.name, self.shelf = f"{host}/team/thing:v1", shelf
        self.err, self.out = io.StringIO(), io.StringIO()
        self.digest = put_image(shelf, "v1", [gzipped(FILES)])
        self._asked = partial(FromRegistry, partial(Repository, sleep=lambda _: None))

    def audit(self, *archs: str, **options: object) -> list[str]:
        """The lines on stderr."""
        ways = {name: options.pop(name) for name in ("always", "platform", "whole") if name in options}
        told: dict[str, object] = {"json": False, **options}
        report = Report(self.out, self.err, live=False)
        audit_command(self.name, archs, report=report, registry=self._asked(**ways), **told)  # type: ignore[arg-type]
        return self.err.getvalue().splitlines()


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    engine(monkeypatch, None)
    with registry() as (host, shelf):
        yield Shop(host, shelf)


def engine(monkeypatch: pytest.MonkeyPatch, has: str | None) -> None:
    """An engine that has one image; None: none answers, and none may be started."""

    class Engine:
        def inspect(self, reference: str) -> object | None:
            return object() if reference == has else None

    def connect(*, start: bool = True) -> Engine:
        assert not start
        if has is None:
            raise EngineUnreachable("no engine")
        return Engine()

    monkeypatch.setattr("images.docker.connection.connect", connect)


def test_it_is_read_where_it_lies(shop: Shop) -> None:
    lines = shop.audit()
    assert "torch/good.so" in shop.out.getvalue()
    assert any(f"{shop.digest}, linux/amd64: " in line and "layers: 1 whole (gzip)" in line for line in lines)
    assert lines[-1].startswith(f"next: ./inv audit {shop.name} --arch 7.5")


def test_a_card_that_lacks_code_fails(shop: Shop) -> None:
    with pytest.raises(CheckFailed, match=r"1 of 3 libraries lack code for 7\.5"):
        shop.audit("7.5")
    lines = shop.audit("7.5", excepted=["vllm/flash.so"])
    assert "--except vllm/flash.so: 1 files are not asked for" in lines
    assert lines[-1].startswith(f"next: docker pull {shop.name.removesuffix(':v1')}@{shop.digest}")
    assert shop.audit("7.5", excepted=["opt/*/flash.so"])


def test_ptx_counts_or_not(shop: Shop) -> None:
    assert shop.audit("8.6")
    with pytest.raises(CheckFailed, match=r"1 of 3 libraries have PTX alone for some code on 8\.6, 8\.9") as raised:
        shop.audit("8.6", "8.9", native=True)
    assert "opt/site-packages/vllm/jit.so" in raised.value.cause
    assert shop.audit("7.5", native=True, excepted=["vllm/flash.so"])
    for option in ({"native": True}, {"excepted": ["x"]}):
        with pytest.raises(UsageError, match="for cards that are named"):
            shop.audit(**option)


def test_json_says_what_was_read(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.audit(json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["registry"]["digest"] == shop.digest
    assert [row["name"] for row in said["libraries"]] == sorted(FILES)
    assert said["target"] == shop.name


def test_what_has_no_digest_is_told(shop: Shop) -> None:
    put_image(shop.shelf, "v1", [plain({"lib/large.so": LARGE, "etc/noise": NOISE})])
    assert any("of 1 layers parts were read that have no digest" in line for line in shop.audit())
    shop.err.truncate(0)
    assert not any("no digest" in line for line in shop.audit(whole=True))


def test_an_image_that_the_engine_has_is_read_there(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, shop.name)
    monkeypatch.setattr("images.proof.audit.target.audit_target", _found_in_engine)
    lines = shop.audit()
    assert any("the engine has it" in line for line in lines)
    assert shop.shelf.asked == []
    shop.audit(always=True)
    assert shop.shelf.asked


def _found_in_engine(target: str) -> object:
    from images.device_code.audit import Audit

    return Audit(target)


@pytest.mark.parametrize("ways", [{"always": True}, {"platform": "linux/amd64"}, {"whole": True}])
@pytest.mark.parametrize("name", ["vllm/vllm-openai:v1", "thing", "./thing"])
def test_a_name_without_a_registry_is_told(shop: Shop, name: str, ways: dict[str, object]) -> None:
    shop.name = name
    with pytest.raises(UsageError, match="names no registry") as raised:
        shop.audit(**ways)
    assert "docker.io/" in raised.value.do


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name: f"{name}@sha256:x", "is no image's name"),
        (lambda name: name.replace(":v1", ":-v"), "is no image's name"),
        (lambda name: name.replace("team", "TEAM"), "is not a repository"),
        (lambda name: name.replace(":v1", ":v2"), "has no v2"),
    ],
)
def test_names_that_are_none(shop: Shop, change: Callable[[str], str], words: str) -> None:
    shop.name = change(shop.name)
    with pytest.raises(UsageError, match=words):
        shop.audit()
