"""Inside the image: what is installed, who runs, and what a build left behind. One JSON object on stdout.

    python probe.py [PATH]...        PATHs are files whose presence and mode are asked

Reads only; every list holds paths or lines as found, judged outside by images/proof/smoke/stack.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import ssl
import stat
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

# Programs that translate or link, with a target's prefix and a version's suffix; not make, not Triton's own ptxas,
# which is part of its wheel and has no use without it.
COMPILER = re.compile(
    r"(?:[a-z0-9_]+-(?:pc-)?linux-gnu-)?"
    r"(?P<name>gcc|g\+\+|cc|c\+\+|cpp|c89|c99|clang|clang\+\+|clang-cpp|tcc|ld|ld\.bfd|ld\.gold|ld\.lld|lld|gold|mold|as"
    r"|collect2|cc1|cc1plus|lto1|gfortran|nvcc|cicc|cudafe\+\+|rustc|go)(?:-\d+(?:\.\d+)*)?"
)
SKIPPED = {"/proc", "/sys", "/dev", "/run"}
CONFIGS = (
    *("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "/etc/uv/uv.toml", "/etc/xdg/uv/uv.toml", "/etc/apt/sources.list"),
    *("/root/.config/pip/pip.conf", "/root/.pip/pip.conf", "/root/.config/uv/uv.toml", "/root/.netrc"),
)
APT_FOLDERS = ("sources.list.d", "apt.conf.d", "auth.conf.d")
URL = re.compile(r"https?://[^\s\"']+")


def normal(name: str) -> str:
    """A package name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions() -> dict[str, str]:
    """Installed package (normal name) to version."""
    return {normal(found.metadata["Name"]): found.version for found in metadata.distributions()}


def conflicts(installed: dict[str, str]) -> list[dict[str, str]]:
    """Requirements that no installed package meets, as pip check would tell; extras are not asked for."""
    from packaging.requirements import Requirement

    out = []
    for distribution in metadata.distributions():
        for line in distribution.requires or ():
            need = Requirement(line)
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            found = installed.get(normal(need.name))
            if found is None or not need.specifier.contains(found, prereleases=True):
                name = distribution.metadata["Name"]
                out.append({"by": name, "needs": line, "package": normal(need.name), "found": found or "nothing"})
    return out


def stand_ins() -> dict[str, list[str]] | None:
    """What the image's own list of stand-ins says: files below site-packages that are stand-ins (``made``) or deleted
    (``gone``), and the packages of which nothing is left (normal names, ``packages``). None without such a list.
    """
    try:
        text = metadata.distribution("cardstock-stand-ins").read_text("stand_ins.json")
    except metadata.PackageNotFoundError:
        return None
    listed = json.loads(text or "{}")
    return {
        "made": sorted(one["file"] for one in listed.get("stand_ins", ())),
        "gone": sorted(one["file"] for one in listed.get("gone", ())),
        "packages": sorted(normal(one.partition(" ")[0]) for one in listed.get("distributions", ())),
    }


def walk(root: str) -> Iterator[tuple[Path, list[str]]]:
    """Folders below ``root`` with their files; virtual file systems and what is mounted for us left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if str(Path(folder, name)) not in SKIPPED]
        yield Path(folder), files


def search(root: str = "/") -> tuple[list[str], list[str]]:
    """Compilers (executable files by name), and caches of installers, below ``root``."""
    compilers, caches = [], []
    for folder, files in walk(root):
        if folder.name in ("pip", "uv") and folder.parent.name in (".cache", "cache") and files:
            caches.append(str(folder))
        for name in files:
            path = folder / name
            if COMPILER.fullmatch(name) and os.access(path, os.X_OK) and not path.is_dir():
                compilers.append(str(path))
            elif path.suffix == ".deb" or (str(folder).startswith("/var/lib/apt/lists") and name != "lock"):
                caches.append(str(path))
    return compilers, caches


def privileged(root: str = "/") -> list[str]:
    """Files and folders below ``root`` that give who runs them, or writes into them, another user's or group's rights.

    As `find / -perm /6000`; links have no mode of their own.
    """
    out = []
    for folder, files in walk(root):
        for path in (folder, *(folder / name for name in files)):
            try:
                mode = path.lstat().st_mode
            except OSError:
                continue  # gone since, or not ours to ask for
            if not stat.S_ISLNK(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                out.append(str(path))
    return sorted(out)


def configurations() -> list[dict[str, str]]:
    """URLs, and settings about indexes, proxies and certificates, in configuration files of installers."""
    home = os.environ.get("HOME", "/nonexistent")
    paths = [Path(name) for name in CONFIGS]
    paths += [Path(home, name) for name in (".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml", ".netrc")]
    paths.append(Path(sys.prefix, "pip.conf"))
    for name in APT_FOLDERS:
        paths += sorted(Path("/etc/apt", name).glob("*"))
    out = []
    for path in dict.fromkeys(paths):
        try:
            text = path.read_text(errors="replace") if path.is_file() else ""
        except OSError:
            continue  # not ours to read, so not the container user's either
        lines = [line.strip() for line in text.splitlines() if not line.lstrip().startswith(("#", "//"))]
        for line in lines:
            if URL.search(line) or re.search(r"index|proxy|cainfo|password|machine ", line, re.IGNORECASE):
                out.append({"path": str(path), "line": line[:200]})
    return out


def certificates() -> list[str]:
    """SHA-256 of every certificate that this image trusts: the system's bundle and the one of certifi."""
    bundles = [Path("/etc/ssl/certs/ca-certificates.crt"), *Path("/usr/local/share/ca-certificates").rglob("*.crt")]
    bundles += [Path(folder, "certifi/cacert.pem") for folder in sys.path if folder]
    out = set()
    for path in bundles:
        if path.is_file():
            text = path.read_text(errors="replace")
            for block in re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL):
                out.add(hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest())
    return sorted(out)


def xformers_build() -> dict[str, object] | None:
    """Content of xformers' cpp_lib.json, which its build writes; None without it."""
    for folder in sys.path:
        path = Path(folder, "xformers", "cpp_lib.json")
        if folder and path.is_file():
            loaded: dict[str, object] = json.loads(path.read_text())
            return loaded
    return None


def entries(paths: list[str]) -> dict[str, dict[str, bool]]:
    """Of each asked path: whether it is a file there, and whether this user may run it."""
    out = {}
    for text in paths:
        found = shutil.which(text) or text
        out[text] = {"exists": Path(found).is_file(), "executable": os.access(found, os.X_OK)}
    return out


def probe(paths: list[str]) -> dict[str, object]:
    """All of it."""
    installed = versions()
    compilers, caches = search()
    secrets = [str(path) for path in Path("/run/secrets").glob("*")] if Path("/run/secrets").is_dir() else []
    return {
        "python": platform.python_version(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "versions": installed,
        "conflicts": conflicts(installed),
        "stand_ins": stand_ins(),
        "compilers": sorted(compilers),
        "caches": sorted(caches),
        "privileged": privileged(),
        "configurations": configurations(),
        "secrets": secrets,
        "certificates": certificates(),
        "xformers_build": xformers_build(),
        "entries": entries(paths),
    }


if __name__ == "__main__":
    json.dump(probe(sys.argv[1:]), sys.stdout)
