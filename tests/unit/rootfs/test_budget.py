"""What requests share: taken in order, waited for within a time, given back."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "dockerfiles" / "rootfs" / "opt" / "cardstock"))
from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]
from budget import Budget, Share  # type: ignore[import-not-found,unused-ignore]


def test_what_is_taken_at_once_is_there_or_refused() -> None:
    budget = Budget(10, "bodies", "bytes")
    share, other = Share(budget), Share(budget)
    share.take_now(8)
    with pytest.raises(ApiError) as caught:
        other.take_now(3)
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    share.keep(5)
    other.take_now(5)
    share.keep(0)
    share.keep(0)
    assert (budget.left, share.amount, other.amount) == (5, 0, 5)


def test_more_than_all_is_refused_and_the_rest_waits_in_order() -> None:
    async def scene() -> None:
        budget = Budget(10, "pictures", "pixels")
        first, order = Share(budget), []
        await first.take(6, 1)
        with pytest.raises(ApiError, match="need 11 pixels; 10 are allowed") as caught:
            await Share(budget).take(11, 1)
        assert caught.value.status == 400

        async def later(name: str, amount: int) -> Share:
            share = Share(budget)
            await share.take(amount, 30)
            order.append(name)
            return share

        large = asyncio.create_task(later("large", 9))
        await asyncio.sleep(0)
        small = asyncio.create_task(later("small", 1))  # there would be room, but the large one was first
        await asyncio.sleep(0)
        assert order == []
        first.keep(0)
        (await large).keep(0)
        (await small).keep(0)
        assert order == ["large", "small"] and budget.left == 10

    asyncio.run(scene())


def test_who_waits_too_long_or_leaves_holds_back_nobody() -> None:
    async def scene() -> None:
        budget = Budget(10, "pictures", "pixels")
        first = Share(budget)
        await first.take(6, 1)
        with pytest.raises(ApiError) as caught:
            await Share(budget).take(9, 0.01)
        assert caught.value.status == 503
        leaver = asyncio.create_task(Share(budget).take(9, 30))
        small = asyncio.create_task(Share(budget).take(4, 30))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait_for(small, 5)
        with pytest.raises(asyncio.CancelledError):
            await leaver
        assert budget.left == 0
        late = asyncio.create_task(Share(budget).take(6, 30))
        await asyncio.sleep(0)
        first.keep(0)
        late.cancel()  # as its turn has come
        with pytest.raises(asyncio.CancelledError):
            await late
        assert budget.left == 6, "what came too late goes back"

    asyncio.run(scene())
