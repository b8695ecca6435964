"""Which Triton kernels a server compiles on this host's card, for each shape of model: a list that is kept as data.

    PYTHONPATH=CHECKOUT python3 -m images.proof.tracing --image IMAGE --scratch FOLDER \\
        [--models 3b,7b,32b,72b] [--by cdi|gpus] [--env NAME=VALUE]… [--mount FOLDER:PLACE]… [--word WORD]… \\
        [--act-as T4 --acted FOLDER --attention triton] [--cards "<8.0"] [--out FILE]

The image is started by its own entry point with a checkpoint of two layers whose weights are made up (--load-format
dummy) and whose widths and heads are those of the model; of images/proof/kernel_code/inside, sitecustomize.py writes
down what is compiled, and ask_server.py asks what makes it compile. A minute or two a model. The folder keeps each
model's trace, so that models can be traced in several calls; each call writes the list of all that lie there. What
--out holds of other cards and attentions stays.

--without-card 7.5 needs none: vLLM's own attention is called in the image as on such a card (call_attention.py there),
and nothing is launched. It knows the kernels of Triton's attention alone, and the list says so.

--act-as T4 makes the server believe in another card, by what acting has left in its own scratch folder (--acted
SCRATCH/acted; any run of it will do). An image for another attention than that card's needs the words that choose it
(--word=--attention-backend --word=TRITON_ATTN) and --attention, the name that the matrix has for it.

Nothing but Python with NumPy and docker is needed on the host. Exit code 0 when every model was traced, 1 when one was
not, 3 without a card.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from images.core import UTC
from images.docker import Mount
from images.proof.acting import acted_card
from images.proof.on_card.runs import NO_CARD, VARIANT, env_of, gpus_of, labels_of, nvidia_smi, own_checkout
from images.proof.tracing.models import NEW, SHAPES
from images.proof.tracing.trace import Tracing, called, finish, merged


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="the list (its place in the checkout without)")
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--by", choices=("cdi", "gpus"), default="cdi", help="how this engine gives cards")
    parser.add_argument("--device", action="append", default=[], help="this card of the host alone, such as 1; repeat")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--mount", action="append", default=[], metavar="FOLDER:PLACE")
    parser.add_argument(
        "--word", action="append", default=[], help="a further word for the server: --word=--dtype --word=half"
    )
    parser.add_argument(
        "--act-as", default="", metavar="CARD", help="make the server believe in another card: T4, L4, …"
    )
    parser.add_argument("--acted", type=Path, help="with --act-as: acted/ of images.proof.acting's --scratch")
    parser.add_argument("--attention", default="", help="the matrix's name of the attention (the image's own without)")
    parser.add_argument("--cards", default="", help='capabilities that this is said of, such as ">=8.0" or "<8.0"')
    parser.add_argument("--without-card", default="", metavar="CAPABILITY", help="ask vLLM's own code, on no card")
    parser.add_argument("--cached", action="store_true", help="with --without-card: what reads a cached prefix in V0")
    words = parser.parse_args()
    if words.act_as and not words.acted:
        parser.error("--act-as needs --acted: the folder acted/ of images.proof.acting's --scratch")
    card = nvidia_smi("--query-gpu=name,driver_version,compute_cap").partition("\n")[0]
    if not card and not words.without_card:
        print("no card to trace on: nvidia-smi finds none", file=sys.stderr)
        return NO_CARD
    name, driver, capability = (part.strip() for part in (card or "-,-,-").split(","))
    labels, image_env = labels_of(words.image), env_of(words.image)
    acted = acted_card(words.act_as) if words.act_as else None
    pairs = (pair.rpartition(":") for pair in words.mount)
    arch = words.without_card or (acted.capability if acted else capability)
    dtype = () if "--dtype" in words.word else ("--dtype", "float16" if float(arch) < NEW else "bfloat16")
    tracing = Tracing(
        words.image,
        image_env,
        words.scratch.absolute(),
        own_checkout(),
        gpus_of(words.device, words.by),
        dict(pair.split("=", 1) for pair in words.env),
        tuple(Mount(folder, place) for folder, _, place in pairs),
        (*dtype, *words.word),
    )
    if acted:
        tracing = tracing.acting(acted, capability, words.acted.absolute())
    if words.without_card:
        source = f"vLLM's own attention called without a card, as on {arch}: {labels.get(VARIANT, words.image)}"
        group = called(tracing, arch, ("--cached",) if words.cached else ())
        own = image_env.get("CARDSTOCK_ATTENTION", "") if words.cached else "triton"
        head = {"cards": words.cards or f"=={arch}", "attention": own, "mark": "S", "source": source}
        head |= {"only_with": "--enable-prefix-caching or --enable-chunked-prefill"} if words.cached else {}
        return finish(tracing, words.out, head | group)
    bad = False
    for model in words.models.split(","):
        told = tracing.trace(model)
        refused = {name: status for name, status in told["asked"].items() if status != 200}
        print(f"{model}: healthy after {told['healthy']} s; not answered: {refused or 'none'}", flush=True)
        if told["healthy"] is None:
            bad = True
            print(told["why"][-1500:], file=sys.stderr)
    group, failed = merged(tracing.scratch)
    seen = f"acted as {acted.name} ({arch}) on {name}" if acted else f"traced on {name} ({capability})"
    head = {
        "cards": words.cards or ("<8.0" if float(arch) < NEW else ">=8.0"),
        "attention": words.attention or image_env.get("CARDSTOCK_ATTENTION", ""),
        "mark": "A",
        "source": f"{seen}, driver {driver}, {datetime.now(UTC):%Y-%m-%d}: {labels.get(VARIANT, words.image)}",
    }
    return finish(tracing, words.out, head | group) or int(bad or bool(failed))


if __name__ == "__main__":
    sys.exit(main())
