"""Inside an image, on the real card: what acting needs, made below a folder. One JSON file.

    python -m images.proof.acting.prepare FOLDER --out FILE

FOLDER gets lib/ with the front of NVML (acted/nvml_front.c, by the image's own gcc, so that it fits the image's C
library) and a copy of the driver's own behind it, and the tiny checkpoints. Told are the real card, Triton's ptxas and
versions. Nothing of the image is changed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

from images.core import process
from images.proof.on_card.runs import ROOTFS
from images.proof.tiny_model import write_checkpoint, write_plain

NVML, BEHIND = "libnvidia-ml.so.1", "libnvidia-ml-real.so.1"
FRONT = Path(__file__).with_name("acted") / "nvml_front.c"
TINY, PLAIN = "tiny", "tiny-plain"
VERSIONS = ("torch", "triton", "vllm", "transformers", "xformers", "flash-attn", "numpy")


def compile_front(folder: Path, source: Path = FRONT) -> None:
    """The front as ``folder``/libnvidia-ml.so.1, which needs what is behind it. Raises ProcessFailed."""
    stub = folder / "stub"
    stub.mkdir(exist_ok=True)
    empty = stub / "empty.c"
    empty.write_text("")
    common = ["gcc", "-shared", "-fPIC", "-O1"]
    process.run([*common, f"-Wl,-soname,{BEHIND}", "-o", str(stub / BEHIND), str(empty)], timeout=60)
    words = [f"-Wl,-soname,{NVML}", "-Wl,--no-as-needed", "-o", str(folder / NVML), str(source), str(stub / BEHIND)]
    process.run([*common, *words, "-ldl"], timeout=60)
    shutil.rmtree(stub)


def loaded_from(name: str, maps: Path = Path("/proc/self/maps")) -> Path:
    """The file of a library, once it is loaded. Raises OSError where it is not there."""
    ctypes.CDLL(name)
    stem = name[: name.index(".so") + 3]
    lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    places = (Path(line.split(maxsplit=5)[-1]) for line in lines if "/" in line)
    return next(place for place in places if place.name.startswith(stem))


def make_front(folder: Path) -> str:
    """Front and real library in ``folder``; "" or why there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not shutil.which("gcc"):
        return "the image has no gcc: preflight and nvidia-smi see the real card"
    try:
        shutil.copyfile(loaded_from(NVML), folder / BEHIND)
    except (OSError, StopIteration) as error:
        return f"{NVML} of the driver is not to be found: {error}"
    compile_front(folder)
    return ""


def real_card() -> dict[str, Any]:
    """Name, capability and driver by the image's own reader of NVML."""
    sys.path.insert(0, str(ROOTFS))
    from nvml import read_machine  # type: ignore[import-not-found,unused-ignore]

    machine = read_machine()
    if not machine.cards:
        return {"why": machine.why}
    card = machine.cards[0]
    capability = ".".join(map(str, card.capability))
    return {"name": card.name, "capability": capability, "driver": machine.driver, "cards": len(machine.cards)}


def prepare(folder: Path) -> dict[str, Any]:
    """Everything; facts as JSON values."""
    write_checkpoint(folder / TINY)
    write_plain(folder / PLAIN)
    triton = util.find_spec("triton")
    ptxas = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "ptxas" if triton and triton.origin else None
    return {
        "card": real_card(),
        "front missing": make_front(folder / "acted" / "lib"),
        "ptxas": str(ptxas) if ptxas and ptxas.is_file() else "",
        "versions": {name: metadata.version(name) for name in VERSIONS if [*metadata.distributions(name=name)]},
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    words.out.write_text(json.dumps(prepare(words.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
