"""Steps that serve: both engines over the OpenAI API from a picture, held against taught and golden answers; speed."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np

from images.core import process
from images.proof.on_card.records import FORKED, SPAWNED, Figure
from images.proof.on_card.runs import Failed, NotRun, Run, ServerFailed, StartedServer, Streamed, run_server, stream
from images.proof.on_card.shaped import CASES, answer, messages, noise_message
from images.proof.smoke import chat_request, greatest_distance, log_softmax, why_degenerate, why_not_golden
from images.proof.smoke import server as smoke

GOLDEN = smoke.read_golden(smoke.GOLDEN.read_text())
LIMIT = 420.0
PREFILL = "images.proof.on_card.inside.prefill"
NEW_TOKENS, REPEATS = 128, {1: 25, 16: 15}
# Of engines without a server, which only read: prompts of one picture each, so many at once, so many times.
PREFILLS = {1: 120, 16: 30}
# Prefill waits for the processor that hands its kernels out, and what disturbs that makes it slower, never faster: of
# its runs the quickest quarter is compared, of others the median.
QUANTILE = {"prefill in the engine": 0.75}
# Greatest distance of a logprob from float32's, for the 3B shape: it is the difference of two numbers near 14, each
# rounded over 36 layers, of 11 bits in float16 and of 8 in bfloat16.
LOGPROB_TOLERANCE = {"float16": 0.25, "bfloat16": 1.0}
SAME_SPEED = 0.02
# "open": the runs spread too far to tell.
SpeedVerdict = Literal["within", "outside", "open"]
METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
# Answers are to be computed anew each time, and two servers share the card.
VLLM_WORDS = ["--no-enable-prefix-caching", "--mm-processor-cache-gb", "0", "--gpu-memory-utilization", "0.4"]


def start(run: Run, content: str, engine: str, model: Path, words: Sequence[str] = (), port: int = 8100, **env: str):  # type: ignore[no-untyped-def]
    """A server of ``model`` by the image's entry point; a context that gives a `StartedServer`."""
    argv = ["--model", str(model), "--served-model-name", "model", "--max-model-len", "8192", *words]
    if engine == "vllm":
        argv += [word for word in VLLM_WORDS if word not in words]
    flags = json.dumps(_default_args(run, engine))
    own = run.env(content, CARDSTOCK_ENGINE=engine, CARDSTOCK_DEFAULT_ARGS=flags, **env)
    return run_server(run.entrypoint, argv, own, port, LIMIT, run.scratch / f"server-{port}.log")


def _default_args(run: Run, engine: str) -> list[str]:
    """The flags that an image starts its own engine with; they are none of the other's."""
    image = {**os.environ, **run.image_env()}
    own: list[str] = json.loads(image.get("CARDSTOCK_DEFAULT_ARGS", "[]"))
    return own if image.get("CARDSTOCK_ENGINE", engine) == engine else []


def serve_tiny(run: Run, content: str, engine: str, model: Path) -> dict[str, Any]:
    """Level 4: the golden answers of the tiny checkpoint. Raises Failed with every difference."""
    words = ["--dtype", "float16", "--max-model-len", "2048"]
    own = _default_args(run, engine)
    with start(run, content, engine, model, words) as server:
        answers, wrong = check_tiny(server, token_ids=engine == "vllm", pictures=smoke.pictures_per_request(own))
        facts: dict[str, Any] = {"stages": server.stages(), "log": server.timing_lines(), **answers}
        facts["mapped"] = mapped_libraries(run, content, server)
    if wrong:
        raise Failed("; ".join(wrong), facts)
    return facts


def check_tiny(server: StartedServer, *, token_ids: bool, pictures: int) -> tuple[dict[str, Any], list[str]]:
    """The tiny checkpoint's golden answers over the API: what was said, and every difference.

    What asks about more than ``pictures`` at once is left out, and named.
    """
    facts: dict[str, Any] = {}
    wrong = []
    for golden in GOLDEN:
        if golden.pictures > pictures:
            facts.setdefault("not asked", {})[golden.name] = f"the server takes {pictures} picture a request"
            continue
        request = chat_request("model", golden.messages, max_tokens=len(golden.tokens) + 4, token_ids=token_ids)
        said = server.client.chat(request)
        distance = greatest_distance(said, golden.table, smoke.token_ids())
        facts.setdefault("logprob distance", {})[golden.name] = round(distance, 4)
        facts.setdefault("said", {})[golden.name] = said.text
        bad = why_degenerate(said.text, said.logprobs)
        bad = bad or why_not_golden(said, golden.tokens, golden.texts, golden.logprobs, smoke.TOLERANCE)
        if bad or not distance <= smoke.RUNNER_UP_TOLERANCE:
            wrong.append(f"{golden.name}: {bad or f'a logprob is {distance:.3f} from golden'}")
    facts["tolerance"] = {"chosen": smoke.TOLERANCE, "runners-up": smoke.RUNNER_UP_TOLERANCE}
    return facts, wrong


def mapped_libraries(run: Run, content: str, server: StartedServer) -> list[str]:
    """The content's libraries that its processes have loaded."""
    site = run.sites.get(content)
    return server.libraries([site]) if site else []


def check_shaped(run: Run, server: StartedServer, dtype: str) -> dict[str, Any]:
    """The 3B shape's taught answers over the API; logprobs against float32's. Raises Failed."""
    facts: dict[str, Any] = {"tolerance": LOGPROB_TOLERANCE[dtype], "said": {}, "logprob distance": {}}
    wrong = []
    for name in CASES:
        wanted = answer(name)
        said = server.client.chat(chat_request("model", messages(name), max_tokens=len(wanted) + 3, token_ids=True))
        facts["said"][name] = {"tokens": list(said.tokens), "text": said.text, "logprobs": list(said.logprobs)}
        own = list(said.tokens)[: len(wanted)]
        if why_degenerate(said.text, said.logprobs) or own not in (wanted, wanted[:-1]) or said.finish != "stop":
            wrong.append(
                f"{name}: said {own}, taught {wanted}, {why_degenerate(said.text, said.logprobs) or said.finish}"
            )
        file = run.scratch / f"reference-{name}.npy"
        if file.is_file():
            distance = greatest_distance(said, log_softmax(np.load(file)), {})
            facts["logprob distance"][name] = round(distance, 4)
            if not distance <= LOGPROB_TOLERANCE[dtype]:
                wrong.append(f"{name}: a logprob is {distance:.3f} from float32's")
    if wrong:
        raise Failed("; ".join(wrong), facts)
    return facts


def batch(port: int, count: int, seed: int) -> list[Streamed]:
    """``count`` requests at once, each with a picture of 1000 x 1000 of its own."""
    requests = [
        {
            **chat_request("model", noise_message(seed + at), max_tokens=NEW_TOKENS),
            "ignore_eos": True,
            "logprobs": False,
        }
        for at in range(count)
    ]
    for request in requests:
        request.pop("top_logprobs")
    begun = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda request: stream(port, request, begun), requests))


def speeds(servers: dict[str, StartedServer], of: dict[str, str], prompt: int) -> list[Figure]:
    """Prefill and decode of each content, in turns so that a busy moment hits all alike; the first turn is not kept.

    "first token" counts from the request to the last request's first token, picture and HTTP included; "prefill" is
    what the engine itself says it took from taking a request up to its first token, vision tower included; "decode"
    counts the tokens of all requests after the last first one, until the first of them ends.
    """
    figures = []
    for count in (1, 16):
        taken: dict[str, dict[str, list[float]]] = {name: {} for name in servers}
        for turn in range(REPEATS[count] + 1):
            order = list(servers) if turn % 2 else list(servers)[::-1]
            for name in order:
                before = prefill_seconds(servers[name])
                answers = batch(servers[name].port, count, 1000 * turn)
                spent = prefill_seconds(servers[name]) - before
                if turn:
                    begin, end = max(one.first for one in answers), min(one.last for one in answers)
                    tokens = sum(one.between(begin, end) for one in answers)
                    row = taken[name]
                    row.setdefault("first token", []).append(begin)
                    row.setdefault("prefill", []).append(count * prompt / (spent / count))
                    row.setdefault("decode", []).append(tokens / (end - begin))
        for name, rows in taken.items():
            kind = {**of, "content": name, "batch": str(count), "prompt": str(prompt)}
            for what, runs in rows.items():
                unit = "s" if what == "first token" else "tokens/s"
                figures.append(Figure(what, statistics.median(runs), unit, kind, tuple(runs)))
    return figures


def prefill_seconds(server: StartedServer) -> float:
    """The sum of all requests' prefill times so far, as vLLM's metrics tell it."""
    match = re.search(r"^vllm:request_prefill_time_seconds_sum\S* (\S+)$", server.client.get("/metrics").body, re.M)
    if match is None:
        raise Failed("vLLM's metrics do not tell the time of prefill")
    return float(match[1])


def first_token(server: StartedServer) -> float:
    """Seconds to the first token of a server's first request, about a picture."""
    begun = time.monotonic()
    request = chat_request("model", messages("picture-red"), max_tokens=2)
    return stream(server.port, {**request, "logprobs": False, "top_logprobs": None}, begun).first


def start_figures(server: StartedServer, of: dict[str, str], first: float) -> list[Figure]:
    """Where the time to the first token goes: each stage's own seconds, and the sum."""
    stages, before, figures = server.stages(), 0.0, []
    for name, at in sorted(stages.items(), key=lambda pair: pair[1]):
        if at > before:
            figures.append(Figure(f"start: {name}", round(at - before, 2), "s", of))
        before = max(at, before)
    figures.append(Figure("start: first request", round(first, 3), "s", of))
    return [*figures, Figure("start to first token", round(server.healthy + first, 2), "s", of)]


def serve_vllm(
    run: Run, contents: Sequence[str], model: Path, dtype: str, backend: str, *, pair: bool
) -> dict[str, Any]:
    """Serve the 3B shape with each content in turn, all alive at the end; answers, figures, and the pair's equality."""
    words = ["--dtype", dtype, *(["--attention-backend", backend] if backend else [])]
    of = {"engine": "vllm", "attention": backend or "default", "dtype": dtype, "model": "3b", "picture": "1000x1000"}
    facts: dict[str, Any] = {}
    with ExitStack() as stack:
        servers: dict[str, StartedServer] = {}
        for at, content in enumerate(contents):
            shutil.rmtree(run.scratch / "cache" / content, ignore_errors=True)
            server = stack.enter_context(start(run, content, "vllm", model, words, 8100 + at))
            servers[content] = server
            run.add(start_figures(server, {**of, "content": content, "caches": "cold"}, first_token(server)))
            facts[content] = check_shaped(run, server, dtype)
            facts[content] |= {
                "stages": server.stages(),
                "log": server.timing_lines(),
                "mapped": mapped_libraries(run, content, server),
            }
        usage = servers[contents[0]].client.call(
            "POST", "/v1/chat/completions", chat_request("model", noise_message(1), max_tokens=1)
        )
        prompt = int(usage.json()["usage"]["prompt_tokens"])
        figures = speeds(servers, of, prompt)
        run.add(figures)
        if pair:
            facts["longer"] = compare_long_answers(servers)
            facts["speed"] = compare_speed(figures, *contents)
    if pair and not facts["longer"]["same"]:
        raise Failed("slimmed and untouched say different tokens", facts)
    return facts


def start_again(run: Run, content: str, model: Path, caches: str, *, before: bool = False) -> dict[str, Any]:
    """The time from a process's start to its first token, as the image starts, or as images did before.

    ``caches`` "cold": as a new container finds them, with what the image brings; "warm": as the start before left them.
    """
    own = {METHOD: "spawn"} if before else {}
    method = run.env(content, **own).get(METHOD, os.environ.get(METHOD))
    how = SPAWNED if before else FORKED if method == "fork" else "as the image does"
    of = {"engine": "vllm", "attention": "default", "dtype": "float16", "model": "3b", "content": content}
    of |= {"caches": caches, "start": how}
    folder = run.scratch / "cache" / content
    if caches == "cold":
        keep = folder / "vllm" / "modelinfos"
        for path in [*folder.glob("*"), *folder.glob("vllm/*")]:
            if before or path not in (keep, keep.parent):
                shutil.rmtree(path, ignore_errors=True)
    with start(run, content, "vllm", model, ["--dtype", "float16"], 8100, **own) as server:
        first = first_token(server)
        run.add(start_figures(server, of, first))
        return {"stages": server.stages(), "first request": round(first, 3), "log": server.timing_lines()}


@contextmanager
def prefill_engine(run: Run, content: str, model: Path, dtype: str) -> Iterator[Connection]:
    """An engine of prefill.py, once it listens. Raises ServerFailed."""
    socket = run.scratch / f"prefill-{content}"
    socket.unlink(missing_ok=True)
    argv = [sys.executable, "-m", PREFILL, str(model), "--socket", str(socket), "--dtype", dtype]
    env = run.env(content, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    lines: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(process.stream, argv, lines.append, env=env, check=False)
        begun = time.monotonic()
        while not socket.exists():
            if ended.done() or time.monotonic() - begun > LIMIT:
                tail = "\n".join(lines[-25:])
                raise ServerFailed(f"an engine that only reads did not get ready:\n{tail}")
            time.sleep(0.1)
        with Client(str(socket), "AF_UNIX") as other:
            yield other


def prefill_pair(run: Run, contents: Sequence[str], model: Path, dtype: str) -> dict[str, Any]:
    """Prefill in the engine, slimmed against untouched: each round both read the same pictures, one after the other."""
    of = {"engine": "vllm", "attention": "default", "dtype": dtype, "model": "3b", "picture": "1000x1000"}
    figures = []
    with ExitStack() as stack:
        # One after the other: an engine measures the card's free memory while it starts.
        engines = {content: stack.enter_context(prefill_engine(run, content, model, dtype)) for content in contents}
        for count, repeats in PREFILLS.items():
            speeds: dict[str, list[float]] = {content: [] for content in contents}
            prompt = 0
            for turn in range(repeats + 3):
                for content in contents if turn % 2 else contents[::-1]:
                    engines[content].send((count, 1000 * turn))
                    seconds, prompt = engines[content].recv()
                    if turn >= 3:  # the first rounds compile and choose
                        speeds[content].append(prompt / seconds)
            for content, runs in speeds.items():
                kind = {**of, "content": content, "batch": str(count), "prompt": str(prompt // count)}
                name = "prefill in the engine"
                value = float(np.quantile(runs, QUANTILE[name]))
                figures.append(Figure(name, value, "tokens/s", kind, tuple(runs)))
    run.add(figures)
    medians = {f"{one.of['content']}, batch {one.of['batch']}": statistics.median(one.runs) for one in figures}
    return {"speed": compare_speed(figures, *contents), "medians": medians}


def two_cards(run: Run, content: str, model: Path, cards: int) -> dict[str, Any]:
    """Tensor parallel over two cards, the workers made as the image does: the taught answers. Raises NotRun."""
    if cards < 2:
        raise NotRun("this machine has one card")
    words = ["--dtype", "float16", "--tensor-parallel-size", "2"]
    with start(run, content, "vllm", model, words, 8100) as server:
        return check_shaped(run, server, "float16") | {"stages": server.stages(), "log": server.timing_lines()}


def compare_long_answers(servers: dict[str, StartedServer]) -> dict[str, Any]:
    """96 greedy tokens after two pictures of noise, alone in the batch: the same ids and the same logprobs?"""
    answers: dict[str, list[Any]] = {}
    for name, server in servers.items():
        for seed in (1, 2):
            request = chat_request("model", noise_message(seed), max_tokens=96, token_ids=True)
            said = server.client.chat({**request, "ignore_eos": True})
            answers.setdefault(name, []).append([list(said.tokens), list(said.logprobs)])
    first, second = answers.values()
    same = all(one[0] == other[0] for one, other in zip(first, second, strict=True))
    bits = all(one[1] == other[1] for one, other in zip(first, second, strict=True))
    return {"same": same, "same logprobs": bits, "tokens": [one[0] for one in first]}


def compare_speed(figures: Sequence[Figure], slimmed: str, untouched: str) -> dict[str, Any]:
    """Slimmed's speed over untouched's, for prefill and decode: the ratio, and the range of 95 of 100 resamples.

    "within" SAME_SPEED, "outside" of it, or "open" where the runs spread too far to tell: where the range is partly in.
    """
    runs = {(one.name, one.of["batch"], one.of["content"]): one.runs for one in figures}
    ratios = {}
    for name, count, content in runs:
        if content == slimmed and name in ("prefill", "decode", *QUANTILE):
            ratios[f"{name}, batch {count}"] = ratio(
                runs[name, count, slimmed], runs[name, count, untouched], QUANTILE.get(name, 0.5)
            )
    return ratios


def ratio(ours: Sequence[float], theirs: Sequence[float], quantile: float = 0.5) -> dict[str, Any]:
    """The ratio of two quantiles, its range by resampling (the same at each call), and the verdict on it."""
    draw = np.random.default_rng(1)
    drawn = (draw.choice(np.array(one), (4000, len(one))) for one in (ours, theirs))
    upper, lower = (np.quantile(one, quantile, axis=1) for one in drawn)
    low, high = (float(value) for value in np.quantile(upper / lower, (0.025, 0.975)))
    within = low >= 1 - SAME_SPEED and high <= 1 + SAME_SPEED
    outside = high < 1 - SAME_SPEED or low > 1 + SAME_SPEED
    verdict: SpeedVerdict = "within" if within else "outside" if outside else "open"
    return {
        "ratio": round(float(np.quantile(ours, quantile) / np.quantile(theirs, quantile)), 4),
        "range": [round(low, 4), round(high, 4)],
        "verdict": verdict,
    }


def judge_speed(facts: dict[str, Any], what: str) -> dict[str, Any]:
    """The verdicts on "prefill" or "decode" of the step that compared. Raises Failed (outside), NotRun (open)."""
    ratios = {name: one for name, one in facts.get("speed", {}).items() if name.startswith(what)}
    if not ratios:
        raise NotRun("nothing was compared")
    bad = [name for name, one in ratios.items() if one["verdict"] == "outside"]
    if bad:
        raise Failed(f"not the same speed within {SAME_SPEED:.0%}: {', '.join(bad)}", ratios)
    left = [
        f"{name} {one['range'][0]:.2f} to {one['range'][1]:.2f}"
        for name, one in ratios.items()
        if one["verdict"] == "open"
    ]
    if left:
        raise NotRun(f"the runs spread too far to tell {SAME_SPEED:.0%}: {', '.join(left)}")
    return ratios
