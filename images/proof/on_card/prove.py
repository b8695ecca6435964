"""The proof on a real card: one entry for a GPU host's container and for a bare machine with carried packages.

    python -m images.proof.on_card.prove --out RECORD.json                 inside an image (./inv test --gpu)
    python -m images.proof.on_card.prove --out RECORD.json --variant ID --input-hash H \\
        --site slimmed=DIR [--site untouched=DIR] [--also DIR]… [--only GLOB]…   on a machine without an engine

Every step has a verdict, and the record is written after each: a run that is killed leaves what it had, and the next
one with the same --out goes on in it. Exit code 0 when nothing failed, 1 when something did, 3 when there is no card;
with --place unpacked what needs none is tried all the same, on the processor, and the rest is "not run".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any, get_args

from images.core import UTC, process
from images.device_code.audit import audit, parse_capability, summarise
from images.device_code.sources import read_folder
from images.proof.on_card import backends as engines
from images.proof.on_card import stand_ins, wrong_arch
from images.proof.on_card.records import Figure, Given, GpuRecord, Place, Seal, read_gpu_record
from images.proof.on_card.runs import IN_IMAGE, NO_CARD, PACKAGES, ROOTFS, Failed, NotRun, Run
from images.proof.smoke import GOLDEN
from images.proof.tiny_model import write_checkpoint

NUMBERS = "images.proof.on_card.inside.model_numbers"
PREFILL = "vllm: pair's prefill in the engine"
VERSIONS_SCRIPT = """
import importlib.metadata as m, json, torch
p = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
found = {n: m.version(n) for n in NAMES if any(True for _ in m.distributions(name=n))}
card = p and {"name": p.name, "capability": f"{p.major}.{p.minor}", "memory": p.total_memory}
print(json.dumps({"versions": found, "cuda": torch.version.cuda, "card": card}))
"""


def machine() -> dict[str, Any]:
    """The card and driver by NVML; only "why" where there is none. Without nvidia-ml-py the image's own reader asks."""
    if util.find_spec("pynvml") is None:
        return plain_machine()
    from images.cards import read_machine

    local = read_machine()
    if local.why:
        return {"why": local.why}
    card = local.cards[0]
    facts = {"driver": local.driver, "cuda of the driver": local.cuda, "cards": len(local.cards)}
    return facts | {"name": card.name, "capability": card.arch.capability, "memory": card.memory, "mig": card.mig}


def plain_machine() -> dict[str, Any]:
    """The same from the images' preflight, which does not know the memory (0)."""
    sys.path.insert(0, str(ROOTFS))
    from nvml import read_machine as read  # type: ignore[import-not-found,unused-ignore]

    local = read()
    if local.why or not local.cards:
        return {"why": local.why or "the driver sees no card"}
    major, minor = local.cards[0].capability
    facts = {"driver": local.driver, "cards": len(local.cards), "name": local.cards[0].name}
    return facts | {"capability": f"{major}.{minor}", "memory": 0}


def read_versions(run: Run, content: str) -> dict[str, Any]:
    """Versions and card as this content's torch sees them."""
    done = run.python(content, ["-c", f"NAMES = {PACKAGES!r}\n{VERSIONS_SCRIPT}"])
    versions: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return versions


def audit_own(run: Run, site: Path) -> dict[str, Any]:
    """What the image's own packages hold for this card, and a digest of the code in all of them: two records of one
    image have the same. Which libraries must hold code the image's level 1 judges, by its own list. Raises Failed.
    """
    card = parse_capability(run.record.capability)
    found = audit("image", read_folder(site))
    lines = [
        f"{one.name} {one.library.size} {' '.join(f'{arch}={count}' for arch, count in sorted(one.archs.items()))}"
        for one in found.libraries
    ]
    lacking = sorted(found.failing([card]))
    facts = {
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "libraries": len(found.libraries),
        "lacking": lacking,
        "summary": summarise(found, card),
    }
    if len(lacking) == len(found.libraries):
        raise Failed(f"no library here holds code for {run.record.capability}", facts)
    return facts


def level_audit(run: Run) -> dict[str, Any]:
    """Level 1: what this card runs of each library, and that slimming took nothing of it away.

    Libraries without code for the card are listed, and which of them the server loaded all the same.
    """
    card = parse_capability(run.record.capability)
    audits = {name: audit(name, read_folder(site)) for name, site in run.sites.items() if site and name != "other"}
    if not audits:
        return audit_own(run, Path(sysconfig.get_paths()["purelib"]))
    loaded = {name for step in run.record.steps for name in step.facts.get("mapped", ())}
    facts: dict[str, Any] = {}
    verdicts: dict[str, dict[str, str]] = {}
    for content, result in audits.items():
        verdicts[content] = {name: verdict.kind for name, verdict in result.verdicts(card).items()}
        facts[content] = {
            "summary": summarise(result, card),
            "verdicts": verdicts[content],
            "archs": {one.name: sorted(one.archs) for one in result.libraries},
            "bytes": {one.name: one.library.size for one in result.libraries},
            "lacking and loaded": sorted(loaded & set(result.failing([card]))),
        }
    first, *others = verdicts.values()
    differ = [name for other in others for name in other if name in first and first[name] != other[name]]
    if differ:
        raise Failed(f"this card runs less of the slimmed {', '.join(differ)}", facts)
    return facts


def level_stack(run: Run, content: str, *, card: bool = True) -> dict[str, Any]:
    """Level 2, as far as it goes without the image: the versions, torch's CUDA, the card seen, modules imported."""
    versions = read_versions(run, content)
    if card and versions["card"] is None:
        raise Failed("torch sees no card", versions)
    modules = ["transformers", *(["vllm.entrypoints.openai.api_server"] if "vllm" in versions["versions"] else [])]
    for name in modules:
        run.python(content, ["-c", f"import {name}"])
    run.record = replace(run.record, versions={**run.record.versions, **versions["versions"]})
    return versions | {"imported": modules}


def level_canary(run: Run, content: str, device: str = "cuda") -> dict[str, Any]:
    """Level 3 on the card: golden logits and tokens in float32, both of transformers' attentions."""
    words = [str(run.entrypoint.with_name("canary.py")), "--model", str(run.paths["tiny"]), "--golden", str(GOLDEN)]
    done = run.python(content, [*words, "--attention", "sdpa,eager", "--device", device, "--json"])
    result = json.loads(done.out.splitlines()[-1])
    errors = [one["measured"]["relative"] for one in result["checks"] if "relative" in one["measured"]]
    return {"checks": len(result["checks"]), "greatest relative error": max(errors), "seconds": result["seconds"]}


def make_shaped(run: Run, content: str) -> dict[str, Any]:
    """The 3B-shaped checkpoint."""
    done = run.python(content, ["-m", "images.proof.on_card.shaped.checkpoint", str(run.paths["3b"])])
    facts: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return facts


def require_held(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts that a worker returned. Raises Failed where its check did not hold."""
    if not facts["held"]:
        raise Failed("outside of tolerance, or other tokens: see the facts", facts)
    return facts


def judge_recorded_speed(run: Run, step: str, what: str) -> dict[str, Any]:
    """Compare the speed of slimmed and untouched by what an earlier step recorded. Raises Failed, NotRun."""
    facts = next((dict(one.facts) for one in run.record.steps if one.name == step), {})
    return engines.judge_speed(facts, what)


def measure_transformers(run: Run, content: str, words: list[str]) -> dict[str, Any]:
    """Speed of the transformers engine."""
    rows = [Figure(**{**row, "runs": tuple(row["runs"])}) for row in run.worker(content, words)]
    run.add([replace(row, of={**row.of, "content": content}) for row in rows])
    return {f"{row.name}, batch {row.of['batch']}": row.value for row in rows}


def put_seal_on(run: Run) -> None:
    """Seal the record; where the image cannot answer any more it stays as it is, and that is said."""
    first, tiny = next(iter(run.sites)), str(run.paths["tiny"])
    try:
        run.seal(lambda seed: Seal(**run.worker(first, ["images.proof.on_card.inside.seal_logits", tiny, seed])))
    except (Failed, process.ProcessFailed) as error:
        print(f"the record is not sealed: {error}", file=sys.stderr)


def plan(run: Run, right: str, cards: int) -> list[tuple[str, Callable[[], Mapping[str, Any]]]]:
    """Every step in order, by name, for a machine with so many cards."""
    first, contents = next(iter(run.sites)), list(run.sites)
    tiny, shape = run.paths["tiny"], run.paths["3b"]
    speed = [NUMBERS, "speed", str(shape)]
    steps: list[tuple[str, Callable[[], Mapping[str, Any]]]] = [
        ("machine", machine),
        *((f"stack: {content}", partial(level_stack, run, content)) for content in contents),
        ("canary on the card", partial(level_canary, run, first)),
        ("3b checkpoint", partial(make_shaped, run, first)),
        ("logits", lambda: require_held(run.worker(first, [NUMBERS, "logits", str(shape)]))),
        ("planted NaN", lambda: require_held(run.worker(first, [NUMBERS, "planted", str(shape)]))),
        ("transformers: tiny", partial(engines.serve_tiny, run, first, "transformers", tiny)),
        ("transformers: speed sdpa", partial(measure_transformers, run, first, speed)),
        ("transformers: speed sdpa unpacked", partial(measure_transformers, run, first, [*speed, "--unpacked"])),
        (
            "transformers: speed flash-attn",
            partial(measure_transformers, run, first, [*speed, "--attention", "flash_attention_2"]),
        ),
        ("wrong arch: slimmed", partial(wrong_arch.slim_for_other, run)),
        ("wrong arch: preflight", partial(wrong_arch.refused, run, tiny, right)),
        ("wrong arch: preflight skipped", partial(wrong_arch.skipped, run, tiny)),
        *((f"vllm: tiny {content}", partial(engines.serve_tiny, run, content, "vllm", tiny)) for content in contents),
    ]
    serve = partial(engines.serve_vllm, run, model=shape)
    again = partial(engines.start_again, run, first, shape)
    pair = [
        ("vllm: pair", partial(serve, contents[:2], dtype="float16", backend="", pair=True)),
        ("vllm: pair's decode within 2 %", partial(judge_recorded_speed, run, "vllm: pair", "decode")),
        (PREFILL, partial(engines.prefill_pair, run, contents[:2], shape, "float16")),
        ("vllm: pair's prefill within 2 %", partial(judge_recorded_speed, run, PREFILL, "prefill")),
    ]
    alone = [("vllm: 3b", partial(serve, contents, dtype="float16", backend="", pair=False))]
    steps += pair if len(contents) > 1 else alone
    if run.record.place == "packages":  # inside an image its entry point brings what it knows
        steps += [
            ("vllm: cold start, as before", partial(again, caches="cold", before=True)),
            ("vllm: warm start, as before", partial(again, caches="warm", before=True)),
        ]
    steps += [
        ("vllm: cold start", partial(again, caches="cold")),
        ("vllm: warm start", partial(again, caches="warm")),
        ("vllm: 3b bfloat16", partial(serve, [first], dtype="bfloat16", backend="", pair=False)),
        ("vllm: two cards", partial(engines.two_cards, run, first, shape, cards)),
        ("vllm: 3b triton", partial(serve, [first], dtype="float16", backend="TRITON_ATTN", pair=False)),
        *((f"stand-ins: none called, {content}", partial(stand_ins.none_called, run, content)) for content in contents),
        ("stand-ins: called on purpose", partial(stand_ins.called_on_purpose, run, first)),
        ("audit", partial(level_audit, run)),
    ]
    return steps


NO_CARD_NAME = "no card"


def plan_without_card(run: Run, why: str) -> list[tuple[str, Callable[[], Mapping[str, Any]]]]:
    """The steps that need no card, on the processor; all others are there, and say that they were not run."""
    first = next(iter(run.sites))
    here: dict[str, Callable[[], Mapping[str, Any]]] = {
        f"stack: {first}": partial(level_stack, run, first, card=False),
        "canary on the processor": partial(level_canary, run, first, "cpu"),
    }

    def not_run() -> Mapping[str, Any]:
        raise NotRun(f"no card: {why}")

    others = [name for name, _ in plan(run, run.record.variant, 0) if name not in here]
    return [*here.items(), *((name, not_run) for name in others)]


def open_record(words: argparse.Namespace, seen: Mapping[str, Any]) -> GpuRecord:
    """The record to go on in, or a new one."""
    if words.out.is_file():
        return read_gpu_record(words.out)
    return GpuRecord(
        card=str(seen["name"]),
        capability=str(seen["capability"]),
        memory=int(seen["memory"]),
        driver=str(seen.get("driver", "")),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        place=words.place or ("image" if IN_IMAGE.is_dir() and not words.site else "packages"),
        variant=words.variant,
        input_hash=words.input_hash,
        versions={"python": platform.python_version()},
        steps=(),
        notes=tuple(words.note),
        image_digest=words.image_digest,
        image_id=words.image_id,
        engine=words.engine,
        given=words.given,
    )


def read_words(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; None: this process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/cardstock-gpu"))
    parser.add_argument("--variant", default=os.environ.get("CARDSTOCK_VARIANT", ""))
    parser.add_argument("--input-hash", default="")
    parser.add_argument("--image-digest", default="", help="the image's manifest in a registry: sha256:…")
    parser.add_argument("--image-id", default="", help="the image's configuration, what engines call its id: sha256:…")
    parser.add_argument("--engine", default="", help="what runs the container, such as 'Docker 29.1.0'")
    parser.add_argument("--given", default="", choices=get_args(Given), help="how the container got the card")
    parser.add_argument(
        "--place", default="", choices=("", *get_args(Place)), help="where this is, if it cannot be seen"
    )
    parser.add_argument("--site", action="append", default=[], help="CONTENT=FOLDER of packages; the first is proved")
    parser.add_argument("--also", action="append", type=Path, default=[], help="a folder of further packages")
    parser.add_argument("--right", default="", help="the image that preflight should name on this card")
    parser.add_argument("--note", action="append", default=[])
    parser.add_argument("--only", action="append", default=[], help="globs on the names of steps")
    return parser.parse_args(words)


def main() -> int:
    """Command line."""
    words = read_words()
    seen = machine()
    why = str(seen.get("why", ""))
    if "name" not in seen:
        print(f"no card to prove anything on: {why}", file=sys.stderr)
        if words.place != "unpacked":
            return NO_CARD
        seen = {"name": NO_CARD_NAME, "capability": "", "memory": 0}
    sites: dict[str, Path | None] = {
        name: Path(folder) for name, _, folder in (one.partition("=") for one in words.site)
    }
    words.scratch.mkdir(parents=True, exist_ok=True)
    run = Run(
        record=open_record(words, seen),
        out=words.out,
        scratch=words.scratch,
        sites=sites or {"image": None},
        also=tuple(words.also),
        only=tuple(words.only) or ("*",),
        paths={"tiny": words.scratch / "tiny", "3b": words.scratch / "3b"},
    )
    write_checkpoint(run.paths["tiny"])
    right = words.right or run.record.variant
    for name, action in plan_without_card(run, why) if why else plan(run, right, int(seen["cards"])):
        run.step(name, action)
    put_seal_on(run)
    return 0 if run.record.ok else 1


if __name__ == "__main__":
    sys.exit(main())
