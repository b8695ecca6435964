"""Compiling with the engine's builder: what it is asked for, and what is left where it breaks."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from images.core import debian
from images.core.errors import CardstockError, CheckFailed
from images.core.report import Report
from images.core.site import SiteSettings
from images.kernels.compiler import JOBS, Compiler, build_arguments, empty_cache
from images.matrix.kernel import Kernel
from images.render import BAKE_FILE
from images.render.bakefile import KERNEL_BUILD, bake_file
from images.render.checkout import Checkout
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.matrices import matrix, variants


def xformers() -> Kernel:
    kernel = variants().valid["cu124-vllm0.8.5.post1-xformers-sm75"].kernel
    assert kernel is not None
    return kernel


class Builder:
    """A checkout that has the bake file and the build's own program, and an engine."""

    def __init__(self, folder: Path) -> None:
        self.root, self.engine, self.err = folder / "checkout", FakeEngine(folder / "engine"), io.StringIO()
        (self.root / KERNEL_BUILD).mkdir(parents=True)
        (self.root / KERNEL_BUILD / "build.py").write_text("")
        (self.root / BAKE_FILE).parent.mkdir(parents=True, exist_ok=True)
        (self.root / BAKE_FILE).write_text(bake_file(matrix(), [], [xformers()]))
        self.out = folder / "out"
        self.out.mkdir()

    def compiler(self, arguments: Mapping[str, str] | None = None, *, fresh: bool = False) -> Compiler:
        report = Report(io.StringIO(), self.err)
        engine = self.engine.as_engine
        return Compiler(Checkout(self.root), matrix(), engine, SiteSettings(), report, arguments or {}, fresh)

    def asked(self, target: str) -> dict[str, Any]:
        asked: dict[str, dict[str, Any]] = json.loads((self.engine.folder / "asked.json").read_text())
        return asked[target]


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setattr(debian, "host_mirror", lambda: None)
    return Builder(tmp_path)


def test_a_wheel_comes_into_the_folder(builder: Builder) -> None:
    builder.compiler({JOBS: "3"}).compile(xformers(), builder.out)
    assert [path.name for path in builder.out.iterdir()] == ["made"]
    asked = builder.asked(xformers().target)
    assert asked["args"] == {JOBS: "3"}
    assert asked["contexts"]["base"].startswith("docker-image://")
    assert f"compile {xformers().id}" in builder.err.getvalue()


def test_what_does_not_compile_is_told_with_the_compilers_words(builder: Builder) -> None:
    (builder.engine.folder / "fails").write_text("#9 1.0 fine\n#9 2.0 error: nvcc died")
    with pytest.raises(CheckFailed, match=r"xformers .* did not build; nothing was stored") as caught:
        builder.compiler().compile(xformers(), builder.out)
    assert "nvcc died" in caught.value.cause
    assert list(builder.out.iterdir()) == []


def test_a_fresh_build_is_given_another_program_than_any_before(builder: Builder) -> None:
    builder.compiler().compile(xformers(), builder.out)
    assert "stamp" not in builder.asked(xformers().target)["given"].get("kernel-build", [])
    builder.compiler(fresh=True).compile(xformers(), builder.out)
    assert builder.asked(xformers().target)["given"]["kernel-build"] == ["build.py", "stamp"]
    assert not (builder.root / KERNEL_BUILD / "stamp").exists()


def test_settings_of_a_cache_elsewhere_are_a_secret(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCCACHE_BUCKET", "theirs")
    builder.compiler().compile(xformers(), builder.out)
    asked = builder.asked(xformers().target)
    assert [word for word in asked["secret"] if word.startswith("id=sccache,src=")]
    assert "theirs" not in json.dumps(asked)


def test_too_little_memory_is_told_before_a_compiler_starts(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.compiler().check([xformers()])
    monkeypatch.setattr(builder.engine, "memory", 2 * 10**9)
    with pytest.raises(CardstockError, match=r"compiling xformers needs .* the engine has 2\.00 GB"):
        builder.compiler().check([xformers()])
    builder.compiler({JOBS: "1"}).check([xformers()])


def test_the_number_of_compilers_is_the_users() -> None:
    assert build_arguments({JOBS: "2", "PATH": "/bin"}) == {JOBS: "2"}
    assert build_arguments({JOBS: ""}) == {}


def test_a_cache_is_emptied_by_a_step_that_was_never_run(builder: Builder) -> None:
    empty_cache(builder.compiler(), "cardstock-sccache")
    first = builder.asked("empty")
    assert "--mount=type=cache,id=cardstock-sccache,target=/cache" in first["dockerfile-inline"]
    assert first["output"] == ["type=cacheonly"]
    empty_cache(builder.compiler(), "cardstock-sccache")
    assert builder.asked("empty")["args"] != first["args"]
