"""What this site adds to builds: proxy CA, package mirrors, private indexes. From the environment or site.yaml.

Nothing of it reaches an image: files go in as build secrets, bases as named contexts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from images.core.closest_match import closest
from images.core.errors import UsageError
from images.core.outside_input import read_file, to_text
from images.core.yaml_input import MOST_YAML_BYTES, compose_yaml
from images.core.yaml_model import plain_values

FILE = "site.yaml"
# Services that `invoke advisories --update` asks; a mirror of a site answers the same questions.
OSV = "https://api.osv.dev"
DEBIAN_TRACKER = "https://security-tracker.debian.org/tracker/data/json"
_ADDRESSES: Mapping[str, str] = {"osv": OSV, "debian_tracker": DEBIAN_TRACKER}
# Where base images come from: a registry by digest and else packages, or packages only.
BaseSource = Literal["auto", "packages"]
_BASE_SOURCES: Mapping[str, BaseSource] = {"auto": "auto", "packages": "packages"}


@dataclass(frozen=True)
class SiteSettings:
    """Paths of files on this machine, each None where the host's own configuration is used.

    ``ca``: PEM bundle of certificate authorities. ``uv``: a uv.toml with private indexes. ``apt``: an apt sources file
    for the base's release.
    ``pip``: a pip.conf for the installer itself. ``sccache``: NAME=VALUE lines, settings of a compiler cache elsewhere.
    ``bases``: "auto" (a registry by digest, else packages) or "packages". ``osv`` and ``debian_tracker`` are addresses:
    of OSV's API, and of the list of Debian's security tracker.
    """

    ca: Path | None = None
    uv: Path | None = None
    apt: Path | None = None
    pip: Path | None = None
    sccache: Path | None = None
    bases: BaseSource = "auto"
    osv: str = OSV
    debian_tracker: str = DEBIAN_TRACKER


def settings_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where a user's own site.yaml is: $XDG_CONFIG_HOME/cardstock, default ~/.config/cardstock."""
    wanted = (os.environ if environ is None else environ).get("XDG_CONFIG_HOME", "")
    try:
        return (Path(wanted) if wanted else Path.home() / ".config") / "cardstock"
    except RuntimeError:  # neither $HOME nor an entry in /etc/passwd
        return Path("/etc/cardstock")


def read_site(root: Path, environ: Mapping[str, str]) -> SiteSettings:
    """Settings of CARDSTOCK_CA, _UV, _APT, _PIP, _SCCACHE, _BASES, _OSV and _DEBIAN_TRACKER, else of site.yaml.

    Raises UsageError for unknown keys and files that are not there.
    """
    known = [field.name for field in fields(SiteSettings)]
    values: dict[str, str] = {}
    path = root / FILE
    if os.path.lexists(path):  # a pipe or a broken link is no site.yaml that one could do without
        text = to_text(read_file(path, most=MOST_YAML_BYTES), FILE)
        told = plain_values(compose_yaml(text, FILE), (), {}, FILE)
        data = {} if told is None else told
        if not isinstance(data, dict):
            raise UsageError(f"{FILE} is not a mapping", do=f"keys: {', '.join(known)}", where=FILE)
        for key, value in data.items():
            if key not in known:
                raise UsageError(f"{FILE}: unknown key {key!r}", do=f"nearest: {closest(str(key), known)}", where=FILE)
            values[key] = str(value)
    for key in known:
        if value := environ.get(f"CARDSTOCK_{key.upper()}"):
            values[key] = value
    wanted = values.pop("bases", "auto")
    bases = _BASE_SOURCES.get(wanted)
    if bases is None:
        raise UsageError(f"bases: {wanted!r} is not allowed", do="take auto or packages", where=FILE)
    addresses = {key: values.pop(key, usual) for key, usual in _ADDRESSES.items()}
    for key, address in addresses.items():
        if re.fullmatch(r"https?://[^\s/]+(/[^\s?#]*)?", address) is None:
            raise UsageError(f"{key}: {address!r} is not an address", do="write it as in https://host/path", where=FILE)
    files = {key: Path(value).expanduser() for key, value in values.items()}
    for key, file in files.items():
        if not file.is_file():
            raise UsageError(f"{key}: no file {file}", do=f"correct CARDSTOCK_{key.upper()} or {FILE}", where=FILE)
    return SiteSettings(
        ca=files.get("ca"),
        uv=files.get("uv"),
        apt=files.get("apt"),
        pip=files.get("pip"),
        sccache=files.get("sccache"),
        bases=bases,
        osv=addresses["osv"],
        debian_tracker=addresses["debian_tracker"],
    )
