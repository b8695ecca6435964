from __future__ import annotations

from pathlib import Path

import pytest

from images.errors import UsageError
from images.site import SiteSettings, read_site


def test_nothing_said_means_the_hosts_own(tmp_path: Path) -> None:
    assert read_site(tmp_path, {}) == SiteSettings()


def test_the_file_and_above_it_the_environment(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pem", tmp_path / "b.pem"
    first.touch()
    second.touch()
    (tmp_path / "site.yaml").write_text(f"ca: {first}\nbases: packages\n")
    assert read_site(tmp_path, {}) == SiteSettings(ca=first, bases="packages")
    assert read_site(tmp_path, {"CARDSTOCK_CA": str(second)}).ca == second


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("caa: x\n", "nearest: ca"),
        ("ca: /no/such/file\n", "no file"),
        ("bases: some\n", "auto or packages"),
        ("- a\n", "not a mapping"),
    ],
)
def test_bad_settings_say_what_is_valid(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_site(tmp_path, {})
    assert said in str(caught.value)
