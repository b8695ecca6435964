"""The image that a built one is compared with on a card: the same but for the packages, which are the index's own.

    python -m bench.untouched VARIANT NAME [--whole] [--leave-out NAME]…

`images.proof.lighter` runs both. It takes the stages before anything is dropped, and puts what the image lacks
or holds otherwise into one layer on top of it. Without ``--whole`` that is not what nobody runs in any image (headers,
tests, static archives: images/device_code/unused.py): all of it has to be carried to a card. What ``--leave-out`` names
below site-packages is as in the image, and so is not compared.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.stages import UNTOUCHED, workbench
from images.core import NothingSelected, process
from images.matrix import make_variants
from images.render import Checkout

DOCKERFILE = Path(__file__).with_name("untouched.Dockerfile")


def build_arguments(light: str, stages: dict[str, str], left_out: tuple[str, ...], *, whole: bool) -> list[str]:
    """Arguments of `docker build` for stages' names (of `bench.stages.UNTOUCHED`)."""
    given = {"LIGHT": light, "VENV": stages["venv"], "NVIDIA": stages["nvidia-whole"], "LEFT_OUT": " ".join(left_out)}
    given["WHOLE"] = "yes" if whole else "no"
    return [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]


def build(
    checkout: Checkout, variant_id: str, name: str, left_out: tuple[str, ...] = (), *, whole: bool = False
) -> None:
    """Build ``name`` beside the variant's image. Raises NothingSelected where that is not built, ProcessFailed."""
    bench = workbench(checkout)
    variant = make_variants(bench.matrix).valid.get(variant_id)
    if variant is None or bench.engine.inspect(bench.image_name(variant)) is None:
        raise NothingSelected(
            f"the engine has no image of {variant_id}", do="./inv build builds it: ./inv build --help"
        )
    with ExitStack() as stack:
        stages = {stage: stack.enter_context(bench.stage(variant, stage)) for stage in UNTOUCHED}
        words = build_arguments(bench.image_name(variant), stages, left_out, whole=whole)
        context = str(checkout.root / "images" / "device_code")
        argv = ["docker", "build", "--progress=plain", "--tag", name, "--file", str(DOCKERFILE), *words, context]
        process.stream(argv, bench.report.line, env=bench.engine.cli_env())


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant")
    parser.add_argument("name")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--leave-out", action="append", default=[])
    words = parser.parse_args()
    build(Checkout(Path(__file__).parents[1]), words.variant, words.name, tuple(words.leave_out), whole=words.whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
