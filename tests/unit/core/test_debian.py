"""Debian's archives as this host's apt knows them, and an apt that keeps to its own folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.core import debian, process
from images.core.debian import Mirror, PrivateApt, choose_mirror
from images.core.errors import CardstockError, RegistryFailure

ARCHIVE = "http://mirror.example/debian"
SECURITY = "http://mirror.example/debian-security"


def target(release: str, uri: str, origin: str = "Debian", component: str = "main") -> str:
    return f"{release}\t{component}\t{uri}/\t{origin}"


def test_debians_own_archives_are_found_among_others() -> None:
    listed = "\n".join(
        [
            target("bookworm", "https://tools.example/apt", "Tools"),
            target("nodistro", "https://node.example", "Node"),
            target("bookworm", ARCHIVE),
            target("bookworm", "http://second.example/debian"),
            target("bookworm-updates", ARCHIVE),
            target("bookworm-security", SECURITY),
        ]
    )
    assert choose_mirror("bookworm", listed) == Mirror("bookworm", ARCHIVE, SECURITY, True)


def test_before_any_update_apt_does_not_know_origins() -> None:
    listed = "\n".join(
        [target("bookworm", "https://tools.example/apt", "$(ORIGIN)"), target("bookworm", ARCHIVE, "$(ORIGIN)")]
    )
    assert choose_mirror("bookworm", listed) == Mirror("bookworm", ARCHIVE)


@pytest.mark.parametrize(
    "line",
    [
        target("trixie", ARCHIVE),
        target("bookworm", "cdrom://[Debian]"),
        target("bookworm", ARCHIVE, "Ubuntu"),
        target("bookworm", ARCHIVE, component="contrib"),
        "",
    ],
)
def test_no_archive_is_no_mirror(line: str) -> None:
    assert choose_mirror("bookworm", line) is None


def test_sources_name_the_keyring_and_what_the_host_has() -> None:
    full = Mirror("bookworm", ARCHIVE, SECURITY, True)
    signed = f"deb [signed-by={debian.KEYRING}]"
    assert full.lines("trixie", "main non-free") == (
        f"{signed} {ARCHIVE} trixie main non-free",
        f"{signed} {ARCHIVE} trixie-updates main non-free",
        f"{signed} {SECURITY} trixie-security main non-free",
    )
    assert Mirror("bookworm", ARCHIVE).lines("trixie", keyring=None) == (f"deb {ARCHIVE} trixie main",)


def test_only_debian_is_debian(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    assert debian.host_codename(release) is None
    release.write_text('# comment\nID=debian\nVERSION_CODENAME="bookworm"\n')
    assert debian.host_codename(release) == "bookworm"
    release.write_text("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n")
    assert debian.host_codename(release) is None


class FakeApt:
    """Stands in for process.run: remembers argument lists, and fails if told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: str = "") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.fail = fail
        monkeypatch.setattr(process, "run", self.run)

    def run(self, argv: tuple[str, ...], **_: object) -> process.Finished:
        self.calls.append(tuple(argv))
        if self.fail:
            raise process.ProcessFailed(argv, 100, self.fail)
        return process.Finished(tuple(argv), 0, "Package: runc\nVersion: 1.1.5+ds1-1\n", "")


def test_private_apt_reads_and_writes_only_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeApt(monkeypatch)
    apt = PrivateApt(tmp_path / "apt", Mirror("bookworm", ARCHIVE).lines("trixie"))
    apt.update()
    apt.download(["docker.io", "$(touch x)"], tmp_path / "debs")
    update, download = fake.calls
    assert update[0] == "apt-get"
    assert update[-3:] == ("update", "-q", "--error-on=any")
    assert download[-4:] == ("download", "-q", "docker.io", "$(touch x)")
    options = set(download[2::2])
    folder = tmp_path / "apt"
    assert {
        f"Dir::Etc::sourcelist={folder}/sources.list",
        "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={folder}/lists",
        f"Dir::Cache={folder}/cache",
    } <= options
    assert not any("AllowUnauthenticated" in word or "Insecure" in word for call in fake.calls for word in call)
    assert (folder / "sources.list").read_text() == f"deb [signed-by={debian.KEYRING}] {ARCHIVE} trixie main\n"


def test_a_mirror_that_does_not_answer_is_a_registry_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    FakeApt(monkeypatch, fail="E: Could not resolve 'mirror.example'")
    with pytest.raises(RegistryFailure, match=r"(?s)update.*Could not resolve.*mirror and the proxy") as caught:
        PrivateApt(tmp_path, ["deb x y z"]).update()
    assert caught.value.exit_code == 6


def test_package_versions_come_from_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeApt(monkeypatch)
    assert debian.package_versions([tmp_path / "runc.deb"]) == {"runc": "1.1.5+ds1-1"}
    debian.unpack([tmp_path / "runc.deb"], tmp_path / "prefix")
    assert fake.calls[-1] == ("dpkg-deb", "-x", str(tmp_path / "runc.deb"), str(tmp_path / "prefix"))


def test_what_is_no_package_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "run", lambda argv, **_: process.Finished(tuple(argv), 0, "garbage", ""))
    with pytest.raises(CardstockError, match=r"x\.deb is not a Debian package"):
        debian.package_versions([tmp_path / "x.deb"])
