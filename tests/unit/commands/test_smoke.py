"""What `smoke` proves, and `explain` says: a card without images is told before an engine is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.commands.explain import ExplainOptions, show_excluded
from images.commands.smoke import SmokeOptions, images_to_prove
from images.core.errors import EngineUnreachable, NoImageFits, NothingSelected, UsageError
from images.proof.smoke.expectation import expect
from images.render.labels import VARIANT
from tests.helpers.contexts import context, silent
from tests.helpers.fake_engine import FakeEngine

SM75 = "cu124-vllm0.8.5.post1-xformers-sm75"


def test_what_cannot_be_is_told_without_an_engine() -> None:
    with pytest.raises(NoImageFits, match="maxwell-has-no-float16"):
        images_to_prove(context(), SmokeOptions(archs=["5.2"]))
    with pytest.raises(NoImageFits, match="pascal-not-in-vllm"):
        images_to_prove(context(), SmokeOptions(archs=["6.1"], cuda="13.0"))
    with pytest.raises(UsageError, match="names no compute capability"):
        images_to_prove(context(), SmokeOptions(archs=[""]))
    with pytest.raises(EngineUnreachable):
        images_to_prove(context(), SmokeOptions(archs=["6.1"]))


def test_explain_says_what_plan_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    report, text = silent()
    show_excluded(context(report), ExplainOptions(archs=["6.1"], cuda="13.0"))
    assert "pascal-not-in-vllm" in capsys.readouterr().out
    assert "no image for 6.1: cu130-vllm0.33.0-flash-attn-sm61 is excluded" in text.getvalue()
    report, text = silent()
    show_excluded(context(report), ExplainOptions(archs=["6.1"], cuda="12.4", attention="sdpa"))
    assert "nothing is left out" in text.getvalue()
    with pytest.raises(NothingSelected, match=r"selected by zzz\*"):
        show_excluded(context(), ExplainOptions(only=["zzz*"]))
    with pytest.raises(NothingSelected, match="selected by ''"):
        show_excluded(context(), ExplainOptions(only=[""]))


def test_an_image_is_proven_as_what_its_label_says_also_a_whole_one(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    for name in (SM75, f"{SM75}-whole", "of-another-matrix"):
        engine.add({VARIANT: name}, f"x:{name}")
    here = context(engine=engine.as_engine())
    for name in (SM75, f"{SM75}-whole"):
        ((reference, variant),) = images_to_prove(here, SmokeOptions(image=f"x:{name}"))
        assert (reference, variant.id) == (f"x:{name}", name)
        assert (expect(variant).stand_ins == ()) == name.endswith("-whole")
    with pytest.raises(UsageError, match="no label"):
        images_to_prove(here, SmokeOptions(image="x:of-another-matrix"))
