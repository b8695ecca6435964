"""An amount that requests share: bytes of bodies, pixels of pictures. First come, first served. Event loop only."""

from __future__ import annotations

import asyncio
from collections import deque

from api_error import ApiError  # type: ignore[import-not-found,unused-ignore]


class Budget:
    """``whole``: what there is; ``name`` and ``unit`` as a refusal says them ("pictures", "pixels")."""

    def __init__(self, whole: int, name: str, unit: str) -> None:
        self.whole, self.left = whole, whole
        self._name, self._unit = name, unit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def _overloaded(self) -> ApiError:
        return ApiError(503, f"too many {self._name} are being worked on: try again later", code="overloaded")

    def take_now(self, amount: int) -> None:
        """Take what must not wait. Raises ApiError 503 where it is not there."""
        if amount > self.left:
            raise self._overloaded()
        self.left -= amount

    async def take(self, amount: int, seconds: float) -> None:
        """Take, after those who came before. Raises ApiError: 400 for more than all, 503 after ``seconds``."""
        if amount > self.whole:
            raise ApiError(400, f"the {self._name} of the request need {amount} {self._unit}; {self.whole} are allowed",
                           param="messages", code="too_large")  # fmt: skip
        if not self._waiting and amount <= self.left:
            self.left -= amount
            return
        turn = asyncio.get_running_loop().create_future()
        entry = (amount, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came as the wait ended
                self.left += amount
            else:
                self._waiting.remove(entry)
            self._serve()
            if isinstance(error, TimeoutError):
                raise self._overloaded() from None
            raise

    def give(self, amount: int) -> None:
        """Give back."""
        self.left += amount
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.left:
            amount, turn = self._waiting.popleft()
            if not turn.done():
                self.left -= amount
                turn.set_result(None)


class Share:
    """What one request has of a budget; given back all at once, or down to what it still needs."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.amount = budget, 0

    def take_now(self, amount: int) -> None:
        """More, at once. Raises ApiError 503."""
        self._budget.take_now(amount)
        self.amount += amount

    async def take(self, amount: int, seconds: float) -> None:
        """More, after those who came before. Raises ApiError."""
        await self._budget.take(amount, seconds)
        self.amount += amount

    def keep(self, amount: int) -> None:
        """Give back all above ``amount``; 0 gives back all, and may be called again."""
        if amount < self.amount:
            over, self.amount = self.amount - amount, amount
            self._budget.give(over)
