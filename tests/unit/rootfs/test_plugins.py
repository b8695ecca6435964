"""vLLM finds the plugins of an image by their entry points."""

from __future__ import annotations

from importlib.metadata import distributions

from tests.helpers.matrices import ROOT, variants

ROOTFS = ROOT / "dockerfiles" / "rootfs"


def test_the_image_for_the_cpu_names_the_folder_of_its_plugin() -> None:
    cpu = next(v for v in variants().valid.values() if v.cuda is None)
    folder = ROOTFS / dict(cpu.env)["PYTHONPATH"].lstrip("/")
    found = [point for one in distributions(path=[str(folder)]) for point in one.entry_points]
    assert [(point.group, point.value) for point in found] == [("vllm.general_plugins", "cpu_int4:register")]
    assert "def register()" in (folder / f"{found[0].module}.py").read_text()


def test_no_image_for_cards_loads_it() -> None:
    assert not [v.id for v in variants().valid.values() if v.cuda is not None and "PYTHONPATH" in dict(v.env)]
