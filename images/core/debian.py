"""Debian packages without touching the host's package database: its mirrors, a private apt, an unpacked prefix."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.core import process
from images.core.errors import CardstockError, RegistryFailure

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OS_RELEASE = Path("/etc/os-release")
_TARGET_FORMAT = "$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)\t$(ORIGIN)"
_WEB = ("http", "https", "ftp")


@dataclass(frozen=True)
class Mirror:
    """Where the host gets Debian from: its codename and the archive's and the security archive's addresses."""

    codename: str
    archive: str
    security: str | None = None
    updates: bool = False

    def lines(self, suite: str, components: str = "main", *, keyring: Path | None = KEYRING) -> tuple[str, ...]:
        """One-line apt sources of ``suite``, its updates and, where the host has them, its security fixes."""
        options = f"[signed-by={keyring}] " if keyring else ""
        suites = (suite, f"{suite}-updates") if self.updates else (suite,)
        lines = [f"deb {options}{self.archive} {name} {components}" for name in suites]
        if self.security:
            lines.append(f"deb {options}{self.security} {suite}-security {components}")
        return tuple(lines)


def read_os_release(text: str) -> Mapping[str, str]:
    """The fields of os-release(5), unquoted."""
    fields = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in fields}


def host_codename(os_release: Path = OS_RELEASE) -> str | None:
    """The Debian codename of this host; None where it is not Debian."""
    if not os_release.is_file():
        return None
    fields = read_os_release(os_release.read_text(encoding="utf-8"))
    return fields.get("VERSION_CODENAME") if fields.get("ID") == "debian" else None


def host_name(os_release: Path = OS_RELEASE) -> str:
    """What this host calls itself, such as "Fedora Linux 43"; "" where it does not say."""
    if not os_release.is_file():
        return ""
    return read_os_release(os_release.read_text(encoding="utf-8")).get("PRETTY_NAME", "")


def choose_mirror(codename: str, targets: str) -> Mirror | None:
    """Pick Debian's own archives among the lines of ``apt-get indextargets`` (third parties use the same suites)."""
    rows = [line.split("\t") for line in targets.splitlines() if line.count("\t") == 3]
    # apt writes a field it does not know yet (no lists fetched) as the placeholder itself.
    rows = [[f if not f.startswith("$(") else "" for f in row] for row in rows]
    rows = [row for row in rows if row[1] == "main" and row[2].partition(":")[0] in _WEB and row[3] in ("Debian", "")]

    def first(suite: str) -> str | None:
        matching = [row for row in rows if row[0] == suite]
        matching.sort(key=lambda row: (row[3] != "Debian", "debian" not in row[2]))
        return matching[0][2].rstrip("/") if matching else None

    archive = first(codename)
    if archive is None:
        return None
    return Mirror(codename, archive, first(f"{codename}-security"), first(f"{codename}-updates") is not None)


def host_mirror() -> Mirror | None:
    """The archives that this host's apt is set up with; None where it is not Debian or names no archive."""
    codename = host_codename()
    if codename is None or shutil.which("apt-get") is None:
        return None
    listed = process.run(
        ["apt-get", "indextargets", "--format", _TARGET_FORMAT, "Created-By: Packages"], check=False, timeout=60
    )
    return choose_mirror(codename, listed.out)


class PrivateApt:
    """An apt with its own sources, lists and cache under ``folder``; proxies, CA and logins stay the host's."""

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self.folder = folder
        self.sources = tuple(sources)

    def options(self) -> tuple[str, ...]:
        """The ``-o`` arguments that point apt at this folder."""
        values = {
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            # The unprivileged download user cannot enter a home directory.
            "APT::Sandbox::User": "root",
        }
        return tuple(part for key, value in values.items() for part in ("-o", f"{key}={value}"))

    def update(self) -> None:
        """Fetch the package lists. Raises RegistryFailure when the mirror does not give them."""
        (self.folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        (self.folder / "sources.list").write_text("\n".join(self.sources) + "\n", encoding="utf-8")
        self._apt("update", "-q", "--error-on=any")

    def download(self, packages: Iterable[str], into: Path) -> tuple[Path, ...]:
        """Download and verify ``packages`` (as apt does); the .deb files. Raises RegistryFailure."""
        into.mkdir(parents=True, exist_ok=True)
        self._apt("download", "-q", *packages, cwd=into)
        return tuple(sorted(into.glob("*.deb")))

    def download_missing(self, packages: Iterable[str]) -> tuple[Path, ...]:
        """Download ``packages`` and all that they need and this host has not installed; the .deb files."""
        self._apt("install", "-q", "--yes", "--download-only", "--no-install-recommends", *packages)
        return tuple(sorted((self.folder / "cache" / "archives").glob("*.deb")))

    def download_upgrades(self, root: Path) -> tuple[Path, ...]:
        """Download what an installed system below ``root`` lacks against these sources; the .deb files."""
        archives = self.folder / "cache" / "archives"
        status = ("-o", f"Dir::State::status={root}/var/lib/dpkg/status")
        self._apt("dist-upgrade", *status, "-q", "--yes", "--download-only", "--no-install-recommends")
        return tuple(sorted(archives.glob("*.deb")))

    def _apt(self, *arguments: str, cwd: Path | None = None) -> None:
        try:
            process.run(["apt-get", *self.options(), *arguments], cwd=cwd, timeout=900)
        except process.ProcessFailed as error:
            raise RegistryFailure(
                f"apt could not do: {arguments[0]}",
                cause=error.tail.strip(),
                do="check the mirror and the proxy of this host's apt (apt-get update), then run again",
                where=str(self.folder / "sources.list"),
            ) from error


def unpack(debs: Iterable[Path], prefix: Path) -> None:
    """Unpack packages into ``prefix``; no maintainer script runs."""
    prefix.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        process.run(["dpkg-deb", "-x", str(deb), str(prefix)], timeout=300)


def package_versions(debs: Iterable[Path]) -> dict[str, str]:
    """Name and version of each package, from its own control file."""
    versions = {}
    for deb in debs:
        fields = process.run(["dpkg-deb", "-f", str(deb), "Package", "Version"]).out
        match = re.search(r"^Package: (\S+)$.*^Version: (\S+)$", fields, re.MULTILINE | re.DOTALL)
        if match is None:
            raise CardstockError(f"{deb.name} is not a Debian package", cause=fields.strip())
        versions[match[1]] = match[2]
    return versions
