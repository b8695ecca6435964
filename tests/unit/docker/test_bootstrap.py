"""A base from packages: what mmdebstrap is asked, how it is found, what is told when it fails. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from images.core import debian, process
from images.core.debian import Mirror
from images.core.errors import CardstockError, EngineUnreachable, RegistryFailure
from images.docker import bootstrap

MIRROR = Mirror("bookworm", "http://mirror.example/debian")
HOOKS = "usr/share/mmdebstrap/hooks/maybe-merged-usr"


def test_signatures_are_checked_and_words_stay_words() -> None:
    argv = bootstrap.mmdebstrap_argv(Path("/x y"), "bookworm", Path("/a b"), Path("/c d"))
    assert argv[0] == "/x y/usr/bin/mmdebstrap"
    assert argv[-3:] == ("bookworm", "/a b", "-")
    assert {f"--keyring={debian.KEYRING}", f"--hook-dir=/x y/{HOOKS}", "--aptopt=/c d"} <= set(argv)
    assert {"--mode=root", "--variant=minbase", "--format=directory"} <= set(argv)
    assert not [word for word in argv if "Unauthenticated" in word or "Insecure" in word or "trusted" in word]


def test_documentation_is_left_out_and_licences_are_not() -> None:
    argv = bootstrap.mmdebstrap_argv(Path("/"), "bookworm", Path("/r"), Path("/c"))
    rules = [word.removeprefix("--dpkgopt=") for word in argv if word.startswith("--dpkgopt=")]
    assert rules.index("path-exclude=/usr/share/doc/*") < rules.index("path-include=/usr/share/doc/*/copyright")
    assert {f"path-exclude=/usr/share/{name}/*" for name in ("info", "locale", "man")} <= set(rules)


def test_apt_reaches_the_archive_as_on_this_host() -> None:
    dump = (
        'Acquire "";\nAcquire::Check-Valid-Until "false";\nAcquire::AllowInsecureRepositories "1";\n'
        'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::https::CAInfo "/host.pem";\n'
        'Acquire::GzipIndexes "true";\n'
    )
    logins = 'Dir::Etc::netrc "/etc/apt/auth.conf";\nDir::Etc::netrcparts "/etc/apt/auth.conf.d";\n'
    hosts = 'Acquire::http::Proxy "http://proxy.example:3128";\nAcquire::https::CAInfo "/host.pem";\n'
    assert bootstrap.apt_settings(dump, None) == hosts + logins
    # apt takes what is said last
    assert bootstrap.apt_settings(dump, Path("/w/ca.pem")) == hosts + logins + 'Acquire::https::CAInfo "/w/ca.pem";\n'


def test_the_hosts_own_mmdebstrap_is_taken(tmp_path: Path) -> None:
    (tmp_path / "host" / HOOKS).mkdir(parents=True)
    assert bootstrap.tool(None, tmp_path / "work", host=tmp_path / "host") == tmp_path / "host"


class Programs:
    """Stands in for process.run: remembers what is asked; mmdebstrap makes a small root, tar an empty file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[tuple[str, ...], dict[str, object]]] = []
        self.fails = ""
        monkeypatch.setattr(process, "run", self.run)

    def run(self, argv: Sequence[str], **options: object) -> process.Finished:
        self.calls.append((tuple(argv), options))
        name = Path(argv[0]).name
        if name == "mmdebstrap":
            if self.fails:
                raise process.ProcessFailed(argv, 25, self.fails)
            (Path(argv[-2]) / "etc/apt").mkdir(parents=True)
            (Path(argv[-2]) / "etc/apt/sources.list").write_text("deb http://user:secret@mirror.example/debian x main")
        if name == "tar":
            root = Path(argv[argv.index("-C") + 1])
            assert [path.name for path in root.rglob("*") if path.is_file()] == ["machine-id"]
            Path(argv[argv.index("-cf") + 1]).write_bytes(b"tar")
        return process.Finished(tuple(argv), 0, 'Acquire::http::Proxy "http://proxy.example:3128";\n', "")

    def call(self, name: str) -> tuple[tuple[str, ...], dict[str, object]]:
        return next(call for call in self.calls if Path(call[0][0]).name == name)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(monkeypatch)


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder; mmdebstrap lies unpacked in it, and perl's modules with it."""
    for name in (HOOKS, "usr/share/perl/5.36", "usr/lib/x86_64-linux-gnu/perl/5.36"):
        (tmp_path / "tools" / name).mkdir(parents=True)
    monkeypatch.setattr(bootstrap, "tool", lambda mirror, folder: folder / "tools")
    return tmp_path


def test_a_tar_is_made_of_sources_that_no_argument_and_no_file_shows(programs: Programs, unpacked: Path) -> None:
    ca = unpacked / "site.pem"
    ca.write_text("pem")
    assert bootstrap.make_tar("bookworm", "deb x y z\n", unpacked, ca=ca).read_bytes() == b"tar"
    argv, options = programs.call("mmdebstrap")
    assert argv == bootstrap.mmdebstrap_argv(unpacked / "tools", "bookworm", unpacked / "root", unpacked / "apt.conf")
    assert options["stdin"] == "deb x y z\n"
    settings = (unpacked / "apt.conf").read_text()
    assert "proxy.example" in settings
    assert f'CAInfo "{unpacked}/ca.pem"' in settings
    packed = programs.call("tar")[0]
    assert {"--sort=name", "--numeric-owner", f"--mtime=@{bootstrap.EPOCH}", "--clamp-mtime"} <= set(packed)


def test_it_runs_beside_with_its_helpers_and_perls_modules(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    tools = unpacked / "tools"
    assert bootstrap.environment(tools) == {
        "PATH": f"/usr/bin:{tools}/usr/bin:/usr/sbin:/sbin",
        "PERL5LIB": f"{tools}/usr/share/perl/5.36:{tools}/usr/lib/x86_64-linux-gnu/perl/5.36",
        "SOURCE_DATE_EPOCH": str(bootstrap.EPOCH),
    }


def test_without_one_it_is_unpacked_with_what_the_host_lacks(tmp_path: Path, programs: Programs) -> None:
    archives = tmp_path / "work/apt/cache/archives"
    archives.mkdir(parents=True)
    for name in ("mmdebstrap.deb", "perl.deb"):
        (archives / name).touch()
    assert bootstrap.tool(MIRROR, tmp_path / "work", host=tmp_path) == tmp_path / "work/tools"
    install = programs.calls[1][0]
    assert {"install", "--download-only", "mmdebstrap"} <= set(install)
    assert [argv[0:3] for argv, _ in programs.calls[2:]] == [
        ("dpkg-deb", "-x", str(archives / "mmdebstrap.deb")),
        ("dpkg-deb", "-x", str(archives / "perl.deb")),
    ]


def test_without_one_elsewhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        EngineUnreachable, match=r"(?s)no mmdebstrap.*apt-get install mmdebstrap debian-archive-keyring"
    ):
        bootstrap.tool(None, tmp_path, host=tmp_path)


# The ends of what mmdebstrap 1.3.5 printed on Debian 12.
NO_ANSWER = """\
Reading package lists...
E: Failed to fetch http://127.0.0.1:9/debian/dists/bookworm/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1).
E: Some index files failed to download. They have been ignored, or old ones used instead.
E: mmdebstrap failed to run"""
NO_RELEASE = "E: The repository 'http://mirror.example/debian nosuch Release' does not have a Release file."
NO_KEY = """\
W: GPG error: http://mirror.example/debian bookworm InRelease: The following signatures couldn't be verified
E: The repository 'http://mirror.example/debian bookworm InRelease' is not signed."""
NO_SOURCES = "E: cannot determine sources.list format"
NO_ROOM = "E: Write error - write (28: No space left on device)\nE: IO Error saving source cache"
NO_EXEC = f"chroot: failed to run command 'dpkg': Permission denied\nE: setup failed: {'a.deb ' * 500}"


@pytest.mark.parametrize("said", [NO_ANSWER, NO_RELEASE, NO_KEY, NO_SOURCES])
def test_an_archives_failure_is_a_registry_failure(programs: Programs, unpacked: Path, said: str) -> None:
    programs.fails = said
    with pytest.raises(
        RegistryFailure, match=r"(?s)Debian bookworm could not be.*mirror \(or that of CARDSTOCK_APT\)"
    ) as e:
        bootstrap.make_tar("bookworm", "deb x y z\n", unpacked)
    assert said.splitlines()[-1] in e.value.cause


@pytest.mark.parametrize("said", [NO_ROOM, NO_EXEC])
def test_any_other_is_of_this_machine(programs: Programs, unpacked: Path, said: str) -> None:
    programs.fails = said
    with pytest.raises(CardstockError, match=r"(?s)has room and is not mounted noexec \(CARDSTOCK_HOME") as caught:
        bootstrap.make_tar("bookworm", "deb x y z\n", unpacked)
    assert caught.value.exit_code == 1
    assert said.splitlines()[0] in caught.value.cause
    assert max(map(len, caught.value.cause.splitlines())) <= 200


def test_cleaning_takes_host_and_mirror_away_and_keeps_licences(tmp_path: Path) -> None:
    files = (
        "etc/apt/apt.conf.d/99mmdebstrap",
        "etc/apt/sources.list",
        "etc/apt/sources.list.d/x.sources",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/passwd",
        "etc/apt/trusted.gpg.d/debian.asc",
        "var/lib/apt/lists/mirror.example_Packages",
        "var/log/dpkg.log",
        "var/cache/apt/archives/x.deb",
        "usr/share/doc/bash/copyright",
        "var/lib/dpkg/status",
    )
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/fd").symlink_to("/proc/self/fd")
    bootstrap.clean(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()}
    assert left == {
        "etc/passwd",
        "etc/machine-id",
        "etc/apt/trusted.gpg.d/debian.asc",
        "usr/share/doc/bash/copyright",
        "var/lib/dpkg/status",
    }
    assert (tmp_path / "etc/machine-id").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "dev").is_dir()
