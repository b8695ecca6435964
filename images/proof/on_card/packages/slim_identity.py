"""On a host with one card: does a slimmed torch compute the same bits as the untouched one, and fail as it should?

    python -m images.proof.on_card.packages.slim_identity --card 9.0 --other 7.5 --out records/cards/NAME.json

Needs torch (CUDA) and transformers in this Python, and room for copies of torch's libraries in the temporary folder;
with nvcc it also finds out what an emptied container does. The installed torch is never written to. Exit code 0 when
every expectation held.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import mmap
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from images.core import process
from images.device_code.choose import Wanted, parse_wanted, pick, read_containers
from images.device_code.layout import device_sections, read_layout
from images.device_code.record import file_hash, owners
from images.device_code.slim import slim_folder, slim_library
from images.device_code.strip import strip_folder

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[4]
LOADING = ("LAZY", "EAGER")


def copy_torch(target: Path) -> Path:
    """torch and its RECORD under ``target``/site-packages, as links to the installed files, which stay as they are.

    Slimming puts new files in the place of links' own names and so does not reach through a hard link.
    """
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent.parent
    site = target / "site-packages"
    site.mkdir(parents=True)
    for folder in (installed / "torch", *installed.glob("torch-*.dist-info")):
        shutil.copytree(folder, site / folder.name, symlinks=True, copy_function=_link)
    if (installed / "nvidia").is_dir():
        (site / "nvidia").symlink_to(installed / "nvidia")
    return site


def _link(source: str, target: str) -> None:
    if Path(source).suffix == ".py" or Path(source).name == "RECORD":
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def without_code(folder: Path, card: Wanted) -> dict[str, list[int]]:
    """What the libraries say beforehand: library -> [containers without code for ``card``, containers]."""
    counts = {}
    for path in sorted(folder.rglob("*.so*")):
        if path.is_symlink() or path.stat().st_size == 0:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"\x7fELF":
                continue
            sections = list(device_sections(read_layout(data)))
            containers = [one for _, section in sections for one in read_containers(data, section)]
            if containers:
                counts[path.name] = [sum(not pick(one.entries, [card]) for one in containers), len(containers)]
    return counts


def work(site: Path | None, loading: str) -> dict[str, Any]:
    """Run the worker with the torch of ``site`` (None: the installed one)."""
    env = {"CUDA_MODULE_LOADING": loading, "PYTHONPATH": str(site) if site else "", "HF_HUB_OFFLINE": "1"}
    done = process.run([sys.executable, str(HERE / "slim_worker.py")], env=env, check=False, timeout=300)
    try:
        result: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"exit code {done.code}: {done.err[-400:]}"}
    folder = result.pop("torch_folder", None)
    if folder is not None:
        result["own_torch"] = site is not None and Path(folder).is_relative_to(site)
    return result


def slim_copy(scratch: Path, name: str, arch: Wanted, *, empty_unmatched: bool = False) -> tuple[Path, dict[str, Any]]:
    """A copy of torch stripped and slimmed for ``arch`` as a build does it, and what slimming said of it."""
    site = copy_torch(scratch / name)
    begun = time.perf_counter()
    stripped = (0, 0)
    if empty_unmatched:
        reports = [
            report
            for path in sorted((site / "torch" / "lib").glob("libtorch*.so"))
            if (report := slim_library(path, [arch], hollow=True)) is not None
        ]
    else:
        stripped = strip_folder(site)
        folder = slim_folder(site, [arch])
        assert not folder.refused, folder.refused
        reports = list(folder.libraries)
        check_record(site)
    return site, {
        "seconds": round(time.perf_counter() - begun, 2),
        "hollow": empty_unmatched,
        "stripped": {"libraries": stripped[0], "bytes": stripped[1]},
        "libraries": [
            {
                "name": Path(one.path).name,
                "before": one.before,
                "after": one.after,
                "archs_before": one.archs_before,
                "archs_after": one.archs_after,
                "emptied": one.emptied,
            }
            for one in reports
        ],
    }


def check_record(site: Path) -> None:
    """Every library of the copy must be as its wheel's RECORD says."""
    for path, owner in owners(site.resolve()).items():
        if path.suffix == ".so" and path.is_file():
            line = next(row for row in owner.record.read_text().splitlines() if row.startswith(f"{owner.row},"))
            assert line == f"{owner.row},{file_hash(path)},{path.stat().st_size}", line


def try_emptied_library(scratch: Path, card: Wanted) -> dict[str, Any]:
    """The small library untouched, with the smallest entry kept, and with an emptied container: what each says."""
    if shutil.which("nvcc") is None:
        return {"not run": "no nvcc on this host"}
    scratch.mkdir()
    env = {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / "slim_empty.py")]
    library = Path(process.run([*command, "build", str(scratch)], env=env, timeout=200).out.split()[-1])
    results: dict[str, Any] = {}
    for name in ("untouched", "smallest entry kept", "emptied"):
        copy = Path(shutil.copy2(library, scratch / f"{name.replace(' ', '-')}.so"))
        if name != "untouched":
            report = slim_library(copy, [card], hollow=name == "emptied")
            assert report is not None
            results[f"{name}: slimmed"] = [report.archs_before, report.archs_after, report.emptied]
        for loading in LOADING:
            env["CUDA_MODULE_LOADING"] = loading
            done = process.run([*command, "run", str(copy)], env=env, check=False, timeout=60)
            results[f"{name}, {loading}"] = json.loads(done.out) if done.code == 0 else {"error": done.err[-400:]}
    return results


def expectations(runs: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """What must hold, by name."""
    first = runs["untouched LAZY"]
    held = {}
    for name, run in runs.items():
        if name.startswith("other"):
            held[f"{name}: fails as no kernel image"] = "no kernel image" in run.get("error", "")
            continue
        same = "cases" in run and all(
            run["cases"][case]["logits_sha256"] == expected["logits_sha256"]
            and run["cases"][case]["generated"] == expected["generated"]
            and expected["finite"]
            for case, expected in first["cases"].items()
        )
        held[f"{name}: same bits as untouched"] = same
        held[f"{name}: cholesky too"] = run.get("cholesky_sha256") == first["cholesky_sha256"]
        held[f"{name}: its own torch"] = run.get("own_torch") == (not name.startswith("untouched"))
    return held


def main() -> int:
    """Run all, write the record, print what held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", required=True, help="this host's card, such as 9.0")
    parser.add_argument("--other", required=True, help="a card whose code this one cannot run, such as 7.5")
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    card, other = parse_wanted(words.card), parse_wanted(words.other)
    runs: dict[str, dict[str, Any]] = {}
    slims: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="slim-identity-") as name:
        scratch = Path(name)
        runs["untouched LAZY"] = work(None, "LAZY")
        runs["untouched LAZY again"] = work(None, "LAZY")
        runs["untouched EAGER"] = work(None, "EAGER")
        for title, arch, empty_unmatched in (
            ("slimmed", card, False),
            ("other", other, False),
            ("other emptied", other, True),
        ):
            site, slims[title] = slim_copy(scratch, title.replace(" ", "-"), arch, empty_unmatched=empty_unmatched)
            slims[title]["without code for the card"] = without_code(site / "torch", card)
            for loading in LOADING:
                runs[f"{title} {loading}"] = work(site, loading)
            shutil.rmtree(site)
        emptied = try_emptied_library(scratch / "emptied", card)
    held = expectations(runs)
    record = {
        "card": words.card,
        "other": words.other,
        "gpu": gpu(),
        "python": platform.python_version(),
        "slims": slims,
        "runs": runs,
        "emptied_container": emptied,
        "held": held,
    }
    words.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for expectation, ok in held.items():
        print(f"{'held' if ok else 'NOT HELD'}: {expectation}")
    return 0 if all(held.values()) else 1


def gpu() -> str:
    """The card and driver by name."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return process.run(command, check=False).out.strip()


if __name__ == "__main__":
    sys.exit(main())
