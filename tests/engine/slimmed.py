"""Run in a slimmed image, by test_slim.py: hold the environment against its wheels' RECORDs, and its device code
against the cards that it is for. Standard library and images.device_code; prints one JSON object.

    python slimmed.py SITE
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import sys
from pathlib import Path

from images.device_code import fatbin
from images.device_code.layout import SlimRefused
from images.device_code.record import owners
from images.device_code.slim import elf_files, is_nvidia
from images.device_code.strip import make_plan
from images.device_code.write import mapped


def digest(path: Path) -> str:
    """As RECORD writes it."""
    with path.open("rb") as file:
        raw = hashlib.sha256(file.read()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def wrong_rows(site: Path) -> tuple[int, int, list[str]]:
    """Rows with a hash, those of NVIDIA's wheels among them, and what RECORD says that is not so."""
    rows = nvidias = 0
    wrong = []
    for record in sorted(site.glob("*.dist-info/RECORD")):
        with record.open(encoding="utf-8", newline="") as lines:
            for name, recorded, _ in csv.reader(lines):
                path = site / name
                if not path.is_file():
                    wrong.append(f"{record.parent.name}: {name} is missing")
                elif recorded and path.suffix != ".pyc":  # installers compile anew what a wheel brought compiled
                    rows, nvidias = rows + 1, nvidias + record.parent.name.startswith("nvidia_")
                    if digest(path) != recorded:
                        wrong.append(f"{record.parent.name}: {name} has another hash")
    return rows, nvidias, wrong


def device_code(site: Path) -> dict[str, list[list[str]]]:
    """Library -> for each of its containers the code that it holds, as "sm_75"; NVIDIA's left out."""
    owned = owners(site)
    codes = {}
    for path in elf_files(site):
        if not is_nvidia(path, owned.get(path.resolve())):
            containers = fatbin.read(path).containers
            if containers:
                entries = [sorted({f"{e.kind} {e.arch}" for e in container.entries}) for container in containers]
                codes[str(path.relative_to(site))] = entries
    return codes


def unstripped(site: Path) -> list[str]:
    """Libraries with something that no loader maps and that could go; NVIDIA's left out."""
    owned = owners(site)
    names = []
    for path in elf_files(site):
        if is_nvidia(path, owned.get(path.resolve())):
            continue
        with path.open("rb") as file, mapped(file.fileno()) as data:
            try:
                if make_plan(data).pieces:
                    names.append(str(path.relative_to(site)))
            except SlimRefused:
                pass
    return names


def main() -> int:
    """All of it, as JSON."""
    site = Path(sys.argv[1])
    rows, nvidias, wrong = wrong_rows(site)
    result = {
        "rows": rows,
        "nvidias": nvidias,
        "wrong": wrong,
        "code": device_code(site),
        "unstripped": unstripped(site),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
