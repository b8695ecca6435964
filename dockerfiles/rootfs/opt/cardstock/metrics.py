"""What the server on transformers tells Prometheus, through prometheus_client.

Histograms have vLLM's names, buckets and label where they mean what vLLM's mean, so that one dashboard shows both
(vllm/v1/metrics/loggers.py, stats.py and buckets.py, 0.32.0). What is this server's own begins with ``cardstock_``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import prometheus_client
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
# Seconds.
FIRST_TOKEN_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_BUCKETS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
REQUEST_BUCKETS = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
FINISHED = ("stop", "length")  # as vLLM: a request that broke off is not in the histograms of whole requests


class Metrics:
    """Counts since the start. ``running`` and ``waiting`` tell the numbers of requests as of now.

    ``model`` is the label ``model_name``: as in vLLM, the first name the model is served under.
    """

    def __init__(self, model: str, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        # A switch of the whole process: without it each series has a second one that tells when it was made.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call,unused-ignore]
        self.registry = CollectorRegistry()
        self.ended = self._counter("requests_ended", "Answers ended, by reason.", "finished_reason")
        self.refused = self._counter("requests_refused", "Requests refused, by HTTP status.", "status")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self.seconds = self._counter("request_seconds", "Seconds of all answers, from the request to their end.")
        for name, told, number in (
            ("num_requests_running", "Answers being generated.", running),
            ("num_requests_waiting", "Requests waiting for their turn.", waiting),
        ):
            Gauge(f"cardstock_{name}", told, registry=self.registry).set_function(number)

        def histogram(name: str, told: str, buckets: Sequence[float]) -> Histogram:
            made = Histogram(f"vllm:{name}", told, ["model_name"], buckets=buckets, registry=self.registry)
            return made.labels(model)

        self.first_token = histogram(
            "time_to_first_token_seconds", "Seconds from the request to its first token.", FIRST_TOKEN_BUCKETS
        )
        self.between_tokens = histogram(
            "inter_token_latency_seconds", "Seconds from each token to the next.", TOKEN_BUCKETS
        )
        self.whole = histogram(
            "e2e_request_latency_seconds", "Seconds from the request to its last token.", REQUEST_BUCKETS
        )
        self.queue = histogram("request_queue_time_seconds", "Seconds a request waited for its turn.", REQUEST_BUCKETS)

    def count_refusal(self, error: ApiError) -> None:
        """A request was refused."""
        self.refused.labels(error.status).inc()

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"cardstock_{name}", told, labels, registry=self.registry)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return prometheus_client.generate_latest(self.registry)


class RequestTimes:
    """The times of one request, which begin when it is made; each goes into its histogram once it is known.

    `token` is called in the thread that generates, everything else on the event loop.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._arrived = clock()
        self._queued = self._begun = self._arrived
        self._last: float | None = None

    def wait(self) -> None:
        """The request gets in line."""
        self._queued = self._clock()

    def begin(self) -> None:
        """It is the request's turn."""
        self._begun = self._clock()

    def token(self) -> None:
        """A token was chosen."""
        now = self._clock()
        if self._last is None:
            self._metrics.first_token.observe(now - self._arrived)
        else:
            self._metrics.between_tokens.observe(now - self._last)
        self._last = now

    def end(self, reason: str, prompt: int, generated: int) -> float:
        """The answer ended: count it and its tokens. Seconds since the request."""
        seconds = self._clock() - self._arrived
        self._metrics.ended.labels(reason).inc()
        self._metrics.prompt_tokens.inc(prompt)
        self._metrics.generation_tokens.inc(generated)
        self._metrics.seconds.inc(seconds)
        if reason in FINISHED and self._last is not None:
            self._metrics.whole.observe(self._last - self._arrived)
            self._metrics.queue.observe(self._begun - self._queued)
        return seconds
