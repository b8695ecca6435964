"""The state folder: $CARDSTOCK_HOME, or ~/.cache/cardstock, and the paths of what lies in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from images.core.errors import UsageError


@dataclass(frozen=True)
class Layout:
    """The paths of one embedded engine."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home / "engine"

    @property
    def prefix(self) -> Path:
        return self.root / "prefix"

    @property
    def stamp(self) -> Path:
        return self.prefix / "packages.json"

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def exec(self) -> Path:
        return self.root / "exec"

    @property
    def pidfile(self) -> Path:
        return self.root / "docker.pid"

    @property
    def log(self) -> Path:
        return self.root / "dockerd.log"

    @property
    def config(self) -> Path:
        return self.root / "daemon.json"

    @property
    def cli_config(self) -> Path:
        return self.root / "cli"

    @property
    def bridge(self) -> str:
        return "cardstock" + hashlib.sha256(str(self.home).encode()).hexdigest()[:6]

    @property
    def path(self) -> str:
        own = (self.root / "bin", *(self.prefix / "usr" / name for name in ("bin", "sbin")))
        system = ("/usr/local/sbin", "/usr/sbin", "/sbin")
        return ":".join([*map(str, own), os.environ.get("PATH", os.defpath), *system])


def default_layout(environment: Mapping[str, str] | None = None) -> Layout:
    """The engine of $CARDSTOCK_HOME, default ~/.cache/cardstock. Raises UsageError where neither is known."""
    wanted = (os.environ if environment is None else environment).get("CARDSTOCK_HOME")
    try:
        return Layout(Path(wanted).expanduser().absolute() if wanted else Path.home() / ".cache" / "cardstock")
    except RuntimeError as error:  # neither $HOME nor an entry in /etc/passwd
        raise UsageError(
            "there is no place for the state folder",
            cause=str(error),
            do="name one: CARDSTOCK_HOME=/path/to/a/folder",
        ) from error
