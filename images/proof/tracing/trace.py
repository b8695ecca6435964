"""One run of tracing: a server that is watched, the list that is made of what it compiled."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from images.core import process
from images.docker import TMPFS, ContainerSpec, Gpus, Mount, docker_words
from images.proof.acting import ACTED, ActedCard, acted_env
from images.proof.kernel_code import traces
from images.proof.on_card.runs import NO_MULTICAST, versions_in
from images.proof.tracing.models import SHAPES, write_model

INSIDE = "images/proof/kernel_code/inside"
DATA = Path("images/proof/kernel_code/data")
TRACE, WRITTEN, MODEL = "/trace", "/written", "/model"
START_LIMIT = 400.0
ASK_LIMIT = START_LIMIT + 500
USER = 10001  # of every image (dockerfiles/templates)
PTXAS = "/opt/venv/lib/python3.11/site-packages/triton/backends/nvidia/bin/ptxas"


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
        """The same, of a server that believes in ``card``; ``folder`` is what images.proof.acting makes for that."""
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
    found = versions_in(tracing.image, ("vllm", "triton"))
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
