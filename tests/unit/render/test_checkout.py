"""What is a checkout, and what the package brought: where settings are, what may be written, what records say."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.catalogue.inputs import INPUTS_FILE, inputs_json, read_inputs
from images.core.errors import UsageError
from images.core.site import settings_folder
from images.render.checkout import Checkout, checkout_at
from tests.helpers.matrices import ROOT


def test_what_lies_beside_the_console_script_is_the_packages(tmp_path: Path) -> None:
    assert checkout_at(ROOT) == Checkout(ROOT, installed=False)
    assert checkout_at(tmp_path / "checkout") == Checkout(tmp_path / "checkout", installed=False)
    (tmp_path / "__init__.py").touch()
    assert checkout_at(tmp_path / "checkout") == Checkout(tmp_path / "checkout", installed=True)
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "inv").touch()
    assert checkout_at(tmp_path / "checkout") == Checkout(tmp_path / "checkout", installed=False)


def test_a_checkout_has_its_own_settings_and_is_written() -> None:
    assert Checkout(ROOT).settings == ROOT
    assert Checkout(ROOT).to_write("x", "audit --record") == ROOT


def test_the_package_has_the_users_settings_and_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    installed = Checkout(ROOT, installed=True)
    assert installed.settings == tmp_path / "cardstock"
    with pytest.raises(UsageError, match="a record is a file of a checkout") as caught:
        installed.to_write("a record", "audit --record")
    assert caught.value.do.endswith("and there ./inv audit --record")


def test_settings_are_below_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings_folder({}) == tmp_path / ".config" / "cardstock"
    assert settings_folder({"XDG_CONFIG_HOME": "/etc/xdg"}) == Path("/etc/xdg/cardstock")


def test_todays_inputs_come_back(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / INPUTS_FILE).write_text(inputs_json({"b": "2", "a": "1"}))
    assert read_inputs(tmp_path) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("text", ["[]", "{", None])
def test_inputs_that_cannot_be_read_are_told(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "records").mkdir()
    if text is not None:
        (tmp_path / INPUTS_FILE).write_text(text)
    with pytest.raises(UsageError, match=INPUTS_FILE):
        read_inputs(tmp_path)
