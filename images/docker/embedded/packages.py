"""What an embedded engine has on disk: its paths, the unpacked packages, its configuration, its packet filter."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from images.core import EngineUnreachable, Layout, PrintLine, debian

# Sockets of the engine lie below the state directory, and a socket's path has at most 107 bytes.
_HOME_MAX = 60
# Debian releases whose own docker.io is too old (no BuildKit bake): take these packages from the next one.
_ENGINE_SUITE = {"bookworm": "trixie"}
_ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd")
# From the host's own release: the next one's runc wants a newer libc, and iptables must fit the libraries below.
_HOST_PACKAGES = (
    "runc",
    "tini",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libxtables12",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
)
_HELP = (
    "start your Docker engine, or set DOCKER_HOST to one; if it runs, add yourself to the docker group; "
    "or run as root (sudo) on Debian 12 or later, where Cardstock brings an engine of its own"
)


def can_carry(layout: Layout) -> debian.Mirror:
    """Say whether this host, as it is now, can carry the engine. Raises as `require_host` does."""
    codename, mirror = debian.host_codename(), debian.host_mirror()
    return require_host(layout, uid=os.geteuid(), codename=codename, mirror=mirror, name=debian.host_name())


def require_host(
    layout: Layout, *, uid: int, codename: str | None, mirror: debian.Mirror | None, name: str = ""
) -> debian.Mirror:
    """Say whether this host can carry the engine. Raises EngineUnreachable with what to do instead."""
    cause = ""
    if codename is None:  # first: root would not help
        said = f" but {name}" if name else ""
        cause = (
            f"no engine answers, and an engine of Cardstock's own is made of Debian packages (this is not Debian{said})"
        )
    elif uid != 0:
        cause = f"no engine answers, and an engine of Cardstock's own needs root (this is user id {uid})"
    elif codename == "bullseye":
        cause = "no engine answers, and an engine of Cardstock's own needs Debian 12 or later"
    elif len(str(layout.home)) > _HOME_MAX:
        cause = f"the state directory's path is longer than {_HOME_MAX} characters, too long for the engine's sockets"
        raise EngineUnreachable(
            "no Docker engine can be reached",
            cause=cause,
            do="set CARDSTOCK_HOME to a shorter path",
            where=str(layout.home),
        )
    elif mirror is None:
        cause = "no engine answers, and apt on this host names no Debian archive to take an engine from"
    if cause or mirror is None:
        raise EngineUnreachable("no Docker engine can be reached", cause=cause, do=_HELP)
    return mirror


def _sources(mirror: debian.Mirror) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    suite = _ENGINE_SUITE.get(mirror.codename, mirror.codename)
    return (
        ("engine", mirror.lines(suite), _ENGINE_PACKAGES),
        ("host", mirror.lines(mirror.codename), _HOST_PACKAGES),
    )


def _recipe() -> str:
    return " ".join([*_ENGINE_PACKAGES, *_HOST_PACKAGES])


def installed(layout: Layout) -> bool:
    """Whether the packages of this version of Cardstock are unpacked, to the last."""
    try:
        stamp = json.loads(layout.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(stamp.get("recipe") == _recipe())


def install(layout: Layout, mirror: debian.Mirror, say: PrintLine) -> None:
    """Download the packages and unpack them into the prefix; one that broke off half-way is done anew."""
    if installed(layout):
        return
    say(f"fetching a Docker engine from Debian packages into {layout.prefix}")
    work = layout.root / "prefix.new"
    shutil.rmtree(work, ignore_errors=True)
    versions: dict[str, str] = {}
    for name, sources, packages in _sources(mirror):
        apt = debian.PrivateApt(layout.root / "apt" / name, sources)
        apt.update()
        debs = apt.download(packages, work / f"debs-{name}")
        debian.unpack(debs, work)
        versions |= debian.package_versions(debs)
        shutil.rmtree(work / f"debs-{name}")
    stamp = {"recipe": _recipe(), "packages": dict(sorted(versions.items()))}
    (work / layout.stamp.name).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(layout.prefix, ignore_errors=True)
    work.rename(layout.prefix)
    shutil.rmtree(layout.root / "apt", ignore_errors=True)


def write_cli_config(layout: Layout, user_config: Path) -> None:
    """A CLI configuration folder with buildx as a plug-in; logins stay where the user has them (a link)."""
    plugins = layout.cli_config / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    _link(plugins / "docker-buildx", layout.prefix / "usr/libexec/docker/cli-plugins/docker-buildx")
    if user_config.is_file():
        _link(layout.cli_config / "config.json", user_config)


def _link(path: Path, target: Path) -> None:
    if path.is_symlink() and path.readlink() == target:
        return
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def cli_env(layout: Layout) -> dict[str, str]:
    """What to add to the environment so that ``docker`` and ``docker buildx`` are found and meet this engine."""
    return {"DOCKER_HOST": layout.endpoint, "DOCKER_CONFIG": str(layout.cli_config), "PATH": layout.path}
