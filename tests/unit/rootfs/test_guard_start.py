"""The entrypoint and the guard: how it is added, what it learns of the user's flags, which weights are not loaded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.guarded import ROOTFS, guard_settings
from tests.helpers.matrices import ROOT, variants
from tests.helpers.nonempty import nonempty

import guard_start  # type: ignore[import-not-found,unused-ignore] # isort: skip

ENGINE = {"CARDSTOCK_ENGINE": "vllm"}
IMAGE = ["python", "-m", "vllm", "--limit-mm-per-prompt", '{"image": 8, "video": 0}', "--disable-fastapi-docs"]


def started(user: list[str], **environment: str) -> tuple[list[str], dict[str, str]]:
    """The command line after the image's own flags and the user's, and the variables that are set."""
    told = {**ENGINE, **environment}
    more = guard_start.variables(user, told)
    own = IMAGE if guard_start.values(user, "--limit-mm-per-prompt") is None else IMAGE[:3]
    return guard_start.guarded([*own, *user], user, {**told, **more}), more


def test_the_guard_is_the_last_middleware_and_the_users_stays() -> None:
    words, more = started(["--middleware", "mine.Own", "--model", "m"], PYTHONPATH="/opt/cardstock/plugins")
    at = [index for index, word in enumerate(words) if word == "--middleware"]
    assert [words[index + 1] for index in at] == ["mine.Own", "guard.Guard"] and at[-1] == len(words) - 2
    assert more["PYTHONPATH"] == f"{ROOTFS / 'middleware'}:/opt/cardstock/plugins"
    assert (ROOTFS / "middleware" / "guard" / "__init__.py").is_file()


@pytest.mark.parametrize(
    ("user", "keys"),
    [
        ([], None), (["--api-key", "a"], ["a"]), (["--api-key=a"], ["a"]), (["--api_key", "a", "b", "--x"], ["a", "b"]),
        (["--api-key", ""], []),
    ],
)  # fmt: skip
def test_the_key_of_a_flag_is_handed_on(user: list[str], keys: list[str] | None) -> None:
    _, more = started(user, VLLM_API_KEY="variable")
    assert json.loads(more.get("CARDSTOCK_GUARD_KEYS", "null")) == keys
    assert guard_settings.read({"VLLM_API_KEY": "variable", **more}).keys == tuple(keys or ["variable"])


def test_pictures_and_videos_follow_the_flag_and_the_flag_the_variables() -> None:
    words, more = started([])
    assert guard_start.limits(words[4]) == {"image": 8, "video": 0} and "CARDSTOCK_VIDEO" not in more
    words, _ = started([], CARDSTOCK_VIDEO="1", CARDSTOCK_MAX_IMAGES="20")
    assert json.loads(words[4]) == {"image": 20, "video": 1}
    for text in ('{"image": 3, "video": 2}', "image=3,video=2", '{"image": {"count": 3}, "video": {"count": 1}}'):
        words, more = started(["--limit-mm-per-prompt", text])
        assert text in words
        assert (more["CARDSTOCK_MAX_IMAGES"], more["CARDSTOCK_VIDEO"]) == ("3", "1")
    _, more = started(["--limit-mm-per-prompt", '{"image": 3}'], CARDSTOCK_MAX_IMAGES="2")
    assert (more["CARDSTOCK_MAX_IMAGES"], more["CARDSTOCK_VIDEO"]) == ("2", "0")
    assert guard_start.limits("what?") == {}


def test_origins_docs_and_pixels() -> None:
    words, more = started([])
    assert guard_start.values(words, "--allowed-origins") == ["[]"] and "--disable-fastapi-docs" in words
    assert more["VLLM_MAX_IMAGE_PIXELS"] == "50000000"
    words, _ = started([], CARDSTOCK_ALLOWED_ORIGINS="https://a.org, https://b.org", CARDSTOCK_DOCS="1")
    assert guard_start.values(words, "--allowed-origins") == ['["https://a.org", "https://b.org"]']
    assert "--disable-fastapi-docs" not in words
    words, more = started(["--allowed-origins", '["https://a.org"]'], VLLM_MAX_IMAGE_PIXELS="7")
    assert words.count("--allowed-origins") == 1 and more["CARDSTOCK_ALLOWED_ORIGINS"] == "https://a.org"
    assert more["VLLM_MAX_IMAGE_PIXELS"] == "7"


def test_wrong_settings_end_the_container_at_once(tmp_path: Path) -> None:
    with pytest.raises(guard_start.Refused, match="CARDSTOCK_MAX_DEPTH"):
        started([], CARDSTOCK_MAX_DEPTH="none")
    with pytest.raises(guard_start.Refused, match="CARDSTOCK_GUARD"):
        guard_start.is_on({**ENGINE, "CARDSTOCK_GUARD": "perhaps"})
    config = tmp_path / "config.yaml"
    config.write_text("model: m\napi_key: secret\n")
    with pytest.raises(guard_start.Refused, match="VLLM_API_KEY"):
        started(["--config", str(config)])


def test_where_the_guard_is() -> None:
    assert guard_start.is_on(ENGINE)
    assert not guard_start.is_on({**ENGINE, "CARDSTOCK_GUARD": "off"})
    assert not guard_start.is_on({"CARDSTOCK_ENGINE": "transformers"})


STRICT = {**ENGINE, "CARDSTOCK_WEIGHTS": "safetensors"}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    argv = ["--model", str(tmp_path)]
    for environment in (STRICT, {**STRICT, "CARDSTOCK_ENGINE": "transformers"}):
        with pytest.raises(
            guard_start.Refused, match=rf"{name} alone[\s\S]*CVE-2026-24747[\s\S]*CARDSTOCK_WEIGHTS=any"
        ):
            guard_start.check_model(argv, environment)
    assert guard_start.check_model(argv, ENGINE) == []
    (tmp_path / "model.safetensors").touch()
    assert guard_start.check_model(argv, STRICT) == ["--load-format", "safetensors"]
    assert guard_start.check_model([*argv, "--load-format", "dummy"], STRICT) == []
    for word in ("auto", "pt", "npcache"):
        with pytest.raises(guard_start.Refused, match="--load-format"):
            guard_start.check_model([*argv, f"--load-format={word}"], STRICT)


def test_code_of_a_model_is_refused(tmp_path: Path) -> None:
    argv = ["--model", str(tmp_path)]
    with pytest.raises(guard_start.Refused, match="--trust-remote-code"):
        guard_start.check_model([*argv, "--trust-remote-code"], ENGINE)
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "own.Own"}}')
    with pytest.raises(guard_start.Refused, match="auto_map"):
        guard_start.check_model(argv, ENGINE)
    assert guard_start.check_model([*argv, "--trust-remote-code"], {**ENGINE, "CARDSTOCK_REMOTE_CODE": "1"}) == []


def test_every_image_with_vllm_closes_videos_and_docs() -> None:
    for variant in nonempty([one for one in variants().valid.values() if one.backend == "vllm"]):
        words: list[Any] = list(variant.args)
        counts = guard_start.limits(words[words.index("--limit-mm-per-prompt") + 1])
        assert counts["video"] == 0 and counts["image"] in (1, 8), variant.id
        assert "--disable-fastapi-docs" in words


def test_every_variable_is_documented_with_its_default() -> None:
    rows = {}
    for line in (ROOT / "docs" / "serve.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `CARDSTOCK_") and len(cells) == 3:
            rows[cells[0].strip("`")] = cells[2]
    own = {one.name: str(one.default) for one in guard_settings.NUMBERS.values()}
    own |= dict.fromkeys(guard_settings.SWITCHES.values(), "0")
    for name, default in nonempty(sorted(own.items())):
        assert rows.get(name) == default, name
    assert rows["CARDSTOCK_IMAGE_FORMATS"] == f"`{','.join(guard_settings.FORMATS)}`"
    fields = {one.name for one in dataclasses.fields(guard_settings.GuardSettings)}
    assert set(guard_settings.NUMBERS) | set(guard_settings.SWITCHES) <= fields
