"""The commands as typed, up to the engine: text, JSON, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from images.build.plan import make_plan
from images.commands import options as typed
from images.commands import render as render_command
from images.commands.build import BuildOptions, build_chosen, check_rendered, show_what_would_be_built
from images.commands.explain import ExplainOptions, show_excluded
from images.commands.lock import LockOptions, write_locks
from images.commands.plan import PlanOptions, show_plan
from images.commands.publish import PublishOptions, publish_images
from images.commands.render import RenderOptions, write_generated
from images.core.errors import CheckFailed, UsageError
from images.render.checkout import Checkout
from tests.helpers.contexts import context


def code_of(action) -> int:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as caught:
        typed.run(action)
    return int(caught.value.code or 0)


def test_plan_json_lists_every_variant_whole(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_plan(context(), PlanOptions(all=True, json=True)))
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) > 100
    wanted = {"id", "tags", "archs", "attention", "engine", "pins", "state"}
    assert all(wanted <= set(row) for row in rows)
    states = {row["id"]: row["state"] for row in rows}
    assert states["cu124-vllm0.8.5.post1-xformers-sm75"] == "locked"
    assert states["cu121-transformers5.13.1-sdpa-sm75"] == "locked"
    assert states["cu118-vllm0.8.5.post1-xformers-sm75"] == "unlocked"
    assert states["cu121-vllm0.7.3-xformers-sm75"] == "unlocked"


def test_explain_json_gives_rule_reason_source_and_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_excluded(context(), ExplainOptions(all=True, json=True)))
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) > 50
    assert all(row["rule"] and row["reason"] and row["source"] and row["nearest"] for row in rows)


def test_plan_for_people_shows_unlocked_stacks_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_plan(context(), PlanOptions(["7.5"], cuda="12.1")))
    out, err = capsys.readouterr()
    assert "cu121-vllm0.7.3-xformers-sm75" in out
    assert "unlocked: cu121-vllm (needs index:pytorch-cu121)" in err
    assert "fp16-vision-overflow" in err
    assert "next: ./inv build --only" in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (PlanOptions(["7.6"]), 2),
        (PlanOptions(["abc"]), 2),
        (PlanOptions(["7.5"], cuda="12.2"), 2),
        (PlanOptions(["7.5"], attention="flash"), 2),
        (PlanOptions(only=["nothing*"]), 3),
        (PlanOptions(["7.5"], attention="flash-attn"), 4),
        (PlanOptions(["8.7"]), 4),
    ],
)
def test_exit_codes(words: PlanOptions, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(lambda: show_plan(context(), words)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "do: " in err
    assert "Traceback" not in err


def test_a_dry_run_prints_the_plan_and_asks_no_engine(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_what_would_be_built(context(), BuildOptions(["7.5"], dry_run=True)))
    data = json.loads(capsys.readouterr().out)
    assert list(data["target"]) == ["cu124-vllm0-8-5-post1-xformers-sm75"]


@pytest.mark.parametrize(
    ("words", "what"),
    [({"cache": "r.example/x"}, "--cache is for --builder"), ({"to": "r.example/x"}, "--to is for --builder")],
)
def test_what_a_builder_alone_can_do(words: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        build_chosen(context(), BuildOptions(["7.5"], **words))  # type: ignore[arg-type]
    if "cache" in words:
        with pytest.raises(UsageError, match=what):
            publish_images(context(), PublishOptions(["7.5"], to="r.example/x", cache="r.example/y"))


def test_whole_images_are_built_by_the_same_dockerfile_and_have_other_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed.run(lambda: show_what_would_be_built(context(), BuildOptions(["7.5"], dry_run=True, whole=True)))
    out, err = capsys.readouterr()
    targets = json.loads(out)["target"]
    whole = targets["cu124-vllm0-8-5-post1-xformers-sm75-whole"]
    assert list(targets) == ["cu124-vllm0-8-5-post1-xformers-sm75-whole"]
    assert whole["args"] == {"CARDSTOCK_WHOLE": "-whole"}
    assert whole["dockerfile"] == "rendered/cu124-vllm0.8.5.post1-xformers-sm75/Dockerfile"
    moving, fixed = whole["tags"]
    assert moving == "cardstock/qwen2.5-vl:cu124-vllm0.8.5.post1-xformers-sm75-whole"
    assert re.fullmatch(re.escape(moving) + "-[0-9a-f]{12}", fixed)
    assert "would build cu124-vllm0.8.5.post1-xformers-sm75-whole" in err


def test_the_rendered_dockerfile_of_a_whole_image_is_its_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(context(), BuildOptions(["7.5"], whole=True).chosen(context()), None)
    assert [variant.id for variant in plan.variants] == ["cu124-vllm0.8.5.post1-xformers-sm75-whole"]
    check_rendered(context(), plan)
    monkeypatch.setattr(Checkout, "generated", lambda self: {})
    with pytest.raises(CheckFailed) as caught:
        check_rendered(context(), plan)
    assert caught.value.cause == "missing: dockerfiles/rendered/cu124-vllm0.8.5.post1-xformers-sm75/Dockerfile"


def test_explain_tells_what_the_chosen_image_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: show_excluded(context(), ExplainOptions(["7.5"], cuda="12.4")))
    out = capsys.readouterr().out
    assert "left out of images of cu124-vllm; ./inv build --whole" in out
    assert "libcusparse, sparse matrices (torch.sparse): a stand-in" in out
    typed.run(lambda: show_excluded(context(), ExplainOptions()))
    assert "a stand-in" not in capsys.readouterr().out  # of every image at once


def test_render_check_fails_on_a_difference_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed.run(lambda: write_generated(context(), RenderOptions(check=True)))
    capsys.readouterr()
    present = context().checkout.generated()
    del present["dockerfiles/docker-bake.json"]
    monkeypatch.setattr(Checkout, "generated", lambda self: present)
    monkeypatch.setattr(render_command, "rendered_pages", lambda _: {})  # as they should be, seen above
    assert code_of(lambda: write_generated(context(), RenderOptions(check=True))) == 1
    assert "missing: dockerfiles/docker-bake.json" in capsys.readouterr().err


def test_an_unknown_stack_to_lock_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(lambda: write_locks(context(), LockOptions("cu125"))) == 2
    assert "nearest: cu12" in capsys.readouterr().err


def test_lock_check_shows_what_unlocked_stacks_need(capsys: pytest.CaptureFixture[str]) -> None:
    typed.run(lambda: write_locks(context(), LockOptions(check=True)))
    out = capsys.readouterr().out
    assert "cu118-vllm" in out
    assert "asset:vllm-cu118" in out


def test_a_defect_is_told_as_one_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise KeyError("x")

    assert code_of(broken) == 1
    assert "unexpected KeyError" in capsys.readouterr().err
