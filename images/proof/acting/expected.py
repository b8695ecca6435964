"""Inside an image: what the matrix's rules expect of its stack on other cards. One JSON file.

    python -m images.proof.acting.expected --stack cu130 --engine vllm --attention flash-attn \\
        --arch 7.5 --arch 8.0 --out FILE

The image's Python has what matrix.yaml is read with (pydantic, PyYAML, packaging); the host of a card may not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from images.matrix import Arch, Matrix, Variant, Variants, load_matrix, make_variants, parse_arch
from images.proof.on_card.runs import ROOT, read_env

# Backends as vLLM names them, by the matrix's word for the attention.
BACKENDS = {"flash-attn": "FLASH_ATTN", "triton": "TRITON_ATTN", "xformers": "XFORMERS", "flashinfer": "FLASHINFER"}
AWQ_REFUSED = "awq-not-on-"  # how the ids of such notes begin


@dataclass(frozen=True)
class Expected:
    """What the image of a stack for one capability does there, by the matrix.

    ``variant`` is that image, "" where a rule excludes every one: then ``refused`` has the rules' reasons. ``env`` is
    its environment; ``attention`` vLLM's name of the backend, ``dtype`` "float16" where the matrix asks for it, else
    ""; ``awq`` the note by which AWQ is refused, "" where it is not.
    """

    variant: str
    attention: str = ""
    dtype: str = ""
    awq: str = ""
    refused: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


def expected(
    matrix: Matrix, variants: Variants, stack: str, engine: str, attention: str, arch: Arch, root: Path = ROOT
) -> Expected:
    """Of the image that has ``attention``; another's is taken where the packages of this one serve it, too."""
    fitting = [v for v in variants.valid.values() if (v.stack, v.backend, v.archs) == (stack, engine, (arch,))]
    able = [v for v in fitting if v.attention == attention or v.kernel is None]
    if not able:
        others = [f"{v.id} has kernels of its own, which this image has not" for v in fitting]
        return Expected("", refused="; ".join(others or _reasons(variants, stack, engine, arch)))
    variant = min(able, key=lambda v: (v.attention != attention, matrix.attention.index(v.attention)))
    return Expected(
        variant.id,
        BACKENDS.get(variant.attention, ""),
        _dtype(variant),
        next((note.id for note in variant.notes if note.id.startswith(AWQ_REFUSED)), ""),
        env={**read_env(variant.id), "CARDSTOCK_VARIANT": variant.id},
    )


def _reasons(variants: Variants, stack: str, engine: str, arch: Arch) -> list[str]:
    """Why no attention of a stack has an image for this card: the reasons of the rules that exclude them all."""
    points = [
        {rule.id: rule.reason for rule in one.rules}
        for one in variants.excluded
        if (one.point.stack, one.point.backend, one.point.archs) == (stack, engine, (arch,))
    ]
    shared = [reason for name, reason in points[0].items() if all(name in one for one in points)] if points else []
    return shared or [f"no image of {stack} with {engine} is made for {arch.capability}"]


def _dtype(variant: Variant) -> str:
    given = dict(zip(variant.args, variant.args[1:], strict=False)).get("--dtype", "")
    return {"half": "float16"}.get(given, given)


def all_expected(stack: str, engine: str, attention: str, archs: Sequence[str], root: Path = ROOT) -> dict[str, object]:
    """Capability -> `Expected` as JSON values."""
    matrix = load_matrix(root / "matrix.yaml")
    variants = make_variants(matrix)
    return {arch: asdict(expected(matrix, variants, stack, engine, attention, parse_arch(arch))) for arch in archs}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("stack", "engine", "attention"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--arch", action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    words.out.write_text(json.dumps(all_expected(words.stack, words.engine, words.attention, words.arch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
