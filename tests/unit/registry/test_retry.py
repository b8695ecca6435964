"""Faults that pass: how often they are met, and how long is waited."""

from __future__ import annotations

import pytest

from images.registry.retry import ATTEMPTS, Retry, TransientError, may_pass, retry_after


class Flaky:
    """Fails with each of these faults, then gives 7."""

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.waits: list[float] = []
        self.said: list[str] = []
        self.retry = Retry(self.waits.append, self.said.append)

    def __call__(self) -> int:
        if self.faults:
            raise self.faults.pop(0)
        return 7


def test_what_works_waits_for_nothing() -> None:
    flaky = Flaky()
    assert flaky.retry.run(flaky) == 7
    assert (flaky.waits, flaky.said) == ([], [])


def test_waits_grow_and_are_told() -> None:
    flaky = Flaky(*(TransientError("HTTP 503") for _ in range(ATTEMPTS - 1)))
    assert flaky.retry.run(flaky) == 7
    assert flaky.waits == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert flaky.said[0] == "HTTP 503; again in 0.5 s"


@pytest.mark.parametrize("asked, waited", [(7.0, 7.0), (0.0, 0.5), (900.0, 120.0)])
def test_what_is_asked_for_is_waited_within_bounds(asked: float, waited: float) -> None:
    flaky = Flaky(TransientError("HTTP 429", asked))
    assert flaky.retry.run(flaky) == 7
    assert flaky.waits == [waited]


def test_a_wait_that_nobody_sits_through_is_not_begun() -> None:
    flaky = Flaky(TransientError("HTTP 429", 86400.0))
    with pytest.raises(TransientError, match="HTTP 429") as caught:
        flaky.retry.run(flaky)
    assert caught.value.asks_too_long
    assert (flaky.waits, flaky.said) == ([], [])


@pytest.mark.parametrize(
    "status, passes", [(408, 1), (429, 1), (500, 1), (503, 1), (521, 1), (501, 0), (507, 0), (404, 0)]
)
def test_which_faults_may_pass(status: int, passes: int) -> None:
    assert may_pass(status) == bool(passes)


def test_a_fault_that_lasts_is_raised_in_the_end() -> None:
    flaky = Flaky(*(TransientError(str(number)) for number in range(ATTEMPTS + 1)))
    with pytest.raises(TransientError, match=str(ATTEMPTS - 1)):
        flaky.retry.run(flaky)
    assert len(flaky.waits) == ATTEMPTS - 1


def test_other_faults_are_not_tried_again() -> None:
    flaky = Flaky(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        flaky.retry.run(flaky)
    assert flaky.waits == []


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("12", 12.0),
        (" 12 ", 12.0),
        (None, None),
        ("soon", None),
        ("²", None),
        ("-1", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:40 GMT", 0.0),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, now=60.0) == seconds
