from __future__ import annotations

from pathlib import Path

import pytest

from images.core.errors import UsageError
from images.core.site import SiteSettings, read_site
from images.docker import build_inputs as supplies
from images.docker.build_inputs import compiler_secrets, secrets


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


@pytest.fixture
def no_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose apt names no archive, and is not asked."""
    monkeypatch.setattr(supplies, "apt_sources", lambda *_, **__: "")


@pytest.mark.usefixtures("no_apt")
def test_a_compiler_cache_elsewhere_is_handed_to_compilers_alone(tmp_path: Path) -> None:
    environ = {"SCCACHE_BUCKET": "b", "AWS_SECRET_ACCESS_KEY": "s", "PATH": "/bin", "HOME": "/root"}
    found = dict(compiler_secrets(tmp_path, SiteSettings(), environ))
    assert Path(found["sccache"]).read_text() == "SCCACHE_BUCKET=b\nAWS_SECRET_ACCESS_KEY=s\n"
    assert "sccache" not in dict(secrets(tmp_path, SiteSettings(), ()))
    own = tmp_path / "own"
    own.write_text("SCCACHE_BUCKET=mine\n")
    assert dict(compiler_secrets(tmp_path, SiteSettings(sccache=own), environ))["sccache"] == str(own)


@pytest.mark.usefixtures("no_apt")
def test_credentials_alone_and_a_local_cache_are_no_cache_elsewhere(tmp_path: Path) -> None:
    environ = {"AWS_SECRET_ACCESS_KEY": "s", "SCCACHE_DIR": "/here", "SCCACHE_CACHE_SIZE": "1G"}
    assert "sccache" not in dict(compiler_secrets(tmp_path, SiteSettings(), environ))


def test_mirrors_of_the_services_that_know_holes(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("osv: https://mirror.example.com/osv\n")
    site = read_site(tmp_path, {"CARDSTOCK_DEBIAN_TRACKER": "http://127.0.0.1:8000/data.json"})
    assert (site.osv, site.debian_tracker) == ("https://mirror.example.com/osv", "http://127.0.0.1:8000/data.json")


@pytest.mark.parametrize(
    "address", ["mirror.example.com", "file:///etc/passwd", "https://", "https://a b/c", "https://a/?q"]
)
def test_an_address_is_an_address(tmp_path: Path, address: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        read_site(tmp_path, {"CARDSTOCK_OSV": address})
