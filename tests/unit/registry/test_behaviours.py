"""Every behaviour of registries, through `pull`, `publish` and `kernels --wheels`: served, or told as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from images.catalogue import store as catalogue_store
from images.core.errors import CardstockError
from images.registry import credentials
from tests.golden import make_registries
from tests.helpers import small_publisher
from tests.helpers.registries import registry
from tests.helpers.registry_behaviours import BEHAVIOURS
from tests.helpers.registry_behaviours.setting import SECRETS, Behaviour, Outcome, Setting
from tests.helpers.registry_behaviours.ways import WAYS

MOST_REQUESTS = 3000


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    for name, value in {
        "DOCKER_CONFIG": tmp_path / "docker",
        "HOME": tmp_path,
        "CARDSTOCK_HOME": tmp_path / "home",
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setattr(credentials, "_HELPER_SECONDS", 0.3)
    with registry() as (host, shelf), registry() as (other_host, other):
        made = Setting(host, shelf, other_host, other, tmp_path / "docker")
        monkeypatch.setattr(small_publisher, "short_sleep", made.waits.append)
        yield made


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row", BEHAVIOURS, ids=lambda row: row.name)
def test_behaviour(row: Behaviour, way: str, at: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: Outcome = getattr(row, way)
    monkeypatch.setattr(catalogue_store, "_SETTLE", 0.0)
    through = WAYS[way](at, tmp_path)
    through.prepare()
    at.waits.clear()
    at.shelf.asked.clear()
    at.shelf.logins.clear()
    look = row.arrange(at)
    if wanted is None:
        through.go()
    else:
        with pytest.raises(CardstockError) as caught:
            through.go()
        told = str(caught.value)
        assert (caught.value.exit_code, wanted.words in told) == (wanted.code, True), told
        assert caught.value.cause or wanted.code != 6, told
        assert not [secret for secret in SECRETS if secret in told]
        assert "\x1b" not in told
        assert len(told) < 3000
    if look:
        look()
    assert len(at.shelf.asked) < MOST_REQUESTS
    assert not [login for login in at.other.logins if login], "another host was given a login"


def test_the_table_is_large_and_each_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in BEHAVIOURS}) == len(BEHAVIOURS) >= 60


def test_the_page_of_registries_says_what_the_table_does() -> None:
    assert make_registries.PATH.read_text(encoding="utf-8") == make_registries.page()
