"""Level 4, server: the container serves the quantised model over the OpenAI API, as its users will start it.

The answers are held against golden tokens and logprobs, which transformers made in float32 from the same weights:
another engine, another precision. The order of the tests matters: the last one ends the server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from images.docker import RUN_LABEL, Mount
from images.proof.smoke import (
    COUNT_CALLS,
    PROOF,
    Expectation,
    Health,
    ProofContainers,
    Server,
    StandInCalls,
    calls_in,
    chat_request,
    greatest_distance,
    is_local,
    running_server,
    said_in,
    why_degenerate,
    why_not_golden,
    why_wrong,
)
from images.proof.smoke import server as serving
from images.proof.smoke.levels.conftest import require_no_call
from images.proof.tiny_model import Question, as_data_url, questions
from images.render import CACHE, PORT

GOLDEN = {golden.name: golden for golden in serving.read_golden(serving.GOLDEN.read_text())}
# 0, or ended by the SIGTERM that was sent; 137 would be SIGKILL after the limit.
CLEAN_ENDS = (0, 143)
HUB_VOLUME = "cardstock-hub"
# How this machine reaches a hub is passed on to the container that fetches from it.
HUB_SETTINGS = ("HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


@pytest.fixture(scope="module")
def servable(expectation: Expectation, with_gpus: bool) -> None:
    """Skips what cannot be tried on this machine."""
    if reason := serving.why_not_served(expectation, with_gpus):
        pytest.skip(reason)


@pytest.fixture(scope="module")
def server(
    servable: None,
    containers: ProofContainers,
    volume: str,
    expectation: Expectation,
    card: str | None,
    pytestconfig: pytest.Config,
) -> Iterator[Server]:
    """The image, started by its own entry point with the tiny model."""
    spec = containers.spec(
        serving.start_arguments(f"{PROOF}/tiny", serving.TINY),
        mounts=[Mount(volume, PROOF)],
        env={"HF_HUB_OFFLINE": "1", **COUNT_CALLS},
        port=next(iter(containers.config.ports), PORT),
        gpus=card is not None,
    )
    limit: float = pytestconfig.getoption("--health-limit")
    with running_server(containers.temporary, spec, serving.TINY, limit) as started:
        yield started


def test_healthy(server: Server, card: str | None, facts: dict[str, Any]) -> None:
    """It got healthy by its own check, and /health says so."""
    facts["device"] = card or "cpu"
    facts["seconds to healthy"] = server.seconds
    answer = server.client.get("/health")
    if answer.status != 200:
        pytest.fail(f"/health answered {answer.status}: {answer.body[:200]}", pytrace=False)


def test_user(server: Server) -> None:
    """The server's own process does not run as root."""
    finished = server.container.run(["python", "-c", "import os; print(os.stat('/proc/1').st_uid)"])
    if finished.code or finished.out.strip() in ("", "0"):
        pytest.fail(f"process 1 belongs to uid {finished.out.strip()!r}", pytrace=False)


def test_models(server: Server) -> None:
    """GET /v1/models names what is served."""
    names = [model["id"] for model in server.client.get("/v1/models").json()["data"]]
    if serving.TINY not in names:
        pytest.fail(f"/v1/models lists {names}, expected {serving.TINY}", pytrace=False)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, server: Server, expectation: Expectation, facts: dict[str, Any]) -> None:
    """Greedy tokens as golden, logprobs near them, nothing degenerate."""
    golden = GOLDEN[name]
    most = serving.pictures_per_request(expectation.default_args)
    if golden.pictures > most:
        pytest.skip(f"this server takes {most} picture a request")
    request = chat_request(server.name, golden.messages, max_tokens=len(golden.tokens) + 4, token_ids=True)
    said = server.client.chat(request)
    facts.setdefault(
        "independent run", "golden tokens: transformers, float32, CPU (images/proof/tiny_model/golden/golden.json)"
    )
    distance = greatest_distance(said, golden.table, serving.token_ids())
    facts.setdefault("tolerance", {"chosen": serving.TOLERANCE, "runners-up": serving.RUNNER_UP_TOLERANCE})
    facts.setdefault("logprob distance", {})[name] = round(distance, 4)
    broken = why_degenerate(said.text, said.logprobs)
    wrong = why_not_golden(said, golden.tokens, golden.texts, golden.logprobs, serving.TOLERANCE)
    if said.text != golden.text:
        wrong = wrong or f"said {said.text!r}, golden {golden.text!r}"
    if not distance <= serving.RUNNER_UP_TOLERANCE:
        wrong = wrong or f"a logprob is {distance:.3f} from golden, allowed {serving.RUNNER_UP_TOLERANCE}"
    if broken or wrong:
        pytest.fail("; ".join(filter(None, (broken, wrong))), pytrace=False)


def test_stream(server: Server) -> None:
    """Streamed, the answer is the same."""
    golden = GOLDEN["picture-red"]
    said = server.client.stream(chat_request(server.name, golden.messages, max_tokens=8))
    if said.text != golden.text or said.finish != "stop":
        pytest.fail(f"streamed {said.text!r} ({said.finish}), golden {golden.text!r}", pytrace=False)


def test_bad_picture(server: Server) -> None:
    """A picture that is none is the client's fault (400), and the server goes on."""
    messages = serving.question_messages("What is this?", serving.NOT_A_PICTURE)
    answer = server.client.call("POST", "/v1/chat/completions", chat_request(server.name, messages, max_tokens=4))
    if answer.status != 400:
        pytest.fail(f"a bad picture got {answer.status}, expected 400: {answer.body[:300]}", pytrace=False)
    golden = GOLDEN["picture-blue"]
    said = server.client.chat(chat_request(server.name, golden.messages, max_tokens=8))
    if said.text != golden.text:
        pytest.fail(f"after a bad picture it said {said.text!r}, golden {golden.text!r}", pytrace=False)


def test_metrics(server: Server, expectation: Expectation) -> None:
    """The server tells its metrics; that on transformers its own, and times under vLLM's names."""
    answer = server.client.get("/metrics")
    wanted = ["vllm:"]
    if expectation.backend == "transformers":
        wanted = ["cardstock_generation_tokens_total", "vllm:time_to_first_token_seconds_count"]
    if answer.status != 200 or any(name not in answer.body for name in wanted):
        pytest.fail(f"/metrics answered {answer.status}: {answer.body[:200]}", pytrace=False)


def test_no_stand_in(server: Server, facts: dict[str, Any]) -> None:
    """All of the above called nothing that the image leaves out."""
    require_no_call(calls_in(server.container, server.container.log()), facts)


def test_stop(server: Server, facts: dict[str, Any], pytestconfig: pytest.Config) -> None:
    """SIGTERM ends it within the limit, cleanly."""
    start, limit = time.monotonic(), int(pytestconfig.getoption("--stop-limit"))
    server.container.stop(limit)
    facts["seconds to stop"] = round(time.monotonic() - start, 1)
    code = Health.of(server.container.inspect()).exit_code
    if code not in CLEAN_ENDS:
        how = f"it had to be killed after {limit} s" if code == 137 else f"it ended with {code}"
        pytest.fail(f"no clean end on SIGTERM: {how}\n{server.container.log(20)}", pytrace=False)
    if complaint := StandInCalls(tuple(said_in(server.container.log()))).complaint():
        pytest.fail(f"while it ended, {complaint}", pytrace=False)


@pytest.fixture(scope="module")
def real_server(
    servable: None, containers: ProofContainers, expectation: Expectation, card: str | None, pytestconfig: pytest.Config
) -> Iterator[Server]:
    """The image with the model of --model: a local folder mounted, or a hub's id fetched into a volume that stays."""
    model: str | None = pytestconfig.getoption("--model")
    if model is None:
        pytest.skip("no --model was given")
    folder, env = Path(model), dict(COUNT_CALLS)
    if folder.is_dir():
        env["HF_HUB_OFFLINE"] = "1"
        local = is_local(os.environ)
        place = f"{PROOF}/model"
        mount = (
            Mount(str(folder.resolve()), place) if local else Mount(containers.proof_volume({"model": folder}), PROOF)
        )
    else:
        place = model
        env |= {name: os.environ[name] for name in HUB_SETTINGS if name in os.environ}
        containers.temporary.lasting_volume(HUB_VOLUME, {"dev.cardstock.keep": RUN_LABEL})
        mount = Mount(HUB_VOLUME, containers.config.env.get("XDG_CACHE_HOME", CACHE), read_only=False)
    spec = containers.spec(
        serving.start_arguments(place, "model"),
        mounts=[mount],
        env=env,
        port=next(iter(containers.config.ports), PORT),
        gpus=card is not None,
    )
    limit: float = pytestconfig.getoption("--health-limit")
    with running_server(containers.temporary, spec, "model", limit) as started:
        yield started


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.name)
def test_model(question: Question, real_server: Server, pytestconfig: pytest.Config, facts: dict[str, Any]) -> None:
    """A real model answers a question about a picture; "!!!!" and its like are failures."""
    messages = serving.question_messages(question.text, as_data_url(question.picture))
    said = real_server.client.chat(chat_request(real_server.name, messages, max_tokens=32))
    facts["model"] = pytestconfig.getoption("--model")
    facts.setdefault("answers", {})[question.name] = said.text[:200]
    broken = why_degenerate(said.tokens, said.logprobs) if said.tokens else None
    wrong = broken or why_wrong(said.text, question.answers)
    if wrong:
        pytest.fail(f"{question.text} {wrong}", pytrace=False)
    if complaint := calls_in(real_server.container, real_server.container.log()).complaint():
        pytest.fail(f"{question.text} {complaint}", pytrace=False)
