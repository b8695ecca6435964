"""vLLM finds the plugins of an image by their entry points; the one for FlashInfer on 7.5 with stand-ins of vLLM."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from images.core import process
from images.kernels.inside.jit_cache import INIT
from images.matrix import Variant
from tests.helpers.matrices import ROOT, variants
from tests.helpers.nonempty import nonempty

ROOTFS = ROOT / "dockerfiles" / "rootfs"
PLUGINS = ROOT / "dockerfiles" / "plugins"


def plugin_folder(variant: Variant) -> Path:
    place = dict(variant.env)["PYTHONPATH"]
    own = {f"/opt/cardstock/plugins/{name}": PLUGINS / name for name in variant.plugins}
    return own.get(place, ROOTFS / place.lstrip("/"))


def entry_points(folder: Path) -> list[tuple[str, str]]:
    found = [point for one in distributions(path=[str(folder)]) for point in one.entry_points]
    assert all("def register()" in (folder / f"{point.module}.py").read_text() for point in found)
    return [(point.group, point.value) for point in found]


def test_the_image_for_the_cpu_names_the_folder_of_its_plugin() -> None:
    cpu = next(v for v in variants().valid.values() if v.cuda is None)
    assert entry_points(plugin_folder(cpu)) == [("vllm.general_plugins", "cpu_int4:register")]


def test_the_image_with_flashinfers_kernels_names_the_folder_of_its_plugin() -> None:
    (variant,) = (v for v in variants().valid.values() if v.attention == "flashinfer")
    assert entry_points(plugin_folder(variant)) == [("vllm.general_plugins", "flashinfer_turing:register")]
    assert dict(variant.env)["CARDSTOCK_FLASHINFER"] == "7.5"


def is_v0_without_its_mend(variant: Variant) -> bool:
    """vLLM 0.7 is V0 with any attention, 0.8 with xformers, and 0.9 has the mend."""
    pins = dict(variant.pins)
    version = pins["vllm"].version if "vllm" in pins and variant.backend == "vllm" else ""
    return version.startswith("0.7.") or (version.startswith("0.8.") and variant.attention == "xformers")


def test_images_of_vllms_v0_have_the_plugin_for_positions_and_copy_it() -> None:
    having = nonempty(v for v in variants().valid.values() if v.plugins)
    assert {v.stack for v in having} == {"cu118", "cu121", "cu124"}
    assert {v.id for v in having} == {v.id for v in variants().valid.values() if is_v0_without_its_mend(v)}
    for variant in having:
        assert entry_points(plugin_folder(variant)) == [("vllm.general_plugins", "text_positions:register")]
        text = (ROOT / "dockerfiles/rendered" / variant.id / "Dockerfile").read_text()
        assert "COPY plugins/text_positions/ /opt/cardstock/plugins/text_positions/" in text
        assert " rootfs plugin class-facts seal" in text


def test_no_other_image_for_cards_loads_a_plugin() -> None:
    others = nonempty(v for v in variants().valid.values() if v.cuda is not None and v.attention != "flashinfer")
    assert not [v.id for v in others if "PYTHONPATH" in dict(v.env) and not v.plugins]


# -- positions of texts in vLLM's V0


class Rows:
    """As much of a tensor as vLLM's runner and the plugin use."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.shape = self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.values[part])

    def dim(self) -> int:
        return self.values.ndim

    def expand(self, rows: int, _: int) -> Rows:
        return Rows(np.broadcast_to(self.values, (rows, *self.values.shape)))

    def copy_(self, other: Rows) -> None:
        self.values[...] = other.values


class CUDAGraphRunner:
    """As vLLM's of 0.7.3 and 0.8.5 copies positions; ``replayed`` is what a graph would compute with."""

    def __init__(self, sequences: int) -> None:
        self.input_buffers = {"positions": Rows(np.zeros((3, sequences), dtype=int))}
        self.replayed: list[list[int]] = []

    def forward(self, input_ids: Any, positions: Rows | None, **_: Any) -> str:
        if positions is not None:
            self.input_buffers["positions"][: positions.shape[0]].copy_(positions)
        self.replayed = self.input_buffers["positions"].values.tolist()
        return f"states of {input_ids}"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CUDAGraphRunner]]:
    module: Any = ModuleType("vllm.worker.model_runner")
    module.CUDAGraphRunner = type("CUDAGraphRunner", (CUDAGraphRunner,), {"forward": CUDAGraphRunner.forward})
    monkeypatch.setitem(sys.modules, "vllm.worker.model_runner", module)
    monkeypatch.syspath_prepend(str(PLUGINS / "text_positions"))
    yield module.CUDAGraphRunner
    sys.modules.pop("text_positions", None)


@pytest.mark.parametrize("places", [[23], [23, 7], [23, 7, 30], [23, 7, 30, 4]])
def test_words_of_texts_are_placed_alike_in_all_three_ways(runner: type[CUDAGraphRunner], places: list[int]) -> None:
    import_module("text_positions").register()
    import_module("text_positions").register()  # once in each process, and in one twice
    graph = runner(len(places))
    assert graph.forward("words", Rows(places), extra=1) == "states of words"
    assert graph.replayed == [places] * 3


def test_the_runner_is_mended_when_it_is_imported_and_not_imported_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("vllm", "vllm/worker"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "vllm/worker/model_runner.py").write_text(
        "class CUDAGraphRunner:\n    def forward(self, input_ids, positions): return positions\n"
    )
    program = (
        "import sys, text_positions\n"
        "text_positions.register(); text_positions.register()\n"
        "print('vllm' in sys.modules, len([one for one in sys.meta_path if type(one).__name__ == '_Finder']))\n"
        "from vllm.worker.model_runner import CUDAGraphRunner\n"
        "text_positions.register()\n"
        "print(hasattr(CUDAGraphRunner.forward.__wrapped__, '__wrapped__'))\n"
    )
    env = {"PYTHONPATH": f"{PLUGINS / 'text_positions'}:{tmp_path}", "PYTHONDONTWRITEBYTECODE": "1"}
    assert process.run([sys.executable, "-c", program], env=env).out.split() == ["False", "1", "False"]


def test_without_the_plugin_one_or_two_texts_are_in_wrong_places(runner: type[CUDAGraphRunner]) -> None:
    alone, two = runner(1), runner(2)
    alone.forward("words", Rows([23]))
    two.forward("words", Rows([23, 7]))
    assert alone.replayed == [[23], [0], [0]]
    assert two.replayed == [[23, 7], [23, 7], [0, 0]]


def test_pictures_keep_their_places_and_no_positions_are_none(runner: type[CUDAGraphRunner]) -> None:
    import_module("text_positions").register()
    graph = runner(1)
    graph.forward("words", Rows([[9], [4], [5]]))
    assert graph.replayed == [[9], [4], [5]]
    graph.forward("words", None)
    assert graph.replayed == [[9], [4], [5]]


# -- FlashInfer on 7.5


class Vllm:
    """An environment with vLLM's registry of attention backends, FlashInfer's metadata and, if asked, its kernels."""

    def __init__(self, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, self.registered = site, {}  # type: tuple[Path, dict[str, str]]
        registry: Any = ModuleType("vllm.v1.attention.backends.registry")
        registry.AttentionBackendEnum = SimpleNamespace(FLASHINFER="FLASHINFER")
        registry.register_backend = self.registered.__setitem__
        monkeypatch.setitem(sys.modules, "vllm.v1.attention.backends.registry", registry)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.syspath_prepend(str(ROOTFS / "opt/cardstock/plugins/turing"))
        monkeypatch.setenv("CARDSTOCK_FLASHINFER", "7.5")

    def flashinfer(self, version: str = "0.7.2") -> None:
        about = self.site / f"flashinfer_python-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flashinfer-python\nVersion: {version}\n")

    def kernels(self, *architectures: str, version: str = "0.7.2") -> None:
        package = self.site / "flashinfer_jit_cache"
        package.mkdir()
        text = INIT.format(version=version, architectures=list(architectures), modules=["a"])
        (package / "__init__.py").write_text(text)

    def register(self) -> None:
        import_module("flashinfer_turing").register()


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vllm]:
    yield Vllm(tmp_path, monkeypatch)
    for name in ("flashinfer_jit_cache", "flashinfer_turing", "flashinfer_turing_backend"):
        sys.modules.pop(name, None)


def test_with_the_kernels_vllm_is_given_a_backend_for_turing(vllm: Vllm) -> None:
    vllm.flashinfer()
    vllm.kernels("sm75")
    vllm.register()
    vllm.register()  # once in each process, and in one twice
    assert vllm.registered == {"FLASHINFER": "flashinfer_turing_backend.FlashInferTuringBackend"}
    assert "flashinfer" not in sys.modules  # importing it starts CUDA


def test_other_images_are_left_alone(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CARDSTOCK_FLASHINFER")
    vllm.flashinfer()
    vllm.kernels("sm75")
    vllm.register()
    assert vllm.registered == {}


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda vllm: vllm.kernels("sm75"), "flashinfer-python is not installed"),
        (lambda vllm: vllm.flashinfer(), "the wheel flashinfer-jit-cache with the kernels is not installed"),
        (
            lambda vllm: (vllm.flashinfer(), (vllm.site / "flashinfer_jit_cache").mkdir()),
            "the wheel flashinfer-jit-cache with the kernels is not installed",
        ),
        (
            lambda vllm: (vllm.flashinfer("0.8.0"), vllm.kernels("sm75")),
            r"flashinfer-jit-cache is 0\.7\.2, flashinfer-python 0\.8\.0",
        ),
        (lambda vllm: (vllm.flashinfer(), vllm.kernels("sm80", "sm90")), "holds code for sm80, sm90, not sm75"),
        (lambda vllm: (vllm.flashinfer(), vllm.kernels()), "holds code for no card"),
    ],
)
def test_without_the_right_kernels_it_refuses_and_says_what_to_do(
    vllm: Vllm, prepare: Callable[[Vllm], object], why: str
) -> None:
    prepare(vllm)
    with pytest.raises(RuntimeError, match=f"{why}.*--attention triton"):
        vllm.register()
    assert vllm.registered == {}


def test_the_backend_takes_turing_beside_what_vllm_takes(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs:
        @classmethod
        def supports_compute_capability(cls, capability: tuple[int, int]) -> bool:
            return (8, 0) <= capability <= (12, 1)

    interface: Any = ModuleType("vllm.platforms.interface")
    interface.DeviceCapability = lambda major, minor: (major, minor)
    backend: Any = ModuleType("vllm.v1.attention.backends.flashinfer")
    backend.FlashInferBackend = Theirs
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    ours = import_module("flashinfer_turing_backend").FlashInferTuringBackend
    takes = {card: ours.supports_compute_capability(card) for card in [(7, 0), (7, 5), (8, 0), (9, 0), (12, 2)]}
    assert takes == {(7, 0): False, (7, 5): True, (8, 0): True, (9, 0): True, (12, 2): False}
