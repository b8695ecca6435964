"""/metrics of the server on transformers: its own counters, and histograms under vLLM's names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.fake_backend import FakeBackend, ask, client_of, post

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
import metrics  # type: ignore[import-not-found,unused-ignore]
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]

COUNTERS = {
    "cardstock_requests_ended": "counter",
    "cardstock_requests_refused": "counter",
    "cardstock_prompt_tokens": "counter",
    "cardstock_generation_tokens": "counter",
    "cardstock_request_seconds": "counter",
    "cardstock_num_requests_running": "gauge",
    "cardstock_num_requests_waiting": "gauge",
}
HISTOGRAMS = (
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
)


@pytest.fixture
def engine() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def client(engine: FakeBackend) -> Iterator[TestClient]:
    with client_of(engine) as client:
        yield client


def rows(page: str) -> dict[str, float]:
    """Each sample by its name and labels as they are written, as prometheus_client's own parser reads the page."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    told = {
        name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""): value
        for name, labels, value, *_ in samples
    }
    assert len(told) == len(samples)
    return told


def test_metrics_count_answers_refusals_and_tokens(client: TestClient, engine: FakeBackend) -> None:
    post(client, ask())
    post(client, ask(stream=True))
    post(client, ask(temperature=-1))
    engine.fails = ApiError(503, "out of GPU memory")
    post(client, ask())
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {name: value for name, value in rows(page.text).items() if name.startswith("cardstock_")}
    assert found.pop("cardstock_request_seconds_total") > 0
    assert found == {
        'cardstock_requests_ended_total{finished_reason="failed"}': 1,
        'cardstock_requests_ended_total{finished_reason="stop"}': 2,
        'cardstock_requests_refused_total{status="400"}': 1,
        'cardstock_requests_refused_total{status="503"}': 1,
        "cardstock_prompt_tokens_total": 36,
        "cardstock_generation_tokens_total": 22,
        "cardstock_num_requests_running": 0,
        "cardstock_num_requests_waiting": 0,
    }


def test_the_page_has_these_families_and_no_other(client: TestClient) -> None:
    post(client, ask())
    families = {family.name: family.type for family in text_string_to_metric_families(client.get("/metrics").text)}
    assert families == COUNTERS | dict.fromkeys(HISTOGRAMS, "histogram")


def test_histograms_count_under_the_first_name_that_is_served(client: TestClient, engine: FakeBackend) -> None:
    post(client, ask(model="alias"))
    post(client, ask(stream=True, max_tokens=3))
    found = rows(client.get("/metrics").text)
    counts = [found[f'{name}_count{{model_name="tiny"}}'] for name in HISTOGRAMS]
    assert counts == [2, 10 + 2, 2, 2], "11 tokens and 3: the first of each has none before it"
    engine.fails = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        post(client, ask())
    after = rows(client.get("/metrics").text)
    assert [after[f'{name}_count{{model_name="tiny"}}'] for name in HISTOGRAMS] == counts, "it ended without a token"


def test_times_run_from_the_request_and_the_last_token_ends_it() -> None:
    told = metrics.Metrics("tiny", lambda: 1, lambda: 2)
    moments = iter([100.0, 101.0, 103.0, 104.0, 104.5, 105.5, 109.0])
    times = metrics.RequestTimes(told, lambda: next(moments))
    times.wait()
    times.begin()
    for _ in range(3):
        times.token()
    assert times.end("length", 7, 3) == 9.0
    found = rows(told.text().decode())
    sums = [found[f'{name}_sum{{model_name="tiny"}}'] for name in HISTOGRAMS]
    assert sums == [4.0, 0.5 + 1.0, 5.5, 2.0], "a client that reads slowly does not make the answer slower"
    assert found["cardstock_request_seconds_total"] == 9.0
    assert (found["cardstock_num_requests_running"], found["cardstock_num_requests_waiting"]) == (1, 2)
    assert found['vllm:inter_token_latency_seconds_bucket{le="0.5",model_name="tiny"}'] == 1


def test_a_request_that_broke_off_is_in_no_histogram_of_whole_requests() -> None:
    told = metrics.Metrics("tiny", lambda: 0, lambda: 0)
    times = metrics.RequestTimes(told)
    times.wait()
    times.begin()
    times.token()
    times.end("client left", 7, 1)
    found = rows(told.text().decode())
    assert [found[f'{name}_count{{model_name="tiny"}}'] for name in HISTOGRAMS] == [1, 0, 0, 0]
    assert found['cardstock_requests_ended_total{finished_reason="client left"}'] == 1


def test_a_name_with_quotes_in_it_stays_a_label() -> None:
    told = metrics.Metrics('a "b"\\n\nc', lambda: 0, lambda: 0)
    names = {
        sample.labels["model_name"]
        for family in text_string_to_metric_families(told.text().decode())
        for sample in family.samples
        if "model_name" in sample.labels
    }
    assert names == {'a "b"\\n\nc'}
