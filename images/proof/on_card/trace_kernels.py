"""Which Triton kernels a server compiles on this host's card, for each shape of model: a list that is kept as data.

    PYTHONPATH=CHECKOUT python3 -m images.proof.on_card.trace_kernels --image IMAGE --scratch FOLDER \\
        [--models 3b,7b,32b,72b] [--by cdi|gpus] [--env NAME=VALUE]… [--mount FOLDER:PLACE]… [--word WORD]… \\
        [--act-as T4 --acted FOLDER --attention triton] [--cards "<8.0"] [--out FILE]

The image is started by its own entry point with a checkpoint of two layers whose weights are made up (--load-format
dummy) and whose widths and heads are those of the model; inside/sitecustomize.py writes down what is compiled, and
inside/ask_server.py asks what makes it compile. A minute or two a model. The folder keeps each model's trace, so that
models can be traced in several calls; each call writes the list of all that lie there. What --out holds of other cards
and attentions stays.

--without-card 7.5 needs none: vLLM's own attention is called in the image as on such a card (inside/call_attention.py),
and nothing is launched. It knows the kernels of Triton's attention alone, and the list says so.

--act-as T4 makes the server believe in another card, by what acting.py has left in its own scratch folder (--acted
SCRATCH/acted; any run of it will do). An image for another attention than that card's needs the words that choose it
(--word=--attention-backend --word=TRITON_ATTN) and --attention, the name that the matrix has for it.

Nothing but Python with NumPy and docker is needed on the host. Exit code 0 when every model was traced, 1 when one was
not, 3 without a card.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from images.core import UTC, process
from images.docker import TMPFS, ContainerSpec, Gpus, Mount, docker_words
from images.proof.kernel_code import traces
from images.proof.on_card.acting_cards import ActedCard, acted_card
from images.proof.on_card.acting_containers import ACTED, acted_env
from images.proof.on_card.lighter_containers import NO_MULTICAST, gpus_of, labels_of, nvidia_smi, own_checkout
from images.proof.tiny_model import checkpoint, qwen2_5_vl

NO_CARD = 3
INSIDE = "images/proof/kernel_code/inside"
DATA = Path("images/proof/kernel_code/data")
TRACE, WRITTEN, MODEL = "/trace", "/written", "/model"
VARIANT = "dev.cardstock.variant"
START_LIMIT = 400.0
ASK_LIMIT = START_LIMIT + 500
USER = 10001  # of every image (dockerfiles/templates)
PTXAS = "/opt/venv/lib/python3.11/site-packages/triton/backends/nvidia/bin/ptxas"


@dataclass(frozen=True)
class Widths:
    """What of a model's shape a kernel can see; ``vision`` is the width of the tower's MLP."""

    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    vision: int


# images/run/fit/families.py has the sources; the published AWQ 72B is padded from 29568.
SHAPES = {
    "3b": Widths(2048, 16, 2, 11008, 151936, 3420),
    "7b": Widths(3584, 28, 4, 18944, 152064, 3420),
    "32b": Widths(5120, 40, 8, 27648, 152064, 3456),
    "72b": Widths(8192, 64, 8, 29696, 152064, 3456),
}
LAYERS, VISION_LAYERS = 2, 2
NEW = 8.0  # from here on cards compute in bfloat16


def config(shape: Widths) -> dict[str, Any]:
    """config.json of two layers of a model."""
    settings: dict[str, Any] = qwen2_5_vl.config()
    settings |= {
        "vocab_size": shape.vocabulary, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_hidden_layers": LAYERS, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 32768, "sliding_window": 32768, "max_window_layers": LAYERS,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    settings["vision_config"] |= {
        "depth": VISION_LAYERS, "hidden_size": 1280, "num_heads": 16, "intermediate_size": shape.vision,
        "out_hidden_size": shape.hidden, "fullatt_block_indexes": [1],
    }  # fmt: skip
    return settings


def write_model(folder: Path, shape: Widths) -> None:
    """A checkpoint without weights: the tiny one's files with a model's widths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in checkpoint.files().items():
        if name != "model.safetensors":
            (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config(shape), indent=1))
    seen = json.loads((folder / "preprocessor_config.json").read_text())
    seen |= {"min_pixels": 3136, "max_pixels": 12845056}
    (folder / "preprocessor_config.json").write_text(json.dumps(seen, indent=1))


@dataclass(frozen=True)
class Tracing:
    """One run: the image and its own environment, where it writes, and what the host's engine needs."""

    image: str
    image_env: dict[str, str]
    scratch: Path
    checkout: Path
    gpus: Gpus
    env: dict[str, str]
    mounts: tuple[Mount, ...]
    words: tuple[str, ...]

    def spec(self, model: str) -> ContainerSpec:
        """The server of a model, watched."""
        path = [TRACE, self.env.get("PYTHONPATH", ""), self.image_env.get("PYTHONPATH", "")]
        env = {
            **NO_MULTICAST,
            "HF_HUB_OFFLINE": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "NCCL_SOCKET_IFNAME": "lo",
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CARDSTOCK_TRITON_TRACE": WRITTEN,
            **self.env,
            "PYTHONPATH": ":".join(filter(None, path)),
        }
        return ContainerSpec(
            self.image,
            ("--model", MODEL, "--served-model-name", "model", "--load-format", "dummy", "--max-model-len", "8192",
             "--gpu-memory-utilization", "0.5", *self.words),
            name=f"cardstock-trace-{model}",
            env=tuple(env.items()),
            mounts=(
                Mount(str(self.checkout / INSIDE), TRACE),
                Mount(str(self.scratch / model / "model"), MODEL),
                Mount(str(self.scratch / model / "written"), WRITTEN, read_only=False),
                Mount(str(self.scratch / "cache"), "/cache", read_only=False),
                *self.mounts,
            ),
            gpus=self.gpus,
            shm=8,
            network="none",
            healthcheck=False,
        )  # fmt: skip

    def acting(self, card: ActedCard, real: str, folder: Path) -> Tracing:
        """The same, of a server that believes in ``card``; ``folder`` is what acting.py makes for that."""
        acted = acted_env(card, real, PTXAS, "trace", self.image_env, shared=False)
        # Nothing is told of what was changed, and preflight would judge the image by the acted card.
        own = {"CARDSTOCK_ACTED_TOLD": "", "CARDSTOCK_SKIP_PREFLIGHT": "1", "PYTHONPATH": ACTED}
        return replace(self, env={**acted, **own, **self.env}, mounts=(*self.mounts, Mount(str(folder), ACTED)))

    def trace(self, model: str) -> dict[str, Any]:
        """Serve a model and ask; what was asked, or why the server did not come up, also in a file beside the trace."""
        place = self.scratch / model
        # What lies compiled in a cache is not compiled again, and would not be seen.
        for old in (place, self.scratch / "cache"):
            shutil.rmtree(old, ignore_errors=True)
        for folder in (place / "written", self.scratch / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
        write_model(place / "model", SHAPES[model])
        spec = self.spec(model)
        process.run(["docker", "rm", "--force", spec.name], check=False, timeout=60)
        process.run(docker_words(spec), timeout=120)
        ask = ["docker", "exec", spec.name, "python", f"{TRACE}/ask_server.py", "--limit", str(START_LIMIT)]
        try:
            done = process.run(ask, check=False, timeout=ASK_LIMIT)
            lines = [line for line in done.out.splitlines() if line.startswith("{")]
            told: dict[str, Any] = json.loads(lines[-1]) if lines else {"healthy": None, "asked": {}}
        finally:
            log = process.run(["docker", "logs", spec.name], check=False, timeout=60)
            (place / "server.log").write_text(log.out + log.err, encoding="utf-8")
            process.run(["docker", "rm", "--force", spec.name], check=False, timeout=60)
        if told["healthy"] is None:
            told["why"] = (log.out + log.err)[-3000:]
        (place / "asked.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        return told


def called(tracing: Tracing, capability: str, more: tuple[str, ...]) -> dict[str, Any]:
    """The group of what vLLM's own attention asks for on a card that is not there. Raises ProcessFailed, ValueError."""
    runs = {}
    for model, shape in SHAPES.items():
        words = [f"{TRACE}/call_attention.py", "--capability", capability, "--heads", f"{shape.heads}:{shape.kv_heads}"]
        spec = ContainerSpec(
            tracing.image,
            (*words, *more),
            entrypoint=("python",),
            mounts=(Mount(str(tracing.checkout / INSIDE), TRACE),),
            # A mount gets the mode of the folder below it, but not its owner.
            tmpfs=(TMPFS, ("/cache", f"{TMPFS[1]},uid={USER}")),
            network="none",
            healthcheck=False,
        )
        out = process.run(docker_words(spec, foreground=True), timeout=300).out
        runs[model], wrong = traces.read_lines(line for line in out.splitlines() if line.startswith("{"))
        if wrong or not runs[model]:
            raise ValueError(f"{model}: {'; '.join(wrong) or 'no kernel was asked for'}")
    kernels, _ = traces.merge(runs)
    return {"models": list(runs), "kernels": kernels}


def labels_and_env(image: str) -> tuple[dict[str, str], dict[str, str]]:
    """An image's labels and environment. Raises ProcessFailed where the engine has none of that name."""
    argv = ["docker", "image", "inspect", "--format", "{{json .Config.Env}}", image]
    pairs: list[str] = json.loads(process.run(argv, timeout=60).out) or []
    return labels_of(image), dict(pair.split("=", 1) for pair in pairs)


def versions(tracing: Tracing) -> dict[str, str]:
    """The image's own vLLM and Triton."""
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('vllm', 'triton')}))"
    spec = replace(tracing.spec("3b"), arguments=("-c", code), entrypoint=("python",), name="", gpus=Gpus(), env=())
    spec = replace(spec, mounts=())
    told: dict[str, str] = json.loads(
        process.run(docker_words(spec, foreground=True), timeout=120).out.splitlines()[-1]
    )
    return told


def merged(scratch: Path) -> tuple[dict[str, Any], list[str]]:
    """The group of all models whose traces lie there, and the models that did not come up."""
    runs: dict[str, list[dict[str, Any]]] = {}
    problems: list[str] = []
    failed: list[str] = []
    asked: dict[str, Any] = {}
    for model in SHAPES:
        place = scratch / model
        if not (place / "asked.json").is_file():
            continue
        told = json.loads((place / "asked.json").read_text(encoding="utf-8"))
        if told["healthy"] is None:
            failed.append(model)
            continue
        texts = (file.read_text(encoding="utf-8") for file in sorted((place / "written").glob("*.jsonl")))
        runs[model], wrong = traces.read_lines(texts)
        problems += wrong
        refused = {name: status for name, status in told["asked"].items() if status != 200}
        asked[model] = {"seconds to healthy": told["healthy"], "answered": len(told["asked"]) - len(refused), **refused}
    kernels, left = traces.merge(runs)
    group = {
        "models": list(runs),
        "asked": asked,
        "problems": list(dict.fromkeys(problems)),
        "generated kernels left out": left,
        "kernels": kernels,
    }
    return group, failed


def write_list(out: Path, told: dict[str, str], group: dict[str, Any]) -> None:
    """Write the group into the list, in the place of one of the same cards and attention. Raises OSError."""
    listed: dict[str, Any] = {"schema": 1, **told, "groups": []}
    if out.is_file():
        before = json.loads(out.read_text(encoding="utf-8"))
        if {name: before.get(name) for name in told} == told:
            listed["groups"] = [one for one in before["groups"] if not replaces(group, one)]
    listed["groups"].append(group)
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_suffix(".new")
    new.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    new.replace(out)


def finish(tracing: Tracing, out: Path | None, group: dict[str, Any]) -> int:
    """Write the list and say so; 1 where it has no kernel."""
    found = versions(tracing)
    place = out or tracing.checkout / DATA / f"vllm-{found['vllm'].partition('+')[0]}.json"
    write_list(place, found, group)
    count, problems = len(group["kernels"]), group.get("problems")
    print(f"{count} kernels of {', '.join(group['models'])} in {place}; problems: {problems or 'none'}")
    return int(not count)


def replaces(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether a group takes another's place: said of the same, or seen where the other was only called."""
    kind = new["attention"], new.get("only_with", "")
    if kind != (old["attention"], old.get("only_with", "")):
        return False
    return new["cards"] == old["cards"] or (new["mark"], old["mark"]) == ("A", "S")


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
    parser.add_argument("--acted", type=Path, help="with --act-as: the folder acted/ of acting.py's --scratch")
    parser.add_argument("--attention", default="", help="the matrix's name of the attention (the image's own without)")
    parser.add_argument("--cards", default="", help='capabilities that this is said of, such as ">=8.0" or "<8.0"')
    parser.add_argument("--without-card", default="", metavar="CAPABILITY", help="ask vLLM's own code, on no card")
    parser.add_argument("--cached", action="store_true", help="with --without-card: what reads a cached prefix in V0")
    words = parser.parse_args()
    if words.act_as and not words.acted:
        parser.error("--act-as needs --acted: the folder acted/ of acting.py's --scratch")
    card = nvidia_smi("--query-gpu=name,driver_version,compute_cap").partition("\n")[0]
    if not card and not words.without_card:
        print("no card to trace on: nvidia-smi finds none", file=sys.stderr)
        return NO_CARD
    name, driver, capability = (part.strip() for part in (card or "-,-,-").split(","))
    labels, image_env = labels_and_env(words.image)
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
