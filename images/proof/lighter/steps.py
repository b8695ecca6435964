"""The steps of a comparison: what each runs in both images, and how what came back is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from images.proof.lighter import compare
from images.proof.lighter.containers import LIGHT, UNTOUCHED, Engine, Host
from images.proof.on_card.records import Figure
from images.proof.on_card.runs import Failed, NotRun, nvidia_smi

BOTH = (LIGHT, UNTOUCHED)
# Turns of each batch in which both engines are timed, and the tokens that each then says to a request.
DECODE, PREFILL = "decode", "prefill in the engine"
TURNS = {DECODE: {1: 41, 16: 31}, PREFILL: {1: 41}}
DECODED, WARM_UP = 192, 2
KV_BYTES = 4 * 2**30
# Where cuDNN is left out torch computes convolutions by other kernels, whose sums are rounded in another order: then a
# logprob may be as far away as one of this type is from float32's (backends.LOGPROB_TOLERANCE).
NEARNESS = {"float16": 0.25, "bfloat16": 1.0}
Facts = Mapping[str, Any]


@dataclass
class Seen:
    """What earlier steps have seen that later ones need: engines that run, and what each took of the card."""

    engines: dict[str, Engine] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        """End the engines."""
        for engine in self.engines.values():
            engine.close()
        self.engines = {}


def compare_transformers(told: Mapping[str, Facts]) -> dict[str, Any]:
    """Logits and tokens of both images' torch. Raises Failed where they differ though cuDNN is in both."""
    light, untouched = told[LIGHT], told[UNTOUCHED]
    gone = compare.lacking(light["libraries"], untouched["libraries"])
    cudnn = compare.has_cudnn(light["libraries"], untouched["libraries"])
    unlike = compare.unlike_cases(light["cases"], untouched["cases"])
    facts = {
        "cases": len(light["cases"]),
        "bit-identical": not unlike,
        "differ": unlike,
        "farthest logit, relative": compare.farthest_logit(light["cases"], untouched["cases"]),
        "cuDNN in both": cudnn,
        "left out": {name: list(how) for name, how in gone.items()},
        "loaded": [name for name in light["loaded"] if "nvidia/" in name],
        "reserved bytes": {name: one["reserved"] for name, one in told.items()},
        "seconds": {name: one["seconds"] for name, one in told.items()},
        "versions": light["versions"],
    }
    if light["versions"] != untouched["versions"]:
        raise Failed(f"not the same packages: {light['versions']}, {untouched['versions']}", facts)
    if not all(one["finite"] for content in told.values() for one in content["cases"].values()):
        raise Failed("logits that are not finite", facts)
    tokens = [name for name, parts in unlike.items() if any("tokens" in part for part in parts)]
    if unlike and cudnn:
        raise Failed(f"not the same bits: {', '.join(unlike)}", facts)
    if any("greedy tokens" in unlike[name] for name in tokens):
        raise Failed(f"other greedy tokens: {', '.join(tokens)}", facts)
    return facts


def compare_said(told: Mapping[str, list[Facts]], dtype: str, cudnn: bool) -> dict[str, Any]:
    """Answers of both images' vLLM, each asked twice. Raises Failed, and NotRun where untouched repeats nothing."""
    first = {name: runs[0] for name, runs in told.items()}
    facts: dict[str, Any] = {"cuDNN in both": cudnn, "taught answers": {}}
    wrong = []
    for name, one in first.items():
        bad = compare.wrong_answers(one["answers"], one["wanted"])
        facts["taught answers"][name] = bad or f"{len(one['wanted'])} of {len(one['wanted'])}"
        wrong += [f"{name}: {line}" for line in bad]
        if "golden" in one:
            facts.setdefault("golden", {})[name] = one["golden"]
            allowed = one["golden"]["tolerance"]
            far = [case for case, at in one["golden"]["distance"].items() if not at <= allowed]
            wrong += [f"{name}: {case}: a logprob is farther than {allowed} from golden" for case in far]
    result = compare.compare_answers(first[LIGHT]["answers"], first[UNTOUCHED]["answers"])
    again = {
        name: compare.compare_answers(runs[-1]["answers"], runs[0]["answers"]).first for name, runs in told.items()
    }
    facts |= {"bit-identical": result.identical, **asdict(result), "second time, against the first": again}
    if wrong:
        raise Failed("; ".join(wrong), facts)
    if result.identical:
        return facts
    if again[UNTOUCHED]:
        raise NotRun(f"untouched packages do not repeat their own bits: {again[UNTOUCHED]}; light: {result.first}")
    if cudnn:
        raise Failed(f"not the same bits: {result.first}", facts)
    if result.farthest > NEARNESS[dtype]:
        raise Failed(f"without cuDNN a logprob is {result.farthest:.3f} away: {result.first}", facts)
    return facts


def start(host: Host, seen: Seen, name: str, image: str, model: str, dtype: str, **more: Any) -> dict[str, Any]:
    """Start an engine and have it answer twice; it stays alive in ``seen``."""
    words = {"cards": 1, "eager": False, "kv_bytes": KV_BYTES, **more}
    engine = seen.engines.get(name) or Engine(host, image, name, "0")
    seen.engines[name] = engine
    begun = engine.ask("start", model=model, dtype=dtype, **words)
    runs = [engine.ask("answers", kind="shaped") for _ in range(2)]
    return {"start": begun, "answers": runs}


def compile_first(host: Host, image: str, model: str, dtype: str) -> float:
    """Fill the cache that both images then start with; the seconds that it took."""
    engine = Engine(host, image, "compiling", "0")
    try:
        words = {"cards": 1, "eager": False, "kv_bytes": KV_BYTES}
        return float(engine.ask("start", model=model, dtype=dtype, **words)["seconds"])
    finally:
        engine.close()


def transformers(host: Host, image: str, name: str, cards: str) -> dict[str, Any]:
    """What torch and transformers compute."""
    return host.run(image, name, ["images.proof.lighter.with_transformers"], cards)


def on_purpose(host: Host, image: str, name: str, cards: str) -> dict[str, Any]:
    """What became of calls that stand-ins answer."""
    return host.hear(image, name, ["images.proof.on_card.inside.call_stand_ins"], cards)


def tiny(host: Host, image: str, name: str, cards: str) -> dict[str, Any]:
    """The tiny checkpoint in float16, without graphs, in an engine that ends again."""
    engine = Engine(host, image, name, cards)
    try:
        begun = engine.ask("start", model="/proof/tiny", dtype="float16", cards=1, eager=True, kv_bytes=KV_BYTES // 4)
        return {"start": begun, "answers": [engine.ask("answers", kind="tiny") for _ in range(2)]}
    finally:
        engine.close()


def time_both(
    engines: Mapping[str, Engine], what: str, say: Callable[[list[Figure]], None], of: dict[str, str]
) -> dict[str, Any]:
    """DECODE or PREFILL of both engines in turns, who is first changing; their ratios by batch."""
    ratios = {}
    for batch, turns in TURNS[what].items():
        speeds: dict[str, list[float]] = {name: [] for name in engines}
        for turn in range(turns + WARM_UP):
            for name in engines if turn % 2 else [*engines][::-1]:
                told = (
                    engines[name].ask("decode", batch=batch, tokens=DECODED)
                    if what == DECODE
                    else engines[name].ask("prefill", batch=batch, seed=1000 * (turn + 1))
                )
                if turn >= WARM_UP:
                    speeds[name].append(told["tokens"] / told["seconds"])
        kind = {**of, "batch": str(batch)}
        say(
            [
                Figure(what, median(runs), "tokens/s", {**kind, "content": name}, tuple(runs))
                for name, runs in speeds.items()
            ]
        )
        ratios[f"{what}, batch {batch}"] = compare.speed_ratio(speeds[LIGHT], speeds[UNTOUCHED])
    return ratios


def judge_ratios(ratios: Mapping[str, Any]) -> dict[str, Any]:
    """Raises Failed where a speed is outside of 2 %, NotRun where the turns spread too far to tell."""
    for verdict, error in (("outside", Failed), ("open", NotRun)):
        found = [f"{name} {one['range'][0]:.3f} to {one['range'][1]:.3f}" for name, one in ratios.items()
                 if one["verdict"] == verdict]  # fmt: skip
        if found:
            what = "not within" if verdict == "outside" else "the turns spread too far to tell"
            raise error(f"{what} {compare.SAME_SPEED:.0%}: {', '.join(found)}", *([ratios] if error is Failed else []))
    return dict(ratios)


def used_memory(seen: Seen, name: str) -> int:
    """Bytes of an engine's processes by nvidia-smi, or, where it tells of no process, of card 0 as a whole."""
    table = nvidia_smi("--query-compute-apps=pid,used_gpu_memory")
    return compare.memory_of(table, seen.engines[name].processes())


def card_in_use() -> int:
    """Bytes in use on card 0; 0 where nvidia-smi tells nothing."""
    return next(iter(compare.card_memory(nvidia_smi("--query-gpu=memory.used"))), 0)


def judge_memory(
    by_process: Mapping[str, int], by_card: Mapping[str, int], reserved: Mapping[str, int]
) -> dict[str, Any]:
    """nvidia-smi's count by process, or by what the card's use grew; torch's own. Raises Failed, NotRun."""
    counted = by_process if all(by_process.values()) else by_card
    facts = {"nvidia-smi, processes": dict(by_process), "nvidia-smi, growth of the card": dict(by_card),
             "reserved by torch": dict(reserved)}  # fmt: skip
    if not all(counted.values()):
        raise NotRun("nvidia-smi tells of no memory in use")
    more = max(one[LIGHT] - one[UNTOUCHED] for one in (counted, reserved))
    if more > compare.MEMORY_SLACK:
        raise Failed(f"the light image takes {more / 2**20:.0f} MiB more", facts)
    return facts


def judge_calls(calls: Mapping[str, list[str]]) -> dict[str, Any]:
    """No container called a stand-in. Raises Failed with those that did."""
    found = {name: sorted(set(lines))[:8] for name, lines in calls.items() if lines}
    facts = {"calls": sum(map(len, calls.values())), "containers": sorted(calls)}
    if found:
        raise Failed(f"stand-ins were called: {found}", facts)
    return facts


def judge_purpose(told: Mapping[str, Facts], counted: Mapping[str, list[str]]) -> dict[str, Any]:
    """Stand-ins called on purpose raise, say so and are counted in the light image; untouched, the same calls compute.

    Raises Failed, and NotRun where nothing that was called is a stand-in: then no count was seen to count.
    """
    found = {name: {case: row["verdict"] for case, row in one["cases"].items()} for name, one in told.items()}
    facts = {"verdicts": found, "cases": {name: one["cases"] for name, one in told.items()}}
    facts["counted"] = {name: lines[:12] for name, lines in counted.items()}
    wrong = [f"{LIGHT}: {case}: {what}" for case, what in found[LIGHT].items() if what not in ("stand-in", "real")]
    wrong += [f"{UNTOUCHED}: {case}: {what}" for case, what in found[UNTOUCHED].items() if what != "real"]
    wrong += [f"{UNTOUCHED}: {line}" for line in counted[UNTOUCHED][:2]]
    called = [case for case, what in found[LIGHT].items() if what == "stand-in"]
    if called and not counted[LIGHT]:
        wrong.append(f"{LIGHT}: {', '.join(called)} called a stand-in, and nothing counted it")
    if wrong:
        raise Failed("; ".join(wrong), facts)
    if not called:
        raise NotRun("the light image has all that was called: nothing is a stand-in")
    return facts
