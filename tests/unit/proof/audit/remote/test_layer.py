"""Layers over each other: what hides what, and which of a file's names is told."""

from __future__ import annotations

import pytest

from images.device_code.fatbin import read
from images.proof.audit.remote.faults import LayerFault
from images.proof.audit.remote.layer import Layer, Stack, first_name, parts_of
from tests.helpers.elf_files import library, sm

FOUND = read(library([sm(75)]))
OTHER = read(library([sm(80)]))


def layer(*files: str) -> Layer:
    made = Layer()
    for name in files:
        made.file(name)
        made.found[name] = FOUND
    return made


def seen(*layers: Layer) -> list[str]:
    """What is seen of layers, the highest first."""
    stack = Stack()
    for one in layers:
        stack.add(one)
    return sorted(stack.found)


def test_a_whiteout_hides_below_and_not_in_its_own_layer() -> None:
    upper = layer("a/x.so")
    assert upper.whiteout("a", ".wh.x.so") and upper.whiteout("a", ".wh.y.so")
    assert seen(upper, layer("a/x.so", "a/y.so", "a/z.so")) == ["a/x.so", "a/z.so"]


def test_an_opaque_folder_hides_all_layers_below() -> None:
    upper = layer("a/new.so")
    assert upper.whiteout("a", ".wh..wh..opq")
    assert seen(upper, layer("a/b/x.so", "b/x.so"), layer("a/y.so")) == ["a/new.so", "b/x.so"]
    root = layer("new.so")
    assert root.whiteout("", ".wh..wh..opq")
    assert seen(root, layer("a/b/x.so")) == ["new.so"]


def test_names_of_aufs_itself_take_nothing_away() -> None:
    upper = Layer()
    assert upper.whiteout("", ".wh..wh.plnk") and upper.whiteout("", ".wh..wh.aufs")
    assert not upper.whiteout("", "wh.x")
    assert seen(upper, layer("plnk/x.so", "aufs")) == ["aufs", "plnk/x.so"]


def test_a_file_in_a_folders_place_hides_what_was_in_it() -> None:
    assert seen(layer("a"), layer("a/x.so"), layer("a/y.so")) == ["a"]


def test_a_folder_in_a_files_place_shows_nothing_of_what_lies_below_the_file() -> None:
    upper = Layer()
    upper.folder("a")
    upper.file("a/new.so")
    upper.found["a/new.so"] = FOUND
    assert seen(upper, layer("a"), layer("a/old.so")) == ["a/new.so"]


def test_a_later_member_takes_an_earlier_ones_place() -> None:
    made = layer("a.so", "b/c.so", "d.so")
    made.file("a.so")
    made.file("b")
    made.symlink("d.so", "elsewhere")
    made.folder("d.so")
    assert seen(made) == []
    assert made.files == {"a.so", "b"} and made.folders == {"d.so"}


def test_links_of_the_same_layer_are_followed_and_those_below_are_not() -> None:
    made = Layer()
    made.symlink("lib", "usr/lib")
    made.symlink("usr/lib", "/opt/lib")
    assert made.place("lib/x/y.so") == ("opt/lib/x", "y.so")
    assert made.place("./lib/z.so") == ("opt/lib", "z.so")
    assert Layer().place("lib/y.so") == ("lib", "y.so")
    made.symlink("up", "../../a")
    assert made.place("up/y.so") == ("a", "y.so")


def test_a_link_to_a_lower_layers_file_is_another_name_of_it() -> None:
    upper = Layer()
    upper.link("b/new.so", "a/old.so")
    upper.whiteout("a", ".wh.old.so")
    assert seen(upper, layer("a/old.so")) == ["b/new.so"]


def test_a_file_has_its_first_name_in_a_walk() -> None:
    made = layer("z.so")
    made.link("b/a.so", "z.so")
    made.link("b.so", "b/a.so")
    assert made.links == {"b/a.so": "z.so", "b.so": "z.so"}
    assert seen(made) == ["b/a.so"]
    upper = Layer()
    upper.whiteout("b", ".wh.a.so")
    assert seen(upper, made) == ["b.so"]


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["b.so", "a.txt"], "b.so"),
        (["a.so", "a/z.so"], "a/z.so"),
        (["proc/a.so", "z.so"], "z.so"),
        (["a.txt"], ""),
        ([], ""),
    ],
)
def test_first_name(names: list[str], first: str) -> None:
    assert first_name(names) == first


def test_a_lower_layer_does_not_take_an_upper_ones_finding() -> None:
    lower = Layer()
    lower.file("a.so")
    lower.found["a.so"] = OTHER
    stack = Stack()
    stack.add(layer("a.so"))
    assert stack.hides("a.so") and not stack.hides("b.so")
    stack.add(lower)
    assert stack.found == {"a.so": FOUND}


@pytest.mark.parametrize("name", ["../a", "a/../../b", "a\0b", "a" * 5000, "a/" * 1500])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(LayerFault, match="leads out"):
        parts_of(name)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh..."])
def test_whiteouts_of_no_name_are_refused(name: str) -> None:
    with pytest.raises(LayerFault, match="no file is called"):
        Layer().whiteout("a", name)


def test_links_without_end_are_refused() -> None:
    made = Layer()
    made.symlink("a", "b")
    made.symlink("b", "a")
    with pytest.raises(LayerFault, match="without end"):
        made.place("a/x")


def test_folders_that_are_replaced_again_and_again_are_refused() -> None:
    made = Layer()
    with pytest.raises(LayerFault, match="are replaced"):
        for number in range(2000):
            made.folder("a")
            made.file("a")
            assert number < 1001
