"""The environment that a measurement works on: a named folder as it is, or out of an image's file system."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from bench.stages import ONLY, VARIABLE, Workbench, unpack_site, untouched_site
from images.core.errors import UsageError
from images.core.report import Report
from images.core.site import SiteSettings
from images.docker.engine import Engine
from images.render.checkout import Checkout

SITE = "opt/venv/lib/python3.11/site-packages"


class Exporting:
    """An engine that has one image's file system."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @contextmanager
    def export_tar(self, reference: str) -> Iterator[Iterator[bytes]]:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in self.names:
                entry = tarfile.TarInfo(name)
                entry.size = len(name)
                tar.addfile(entry, io.BytesIO(name.encode()))
            link = tarfile.TarInfo(f"{SITE}/torch/lib/liblink.so")
            link.type, link.linkname = tarfile.SYMTYPE, "libtorch.so"
            tar.addfile(link)
        yield iter([packed.getvalue()])


def test_site_packages_come_out_of_an_image_and_nothing_else(tmp_path: Path) -> None:
    engine = Exporting("etc/passwd", f"{SITE}/torch/lib/libtorch.so", "opt/venv/bin/python")
    unpack_site(cast("Engine", engine), "an-image", tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert found == {"torch/lib/libtorch.so", "torch/lib/liblink.so"}


def test_nothing_comes_out_beside_the_folder(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack_site(cast("Engine", Exporting(f"{SITE}/../../outside")), "an-image", site)
    assert list(tmp_path.rglob("*")) == [site]


def test_a_named_folder_is_taken_as_it_is_and_not_ours_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with untouched_site(Checkout(tmp_path)) as (site, ours):
        assert (site, ours) == (tmp_path, False)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="there is no folder"), untouched_site(Checkout(tmp_path)):
        pass


def test_built_variants_are_those_with_an_image_and_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Having:
        def inspect(self, reference: str) -> object | None:
            return object() if reference.endswith("-sm75") else None

    checkout = Checkout(Path(__file__).parents[3])
    bench = Workbench(checkout, checkout.matrix(), cast("Engine", Having()), SiteSettings(), Report())
    monkeypatch.delenv(ONLY, raising=False)
    every = [variant.id for variant in bench.built()]
    assert "cu124-vllm0.8.5.post1-xformers-sm75" in every
    assert all(name.endswith("-sm75") for name in every)
    monkeypatch.setenv(ONLY, "cu124-vllm*")
    assert [variant.id for variant in bench.built()] == ["cu124-vllm0.8.5.post1-xformers-sm75"]
