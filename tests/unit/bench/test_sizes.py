"""Layers are known by their bytes, packed once, and added up right."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import layers as layer_sizes
from bench.layers import Packed, Sizes, gzip_size, packed_layers
from bench.sizes import PackedImage, bytes_to_fetch, named_layers, rows_of, untouched_sizes
from bench.stages import Workbench
from images.core.errors import CardstockError, UsageError
from images.docker.engine import Engine
from images.matrix.reader import parse_matrix
from images.matrix.variants import Variant, make_variants

ROOT = Path(__file__).parents[3]
BASE, TOP = b"base " * 40000, bytes(range(256)) * 200


def diff_id(layer: bytes) -> str:
    return f"sha256:{hashlib.sha256(layer).hexdigest()}"


def saved(*layers: bytes, names: str = "{digest}/layer.tar") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in [("manifest.json", b"[]"), *((names.format(digest=diff_id(x)[7:]), x) for x in layers)]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


class FakeEngine:
    """An engine with one image, which counts how often it is saved."""

    def __init__(self, *layers: bytes) -> None:
        self.layers, self.saves = layers, 0

    def inspect(self, reference: str) -> Any:
        return SimpleNamespace(layers=tuple(map(diff_id, self.layers))) if reference == "here" else None

    @contextmanager
    def save(self, reference: str) -> Iterator[Iterator[bytes]]:
        self.saves += 1
        content = saved(*self.layers)
        yield (content[at : at + 1000] for at in range(0, len(content), 1000))


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """zstd is a program: here it is said to halve."""
    monkeypatch.setattr(layer_sizes, "zstd_size", lambda file: file.stat().st_size // 2)


@pytest.mark.usefixtures("half")
def test_a_layer_is_packed_once_and_known_by_its_bytes(tmp_path: Path) -> None:
    engine = FakeEngine(BASE, TOP)
    file = tmp_path / "build/layers.json"
    sizes = Sizes(cast("Engine", engine), file)
    found = sizes.of("here")
    assert list(found) == [diff_id(BASE), diff_id(TOP)]
    assert found[diff_id(BASE)].tar == len(BASE)
    assert found[diff_id(TOP)].zstd == len(TOP) // 2
    assert Sizes(cast("Engine", engine), file).of("here") == found
    assert engine.saves == 1
    with pytest.raises(CardstockError, match="no image there"):
        sizes.of("there")


@pytest.mark.usefixtures("half")
def test_an_environment_is_installed_once_for_the_same_inputs(tmp_path: Path, variants: dict[str, Variant]) -> None:
    hashes, made = iter(["a", "a", "b"]), list[str]()

    class Bench:
        def job(self, variant: Variant) -> Any:
            return SimpleNamespace(input_hash=next(hashes))

        @contextmanager
        def stage(self, variant: Variant, stage: str) -> Iterator[str]:
            made.append(stage)
            yield "here"

    bench, chosen = cast("Workbench", Bench()), next(iter(variants.values()))
    layers = [
        untouched_sizes(bench, Sizes(cast("Engine", FakeEngine(b"one", b"two")), tmp_path / "sizes"), chosen, "venv")
        for _ in range(3)
    ]
    assert layers[0] == layers[1] == layers[2] and len(layers[0]) == 2
    assert made == ["venv", "venv"]


def test_a_run_that_is_stopped_goes_on_behind_the_layers_it_has_packed(tmp_path: Path) -> None:
    class Breaking(FakeEngine):
        @contextmanager
        def save(self, reference: str) -> Iterator[Iterator[bytes]]:
            self.saves += 1
            content = saved(*self.layers)
            yield iter([content[: content.index(TOP)]])

    file = tmp_path / "layers.json"
    with pytest.raises(tarfile.TarError):
        Sizes(cast("Engine", Breaking(BASE, TOP)), file).of("here")
    kept = json.loads(file.read_text())
    assert list(kept) == [diff_id(BASE)]


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize("names", ["{digest}/layer.tar", "blobs/sha256/{digest}"])
def test_members_may_be_named_in_any_way_and_known_layers_are_passed_over(names: str) -> None:
    @contextmanager
    def save() -> Iterator[list[bytes]]:
        yield [saved(BASE, TOP, names=names)]

    found = packed_layers(save, [diff_id(BASE), diff_id(TOP)], {diff_id(BASE): Packed(1, 1, 1)})
    assert [layer for layer, _ in found] == [diff_id(TOP)]
    with pytest.raises(CardstockError, match="1 layers did not come"):
        list(packed_layers(save, [diff_id(b"other")], {}))


def test_sizes_are_those_of_the_real_forms(tmp_path: Path) -> None:
    file = tmp_path / "layer"
    file.write_bytes(BASE + TOP)
    packed = tmp_path / "layer.gz"
    with gzip.open(packed, "wb", compresslevel=layer_sizes.GZIP_LEVEL) as out:
        out.write(BASE + TOP)
    # gzip's own header has the file's name and time; the rest is the same.
    assert abs(gzip_size(file) - packed.stat().st_size) < 32


def test_without_the_program_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="zstd"):
        layer_sizes.zstd_size(tmp_path / "layer")


@pytest.fixture(scope="module")
def variants() -> dict[str, Variant]:
    return make_variants(parse_matrix((ROOT / "matrix.yaml").read_text(), "matrix.yaml")).valid


NAMES = {
    "vllm": ["os", "libraries", "torch", "triton", "compiler", "rest", "card-torch", "card-rest", "rootfs"],
    "transformers": ["os", "libraries", "torch", "rest", "card-torch", "card-rest", "rootfs"],
    "cpu": ["os", "libraries", "torch", "rest", "rootfs"],
}


def image(variant: Variant, *own: tuple[str, int]) -> PackedImage:
    """An image with these layers, each id its layer's name up to a "@"."""
    sizes = {name: Packed(10 * size, 2 * size, size) for name, size in own}
    venv = Packed(10 * 5_000_000_000, 2 * 5_000_000_000, 5_000_000_000)
    whole = Packed(10 * 140, 2 * 140, 140)
    names = {layer: layer.partition("@")[0] for layer in sizes}
    return PackedImage(variant, sizes, {"os": sizes["os"], "venv": venv}, {"os": sizes["os"], "whole": whole}, names)


def test_the_untouched_environment_stands_for_the_images_own(variants: dict[str, Variant]) -> None:
    weights = {"os": 1, "libraries": 100, "torch": 20, "triton": 4, "compiler": 7, "rest": 6, "card-torch": 15}
    weights |= {"card-rest": 5, "rootfs": 2}

    def made(name: str, kind: str) -> PackedImage:
        return image(variants[name], *((layer, weights[layer]) for layer in NAMES[kind]))

    vllm = made("cu124-vllm0.8.5.post1-xformers-sm75", "vllm")
    assert (vllm.after.zstd, vllm.of_nvidia.zstd) == (160, 100)
    assert vllm.before.zstd == 1 + 140 + 7 + 5_000_000_000 + 2
    sdpa = made("cu124-transformers5.24.0-sdpa-sm75", "transformers")
    assert sdpa.before.zstd == 1 + 140 + 5_000_000_000 + 2
    cpu = made("cpu-vllm0.32.0-sdpa", "cpu")
    assert cpu.before.zstd == 1 + 140 + 5_000_000_000 + 2


def test_an_image_that_is_also_built_whole_has_rows_of_that(variants: dict[str, Variant]) -> None:
    one = image(variants["cpu-vllm0.32.0-sdpa"], *((layer, 1_000_000) for layer in NAMES["cpu"]))
    told = [row.measures for row in rows_of([one])]
    whole = list(rows_of([replace(one, whole=Packed(90_000_000, 20_000_000, 10_000_000))]))
    added = {row.measures: row.ours for row in whole if row.measures not in told}
    assert added == {
        "cpu-vllm0.32.0-sdpa-whole: all, zstd": 10.0,
        "cpu-vllm0.32.0-sdpa-whole: all, gzip": 20.0,
        "cpu-vllm0.32.0-sdpa-whole: all, unpacked": 90.0,
    }


def test_layers_have_the_names_that_the_image_tells_and_the_base_is_of_the_lowest() -> None:
    assert named_layers("os libraries seal", ["a", "b", "c", "d"]) == {
        "a": "os",
        "b": "os",
        "c": "libraries",
        "d": "seal",
    }
    for told, cause in (("", "before images named their layers"), ("os a b c d", "os a b c d")):
        with pytest.raises(UsageError, match="4 layers") as caught:
            named_layers(told, ["a", "b", "c", "d"])
        assert cause in str(caught.value.cause)


def test_the_empty_layer_of_a_workdir_takes_no_name_from_the_others() -> None:
    empty = "sha256:" + hashlib.sha256(bytes(2 * 512)).hexdigest()  # the two blocks that end a tar, and nothing else
    found = named_layers("os libraries seal", ["a", "b", "c", "d", empty])
    assert (found["a"], found["c"], found["d"], found[empty]) == ("os", "libraries", "seal", "seal")


def test_a_second_card_costs_what_comes_behind_the_first_difference(variants: dict[str, Variant]) -> None:
    own = [("os", 1), ("libraries", 100), ("torch", 9), ("rest", 30), ("card-rest@75", 20), ("rootfs", 2)]
    first = image(variants["cu124-transformers5.24.0-sdpa-sm75"], *own)
    card = [*own[:4], ("card-rest@86", 25_000_000), ("rootfs", 2)]
    second = image(variants["cu124-transformers5.24.0-sdpa-sm86"], *card)
    assert bytes_to_fetch(second.own, first.own).zstd == 25_000_002
    assert bytes_to_fetch(second.own, first.own, by_digest=True).zstd == 25_000_000
    rows = [row for row in rows_of([first, second]) if "on a host with cu" in row.measures and "zstd" in row.measures]
    assert [row.ours for row in rows] == [pytest.approx(25.000002), pytest.approx(25.0)]
    assert [row.headline for row in rows] == [True, False]
    other_stack = image(variants["cu121-transformers5.13.1-sdpa-sm75"], ("os", 1), ("libraries@121", 90), *own[2:])
    assert not any("on a host with cu" in row.measures for row in rows_of([first, other_stack]))


def test_a_newer_engine_on_the_same_torch_costs_what_lies_above_torch(variants: dict[str, Variant]) -> None:
    weights = dict(zip(NAMES["vllm"], (1, 100, 20, 4, 7, 60, 15, 5, 2), strict=True))
    sizes = ((name, weight * 1_000_000) for name, weight in weights.items())
    one = image(variants["cu124-vllm0.8.5.post1-xformers-sm75"], *sizes)
    rows = [row for row in rows_of([one]) if "an older engine" in row.measures and row.measures.endswith("zstd")]
    assert [(row.ours, row.peer) for row in rows] == [(60 + 15 + 5 + 2, 214), (60 + 5 + 2, 214)]
    assert "classic store" in rows[0].measures
    cpu = image(variants["cpu-vllm0.32.0-sdpa"], *((name, 1_000_000) for name in NAMES["cpu"]))
    assert [row.ours for row in rows_of([cpu]) if "an older engine" in row.measures] == [2.0, 4.0, 2.0, 4.0]


def test_another_engine_on_the_same_torch_costs_what_is_not_torchs(variants: dict[str, Variant]) -> None:
    below = [("os", 1), ("libraries", 100), ("torch", 9)]
    sdpa = image(
        variants["cu124-transformers5.24.0-sdpa-sm75"], *below, ("rest@a", 30), ("card-torch", 40), ("seal", 1)
    )
    vllm = image(
        variants["cu124-vllm0.8.5.post1-xformers-sm75"], *below, ("triton", 5), ("rest@b", 60), ("card-torch", 40)
    )
    rows = [row for row in rows_of([sdpa, vllm]) if "on a host with cu" in row.measures and "zstd" in row.measures]
    assert [row.ours for row in rows] == [pytest.approx(0.000105), pytest.approx(0.000065)]
    assert not any(row.headline for row in rows)
