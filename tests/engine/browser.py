"""Headless Chromium for tests: this machine's, or Debian's, unpacked once; and the Python that drives it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from images.core import debian, process
from images.core.home import default_layout
from images.core.locked_environment import provide_environment

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core")
_HELP = "install Chromium or Chrome, so that one of these is on PATH: " + ", ".join(NAMES)
# The packages' fonts lie where no fontconfig looks, and a bare machine has neither fonts nor a configuration.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>{prefix}/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{prefix}/fonts-cache</cachedir>
<match><edit name="family" mode="append_last"><string>DejaVu Sans</string></edit></match>
</fontconfig>
"""


@dataclass(frozen=True)
class Browser:
    """A Chromium: its program, and what to add to its environment."""

    program: Path
    environment: dict[str, str] = field(default_factory=dict)

    def works(self) -> bool:
        """Whether it starts: a library of it may have gone with a package of this host."""
        argv = [str(self.program), "--version"]
        return process.run(argv, env=self.environment, check=False, timeout=60).code == 0


def driver() -> Path:
    """The Python that has playwright, pytest, Pillow and av, made of dev/browser.lock if it is not there yet."""
    return provide_environment(Path(__file__).parents[2] / "dev/browser.lock", default_layout().home, print)


def chromium() -> Browser:
    """This machine's, or one fetched into the state directory. Fails, with what to do, where neither can be."""
    for name in NAMES:
        if program := shutil.which(name):
            return Browser(Path(program))
    prefix = default_layout().home / "test" / "chromium"
    if not _unpacked(prefix).program.is_file() or not _unpacked(prefix).works():
        _fetch(prefix)
    (prefix / "fonts.conf").write_text(_FONTS.format(prefix=prefix))
    if not _unpacked(prefix).works():
        pytest.fail(f"Debian's Chromium does not start here: {_HELP}")
    return _unpacked(prefix)


def _fetch(prefix: Path) -> None:
    mirror = debian.host_mirror()
    if mirror is None:
        pytest.fail(f"no Chromium here, and apt names no Debian archive to take one from: {_HELP}")
    work = prefix.with_name(f"{prefix.name}.{os.getpid()}")
    apt = debian.PrivateApt(work / "apt", mirror.lines(mirror.codename))
    apt.update()
    debian.unpack(apt.download_missing(PACKAGES), work / "out")
    shutil.rmtree(prefix, ignore_errors=True)
    (work / "out").rename(prefix)
    shutil.rmtree(work)


def _unpacked(prefix: Path) -> Browser:
    name = f"{os.uname().machine}-linux-gnu"
    places = [prefix / place / name for place in ("usr/lib", "lib")]
    libraries = ":".join(map(str, [*places, places[0] / "pulseaudio", places[0] / "nss"]))
    environment = {"LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(prefix / "fonts.conf")}
    return Browser(prefix / "usr/lib/chromium/chromium-headless-shell", environment)
