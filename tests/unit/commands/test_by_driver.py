"""A card and its driver: build, cards, pull, doctor, serve and preflight give the same image, the first of the list."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from images.cards.choose import ImageChoice, choose_images
from images.cards.data import Card
from images.cards.this_machine import LocalCard, LocalMachine
from images.catalogue.model import Catalogue
from images.catalogue.resolve import MatchResult
from images.commands.build import BuildOptions
from images.commands.explain import ExplainOptions, show_excluded
from images.commands.plan import PlanOptions, show_plan
from images.commands.pull import PullOptions, card_query, find_images
from images.context import Context
from images.core.errors import NoImageFits
from images.matrix.arch import Arch, parse_arch
from images.matrix.drivers import driver_suffices, driver_supports, parse_driver
from images.matrix.model import Matrix
from images.matrix.variants import Variant, Variants, make_variants
from images.render.checkout import Checkout
from images.render.preflight_images import as_text, images_for_preflight
from images.run.doctor.advice import advise
from images.run.fit.find import FitOptions, find_fit
from tests.helpers.catalogues import catalogue_of
from tests.helpers.contexts import context, silent
from tests.helpers.fake_nvml import FakeNvml
from tests.helpers.matrices import ROOT, matrix, variants, with_lists
from tests.helpers.nonempty import nonempty
from tests.unit.rootfs.test_preflight import nvml, preflight
from tests.unit.run.doctor.test_doctor import FACTS

# As a person may say them -> as a machine with such a driver has them.
DRIVERS = {
    "450": "450.248.02",
    "525": "525.147.05",
    "550": "550.163.01",
    "575.57": "575.57.08",
    "580": "580.159.04",
    **{full: full for full in ("450.51.05", "470.82.01", "520.61.05", "535.104.05", "570.26", "590.10")},
}
# Where the driver runs nothing of the list, these prefer an image of a locked stack; the others know no locks.
WITH_LOCKS = ("build --driver", "cards", "doctor", "serve")
GB = 2**30
Lists = Mapping[str, Sequence[str]]


def for_just(arch: Arch) -> list[Variant]:
    return [one for one in variants().valid.values() if one.archs == (arch,) and one.backend == "vllm"]


@st.composite
def lists(draw: st.DrawFn) -> Lists:
    """For each arch one to three of its variants with vLLM, each for older drivers than the one before."""
    out = {}
    for arch in map(parse_arch, matrix().archs):
        by_driver: dict[str, list[Variant]] = {}
        for variant in for_just(arch):
            by_driver.setdefault(str(variant.min_driver), []).append(variant)
        drivers = draw(st.lists(st.sampled_from(sorted(by_driver)), min_size=1, max_size=3, unique=True))
        ordered = sorted(drivers, key=parse_driver, reverse=True)
        chosen = [draw(st.sampled_from(by_driver[driver])) for driver in ordered]
        out[f"sm{arch.number}"] = [f"{one.stack} {one.attention}" for one in chosen]
    return out


@dataclass(frozen=True)
class World:
    """A matrix with lists, and a catalogue of all its images."""

    matrix: Matrix
    variants: Variants
    catalogue: Catalogue

    @classmethod
    def of(cls, lists: Lists) -> World:
        made = with_lists(**lists)
        found = make_variants(made)
        return cls(made, found, catalogue_of(found.valid.values()))

    @cached_property
    def others(self) -> str:
        return as_text(images_for_preflight(self.matrix, self.variants))

    def context(self, machine: LocalMachine) -> Context:
        return context(silent()[0], matrix=self.matrix, variants=self.variants, machine=machine, locked=LOCKED)

    def listed(self, arch: Arch) -> list[Variant]:
        """By the words of the matrix alone."""
        single = {(one.stack, one.attention): one for one in self.variants.valid.values() if one.archs == (arch,)}
        return [single[one.stack, one.attention] for one in self.matrix.recommended.archs[arch.capability]]

    def first_of(self, arch: Arch) -> str:
        return self.listed(arch)[0].id

    def first_that_runs(self, arch: Arch, driver: str) -> str:
        """ "" where the driver runs nothing of the list."""
        runs = (one.id for one in self.listed(arch) if driver_suffices(parse_driver(driver), one.min_driver))
        return next(runs, "")


LOCKED = context().locked


def pulled(here: Context, catalogue: Catalogue) -> MatchResult:
    options = PullOptions()
    return find_images(here, options, card_query(here, options), catalogue)


def answers(world: World, arch: Arch, said: str) -> dict[str, str]:
    """Who is asked -> the image that is given; "" where it is refused."""
    machine = LocalMachine(DRIVERS[said], "", (LocalCard("a card", "GPU-1", arch, 80 * GB),))
    here, elsewhere = world.context(machine), world.context(LocalMachine(why="no card"))
    card, driver = Card("a card", arch, 80, "test"), parse_driver(said)

    def picks(choice: ImageChoice | None) -> list[str]:
        return [pick.variant.id for pick in choice.picks] if choice else []

    def of_preflight() -> list[str]:
        seen = nvml.Seen(0, "a card", "GPU-1", (arch.major, arch.minor))
        others = map(preflight.read_other, world.others.split())
        found = preflight.best(others, [seen], nvml.Machine(driver=machine.driver))
        return [found.tag] if found else []

    asked: dict[str, Callable[[], list[str]]] = {
        "build --driver": lambda: [v.id for v in BuildOptions([arch.capability], driver=said).select(elsewhere)],
        "build here": lambda: [v.id for v in BuildOptions([arch.capability]).select(here)],
        "cards": lambda: picks(choose_images(world.matrix, world.variants, [card], driver, LOCKED)),
        "pull": lambda: [one.image.variant for one in pulled(here, world.catalogue).matches],
        "doctor": lambda: picks(advise(replace(FACTS, cards=machine), world.matrix, world.variants, LOCKED).choice),
        "serve": lambda: [find_fit(here, FitOptions("7b-fp16"), machine).ask.variant.id],
        "preflight": of_preflight,
    }
    out = {}
    for name, ask in asked.items():
        try:
            out[name] = " ".join(ask())
        except NoImageFits:
            out[name] = ""
    return out


# Without shrinking: an example is small as it is, and making one takes seconds.
@settings(max_examples=5, phases=(Phase.explicit, Phase.generate))
@given(lists())
def test_everybody_gives_the_first_of_the_list_that_the_driver_runs(lists: Lists) -> None:
    world = World.of(lists)
    listed = 0
    for arch in map(parse_arch, nonempty(world.matrix.archs)):
        for said in DRIVERS:
            if not driver_supports(parse_driver(said), arch):
                continue
            given_by, expected = answers(world, arch, said), world.first_that_runs(arch, said)
            if expected:
                listed += 1
                assert given_by == dict.fromkeys(given_by, expected), (arch, said)
            else:
                told = {given_by[name] for name in WITH_LOCKS}
                assert len(told) == 1, (arch, said, given_by)
                # A machine whose driver runs nothing may still build for another.
                assert given_by["build here"] in (told if told != {""} else {world.first_of(arch)})
    assert listed > len(DRIVERS)


# -- what is said of it

SM86 = {"sm86": ("cu130 flash-attn for this test", "cu128 flash-attn", "cu118 flash-attn")}


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(SM86)


def rtx_3090(driver: str) -> LocalMachine:
    return LocalMachine(driver, "", (LocalCard("NVIDIA GeForce RTX 3090", "GPU-1", Arch(8, 6), 24 * GB),))


def said(world: World, machine: LocalMachine | None = None, **words: Any) -> tuple[list[str], str]:
    """The stacks that are chosen, and what is told."""
    report, err = silent()
    here = replace(world.context(machine or LocalMachine(why="no card")), report=report)
    chosen = PlanOptions(**words).select(here)
    return [one.stack for one in chosen], err.getvalue()


def test_without_a_card_the_first_of_the_list_is_taken_and_its_driver_told(world: World) -> None:
    stacks, told = said(world, archs=["8.6"])
    assert stacks == ["cu130"]
    assert told.startswith(
        "8.6: driver 580.65.06 or newer is taken for granted; for an older one: --driver 525 (cu128-"
    )
    # What it says to type does what it says.
    assert said(world, archs=["8.6"], driver="525")[0] == ["cu128"]


def test_the_driver_of_this_machine_decides_and_is_told(world: World) -> None:
    stacks, told = said(world, rtx_3090("535.104.05"), archs=["8.6"])
    assert stacks == ["cu128"]
    assert "this machine's driver 535.104.05 is too old for cu130-" in told
    assert "which needs 580.65.06; for another one: --driver V" in told
    stacks, told = said(world, rtx_3090("580.82.07"), archs=["8.6"])
    assert stacks == ["cu130"]
    assert "for this machine's driver 580.82.07" in told


def test_nvml_is_asked_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml({"name": "NVIDIA A10", "arch": (8, 6), "memory": 24 * GB}))
    report, err = silent()
    real = Context(Checkout(ROOT), report).having(matrix=world.matrix, variants=world.variants, locked=LOCKED)
    assert [one.stack for one in PlanOptions(archs=["8.6"]).select(real)] == ["cu128"]
    assert "this machine's driver 535.104.05 is too old for cu130-" in err.getvalue()


@pytest.mark.parametrize(
    ("driver", "stack"),
    [("590", "cu130"), ("580", "cu130"), ("580.65.05", "cu128"), ("535", "cu128"), ("470", "cu118")],
)
def test_the_named_driver_counts_more_than_the_machines(world: World, driver: str, stack: str) -> None:
    stacks, told = said(world, rtx_3090("550.54.14"), archs=["8.6"], driver=driver)
    assert stacks == [stack]
    assert ("is too old for" in told) == (stack != "cu130")
    assert "machine" not in told


@pytest.mark.parametrize("driver", ["390.157", "450.80.02", "odd"])
def test_a_driver_here_that_serves_no_such_card_forbids_nothing(world: World, driver: str) -> None:
    stacks, told = said(world, rtx_3090(driver), archs=["8.6"])
    assert stacks == ["cu130"]
    assert "driver 580.65.06 or newer is taken for granted" in told
    assert ("runs no image for 8.6" in told) == (driver != "odd")


@pytest.mark.parametrize(("driver", "why"), [("390", "does not know 8.6"), ("450.80.02", "does not know 8.6")])
def test_a_named_driver_that_serves_no_such_card_is_an_error(world: World, driver: str, why: str) -> None:
    with pytest.raises(NoImageFits, match=why) as caught:
        said(world, archs=["8.6"], driver=driver)
    assert caught.value.do.startswith("install driver 580.65.06 or newer; 525.60.13 is enough for cu128-")


def test_a_named_driver_that_is_too_old_for_every_image_is_an_error(world: World) -> None:
    with pytest.raises(NoImageFits, match="driver 525 is too old for every image for") as caught:
        said(world, archs=["8.6"], driver="525", cuda="13.0")
    assert "no image for 8.6 runs below 580.65.06" in caught.value.cause


def test_what_is_not_recommended_is_told_to_be_so(world: World) -> None:
    alone = World.of({"sm86": ("cu130 flash-attn",)})
    for which, recommended in ((alone, False), (world, True)):
        stacks, told = said(which, archs=["8.6"], driver="535")
        assert stacks != ["cu130"]
        assert ("runs none of the recommended ones" in told) != recommended
        card = Card("a card", Arch(8, 6), 24, "test")
        (pick,) = choose_images(which.matrix, which.variants, [card], parse_driver("535"), LOCKED).picks
        assert ("is not among the recommended ones" in pick.notes[0]) != recommended
        assert "this one runs on it" in pick.notes[0]


def test_each_list_of_archs_is_told_by_itself(world: World) -> None:
    stacks, told = said(world, rtx_3090("535.104.05"), archs=["8.6", "12.0"])
    assert stacks[0] == "cu128"
    first, second = told.splitlines()
    assert first.startswith("8.6: cu128-")
    assert second.startswith("12.0: this machine's driver 535.104.05 runs no image for 12.0; driver")


@pytest.mark.parametrize("words", [{"only": ["cu13*sm86"]}, {"archs": ["8.6"], "all": True}, {}])
def test_where_no_driver_decides_this_machine_is_not_asked(world: World, words: dict[str, Any]) -> None:
    class Unasked:
        @property
        def known_driver(self) -> None:
            raise AssertionError("asked")

    stacks, told = said(world, Unasked(), **words)  # type: ignore[arg-type]
    assert "cu130" in stacks
    assert told == ""


def test_a_named_driver_narrows_whatever_is_chosen(world: World) -> None:
    for words in ({"only": ["*"]}, {"archs": ["8.6"], "all": True}, {}):
        with_all, _ = said(world, **words)
        narrowed, _ = said(world, driver="535", **words)
        assert "cu130" in with_all
        assert "cu128" in narrowed and "cu130" not in narrowed


# -- the reasons


def test_plan_and_explain_give_the_reason(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    here = world.context(LocalMachine(why="no card")).having(lock_states=dict.fromkeys(LOCKED, "locked"))
    show_excluded(here, ExplainOptions(archs=["8.6"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "recommended for 8.6: the first that the driver runs"
    assert lines[2] == "     why: for this test"
    show_plan(here, PlanOptions(archs=["8.6"], json=True))
    (row,) = json.loads(capsys.readouterr().out)
    assert row["recommended"] == [{"arch": "8.6", "place": 1, "why": "for this test"}]
    report, err = silent()
    show_plan(replace(here, report=report), PlanOptions(archs=["8.6"]))
    assert f"why {row['id']}: for this test" in err.getvalue()
